"""The opening handshake: the request as bytes, and the strict reading of the answer (RFC 6455 section 4)."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from .._settings import Settings
from .._text import printable
from ..errors import HandshakeError
from . import deflate

__all__ = ["Accepted", "Head", "HeadReader", "check", "request"]

MAX_HEAD = 64 * 1024  # bytes
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"HTTP/1\.[0-9] +([0-9]{3})(?: +(.*))?\Z")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')  # of a list; a comma in a quoted string separates nothing
_BLANK = " \t"
_START = b"HTTP/1."
_TLS = (0x15, 0x16)  # the first byte of an alert, of a handshake


def request(settings: Settings, key: str) -> bytes:
    """The request's head (section 4.1).

    Args:
        settings: Where to, and what the program wants sent along.
        key: Sec-WebSocket-Key.
    """
    lines = [f"GET {settings.address.target} HTTP/1.1"]
    host = [pair for pair in settings.headers if pair[0].lower() == "host"]
    others = [pair for pair in settings.headers if pair[0].lower() != "host"]
    lines += [f"{name}: {value}" for name, value in host]
    lines += [
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    # The cache mode is "no-store" (https://websockets.spec.whatwg.org/#websocket-protocol), of which Fetch makes these
    # when they are not there (https://fetch.spec.whatwg.org/#http-network-or-cache-fetch).
    given = {name.lower() for name, _ in others}
    lines += [f"{name}: no-cache" for name in ("Pragma", "Cache-Control") if name.lower() not in given]
    if settings.protocols:
        lines.append("Sec-WebSocket-Protocol: " + ", ".join(settings.protocols))
    if settings.compression:
        lines.append("Sec-WebSocket-Extensions: " + deflate.OFFER)
    lines += [f"{name}: {value}" for name, value in others]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Head(NamedTuple):
    """Status line and header fields of an answer.

    Attributes:
        status: Such as 101.
        reason: Such as ``'Switching Protocols'``; may be ''.
        headers: Name and value of each field in wire order, folded lines joined.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """The values of all fields of this (lower-case) name."""
        return [value for field, value in self.headers if field.lower() == name]


class HeadReader:
    """Collects the head of an answer, which may come in any pieces.

    Args:
        whose: What it is, for messages.
        secure: What would be silent, or answer in TLS, as it was asked in clear: ``'a wss: server'``.

    Attributes:
        rest: What came behind the head.
    """

    __slots__ = ("_data", "_secure", "_whose", "rest")

    def __init__(self, whose: str = "the server's answer", secure: str = "") -> None:
        self._data = bytearray()
        self._whose, self._secure = whose, secure
        self.rest = b""

    def feed(self, data: bytes) -> Head | None:
        """Take `data`; the head when it is complete.

        Raises:
            HandshakeError: It is no HTTP answer, or too long.
        """
        seen = max(0, len(self._data) - 3)
        self._data += data
        if not self._data.startswith(_START[: len(self._data)]):
            tls = self._secure and self._data[0] in _TLS
            hint = f" (it looks like TLS; is it {self._secure}?)" if tls else ""
            raise HandshakeError(f"{self._whose} is not HTTP/1.x: {bytes(self._data[:40])!r}{hint}")
        end = _END.search(self._data, seen)
        if len(self._data) > MAX_HEAD if end is None else end.end() > MAX_HEAD:
            raise HandshakeError(f"{self._whose} has a head of over {MAX_HEAD // 1024} KiB")
        if end is None:
            return None
        self.rest = bytes(self._data[end.end() :])
        return self._parse(bytes(self._data[: end.start()]).decode("latin-1"))

    def eof(self) -> HandshakeError:
        """What to raise when the connection ended before the head did."""
        got = f"after {len(self._data)} bytes of it" if self._data else "before it"
        hint = f" (is it {self._secure}?)" if self._secure and not self._data else ""
        return HandshakeError(f"the connection ended without {self._whose}: TCP end {got}{hint}")

    def _parse(self, text: str) -> Head:
        # As browsers do: line ends may be bare LF, a line that starts with white space continues the one before,
        # and a line that is no header field is passed over. NUL is refused, and a bare CR is no line end but a space
        # (RFC 9112 section 2.2).
        if "\0" in text:
            raise HandshakeError(f"{self._whose} has a NUL in its head")
        first, *lines = [line.removesuffix("\r").replace("\r", " ") for line in text.split("\n")]
        match = _STATUS.match(first.rstrip())
        if match is None:
            raise HandshakeError(f"{self._whose} has no HTTP status: {first[:80]!r}")
        fields: list[tuple[str, str]] = []
        for line in lines:
            if line[:1] in (" ", "\t"):
                if fields:
                    name, value = fields[-1]
                    fields[-1] = (name, f"{value} {line.strip(_BLANK)}".strip(_BLANK))
                continue
            name, colon, value = line.partition(":")
            if colon and _TOKEN.match(name.rstrip(_BLANK)):
                fields.append((name.rstrip(_BLANK), value.strip(_BLANK)))
        return Head(int(match[1]), match[2] or "", tuple(fields))


class Accepted(NamedTuple):
    """What the server agreed to.

    Attributes:
        protocol: The subprotocol, or ''.
        extensions: The Sec-WebSocket-Extensions field as it came, or ''.
        deflate: The parameters of permessage-deflate, if it is used.
    """

    protocol: str = ""
    extensions: str = ""
    deflate: deflate.Agreement | None = None


def accept_value(key: str) -> str:
    """The Sec-WebSocket-Accept that answers `key` (section 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def check(head: Head, settings: Settings, key: str) -> Accepted:
    """Check an answer as browsers do (section 4.1, "the client MUST validate the server's response").

    Raises:
        HandshakeError: It is not acceptable.
    """
    if head.status != 101:
        answer = f"HTTP {head.status} {printable(head.reason)}".rstrip()
        raise _refused(head, f"the server answered {answer} instead of 101")
    upgrade = head.all("upgrade")
    if len(upgrade) != 1 or upgrade[0].lower() != "websocket":
        raise _refused(head, f"the answer's Upgrade header must be 'websocket', not {_shown(upgrade)}")
    connection = head.all("connection")
    if "upgrade" not in [token.strip(_BLANK).lower() for value in connection for token in _ELEMENT.findall(value)]:
        raise _refused(head, f"the answer's Connection header must have 'Upgrade', not {_shown(connection)}")
    accept = head.all("sec-websocket-accept")
    if accept != [accept_value(key)]:
        raise _refused(head, f"the answer's Sec-WebSocket-Accept is wrong: {_shown(accept)}")
    protocol = _check_protocol(head, settings.protocols)
    fields = head.all("sec-websocket-extensions")
    if not fields:
        return Accepted(protocol)
    extensions = ", ".join(fields)
    if not settings.compression:
        raise _refused(head, f"the server accepted extensions that were not offered: {_shown(extensions)}")
    try:
        return Accepted(protocol, extensions, deflate.agree(_parse_extensions(extensions)))
    except HandshakeError as exc:
        raise _refused(head, str(exc)) from None


def _check_protocol(head: Head, offered: tuple[str, ...]) -> str:
    """Exactly one of those that were offered, none if none was: stricter than RFC 6455, as browsers are."""
    chosen = head.all("sec-websocket-protocol")
    if not chosen and not offered:
        return ""
    if not chosen:
        raise _refused(head, f"the server chose none of the subprotocols {_shown(offered)}")
    if len(chosen) != 1 or chosen[0] not in offered:
        raise _refused(head, f"the server chose the subprotocol {_shown(chosen)}; offered: {_shown(offered)}")
    return chosen[0]


def _parse_extensions(text: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Sec-WebSocket-Extensions (section 9.1); values may be quoted tokens."""
    result = []
    for extension in text.split(","):
        parameters: list[tuple[str, str | None]] = []
        for part in extension.split(";"):
            name, equals, value = (piece.strip(_BLANK) for piece in part.partition("="))
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            if not _TOKEN.match(name) or (equals and not _TOKEN.match(value)):
                raise HandshakeError(f"Sec-WebSocket-Extensions is malformed: {text[:80]!r}")
            parameters.append((name, value if equals else None))
        if parameters[0][1] is not None:
            raise HandshakeError(f"Sec-WebSocket-Extensions is malformed: {text[:80]!r}")
        result.append((parameters[0][0], parameters[1:]))
    return result


def _refused(head: Head, message: str) -> HandshakeError:
    return HandshakeError(message, head.status, head.headers)


def _shown(values: object) -> str:
    shown = ", ".join(map(repr, values)) if isinstance(values, (list, tuple)) else repr(values)
    return shown[:120] if shown else "missing"
