"""The rules for arguments: pure functions that return what is right or raise what was wrong."""

from __future__ import annotations

import base64
import contextlib
import re
import ssl as _ssl
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import ada_url

from ._proxy import parse as parse_proxy
from ._settings import CLOSE_TIMEOUT, MAX_SIZE, OPEN_TIMEOUT, USER_AGENT, Address, Settings, check_time
from ._system import runs_later, signature_of
from ._text import brief, mistyped
from .errors import DOMSyntaxError, InvalidAccessError, _InvalidAccessTypeError

__all__ = [
    "BINARY",
    "TEXT",
    "check_close",
    "check_protocols",
    "check_settings",
    "parse_url",
    "payload_of",
    "scalar",
]

TEXT, BINARY = 1, 2  # opcodes, RFC 6455 section 5.2
MAX_REASON = 123  # bytes: a control frame has 125, the close code takes 2

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 section 5.6.2
# a host, and perhaps a port and a path, without a scheme; no password can be in it
_BARE = re.compile(r"[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/([^/#@][^#@]*)?)?")
# the user, password, host and port of an absolute URL, and what follows; see https://url.spec.whatwg.org/
_AUTHORITY = re.compile(
    r"[\x00-\x20]*(?:ws|wss|http|https):[/\\]*([^/\\?#]*)(.*)", re.ASCII | re.DOTALL | re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset({"upgrade", "connection", "content-length", "transfer-encoding"})


def scalar(text: str) -> str:
    """Convert to a scalar value string: surrogate pairs are joined, lone surrogates become U+FFFD.

    See https://infra.spec.whatwg.org/#javascript-string-convert.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


# -- the URL ------------------------------------------------------------------------------------------


def parse_url(url: str) -> Address:
    """Parse the constructor's URL (https://websockets.spec.whatwg.org/#dom-websocket-websocket).

    Raises:
        TypeError: It is not a str.
        DOMSyntaxError: It cannot be parsed, has another scheme, or has a fragment.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be a str such as 'wss://example.com/chat', not {_kind(url)}")
    shown = brief(mistyped(url))
    # 1-2. "Let urlRecord be the result of applying the URL parser to url with baseURL": a program has no base.
    try:
        record = ada_url.URL(scalar(url))
        # 3-4. "If urlRecord's scheme is http(s), then set urlRecord's scheme to ws(s)."
        scheme = {"http:": "ws:", "https:": "wss:"}.get(record.protocol)
        if scheme is not None:
            record = ada_url.URL(scheme + record.href[len(record.protocol) :])
    except ValueError:
        like = _with_scheme(url) or "'wss://example.com/chat'"
        raise DOMSyntaxError(
            f"url {shown} cannot be parsed{_likely_mistake(url)}; expected an absolute URL such as {like}"
        ) from None
    # 5. "If urlRecord's scheme is not ws or wss, then throw a SyntaxError."
    if record.protocol not in ("ws:", "wss:"):
        # "localhost:8765" reads as the scheme "localhost"
        meant = f", as in {like}" if (like := _with_scheme(url)) else ""
        raise DOMSyntaxError(
            f"url {shown} has the scheme {record.protocol[:-1]!r}; expected ws, wss, http or https{meant}"
        )
    # 6. "If urlRecord's fragment is non-null, then throw a SyntaxError."
    href = record.href
    if "#" in href:
        raise DOMSyntaxError(f"url {shown} has a fragment (#...), which a WebSocket URL may not have; drop it")
    secure = record.protocol == "wss:"
    authority = record.host
    name = record.hostname
    return Address(
        href=href,
        secure=secure,
        host=name[1:-1] if name.startswith("[") else name,
        port=int(record.port) if record.port else 443 if secure else 80,
        authority=authority,
        origin=f"{record.protocol}//{authority}",
        target=href[href.index("/", len(record.protocol) + 2) :],
        authorization=_basic(record.username, record.password, shown),
    )


def _likely_mistake(url: str) -> str:
    """What is wrong with a WebSocket URL that cannot be parsed, told without any part of it; or nothing."""
    match = _AUTHORITY.match(re.sub("[\t\n\r]", "", url))
    if match is None:
        return ""
    host = match[1].rpartition("@")[2]
    if "@" in match[2]:
        # What was to be a password has ended before its end, and what is called host here is a part of it.
        return ": its host or port is not valid; in a user name or password, /, ? and # must be percent-encoded"
    name, colon, port = host.rpartition(":")
    if not name and (colon or not port):
        return ": it has no host"
    with contextlib.suppress(ValueError):
        if colon and ada_url.URL(f"ws://{name}"):
            return ": its port must be a number in 0-65535"
    fix = " (an IPv6 address has brackets around it, as in ws://[::1]:8080)" if host.count(":") > 1 else ""
    return f": its host is not a valid name or address{fix}"


def _with_scheme(url: str) -> str:
    """What was meant by ``127.0.0.1:8765/chat``, in quotes; nothing when it is not as simple as that."""
    meant = f"ws://{url}"
    with contextlib.suppress(ValueError):
        if _BARE.fullmatch(url) and ada_url.URL(meant):
            return brief(meant)
    return ""


def _basic(user: str, password: str, shown: str) -> str:
    """The userinfo as a Basic credential (RFC 7617), which may have no control characters."""
    if not user and not password:
        return ""
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    if _CONTROL.search(pair.decode("latin-1")):
        raise DOMSyntaxError(f"url {shown}: its user name or password has a control character (CR, LF, NUL ...)")
    return "Basic " + base64.b64encode(pair).decode("ascii")


def check_protocols(protocols: str | Iterable[str] | None) -> tuple[str, ...]:
    """Check the subprotocols: each a token, none twice.

    Raises:
        TypeError: Neither a str nor an iterable of str.
        DOMSyntaxError: One is not a token, or is there twice.
    """
    # 8. "If protocols is a string, set protocols to a sequence consisting of just that string."
    if protocols is None:
        return ()
    if isinstance(protocols, str):
        protocols = (protocols,)
    elif isinstance(protocols, (bytes, bytearray, Mapping)) or not isinstance(protocols, Iterable):
        raise TypeError(f"protocols must be a str or an iterable of str, not {brief(protocols)}")
    chosen = tuple(protocols)
    for name in chosen:
        if not isinstance(name, str):
            raise TypeError(f"protocols must hold str only, not {brief(name)}")
        # 9. "If any of the values in protocols occur more than once or otherwise fail to match the
        # requirements for Sec-WebSocket-Protocol, then throw a SyntaxError."
        if not _TOKEN.match(name):
            raise DOMSyntaxError(
                f"protocols: {brief(name)} is not a valid subprotocol; expected letters, digits and !#$%&'*+-.^_`|~"
            )
        if chosen.count(name) > 1:
            raise DOMSyntaxError(f"protocols: {brief(name)} is there twice; name each subprotocol once")
    return chosen


# -- the options --------------------------------------------------------------------------------------


def check_settings(
    url: str,
    protocols: str | Iterable[str] | None = None,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    origin: str | None = None,
    cookie: str | None = None,
    user_agent: str | None = None,
    ssl: _ssl.SSLContext | None = None,
    proxy: bool | str | None = True,
    open_timeout: float | None = OPEN_TIMEOUT,
    close_timeout: float | None = CLOSE_TIMEOUT,
    ping_interval: float | None = None,
    ping_timeout: float | None = None,
    max_size: int | None = MAX_SIZE,
    compression: bool = True,
) -> Settings:
    """Check every argument of the constructor but `dispatch`.

    Raises:
        DOMSyntaxError: The URL or a subprotocol is not acceptable.
        TypeError: An option has the wrong type.
        ValueError: An option has the right type and a wrong value.
    """
    address = parse_url(url)
    if ssl is not None:
        if not isinstance(ssl, _ssl.SSLContext):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {brief(ssl)}")
        if not address.secure:
            shown = brief(mistyped(url))
            raise ValueError(f"ssl={brief(ssl)} needs a wss: URL, but {shown} is not encrypted; use wss://")
    if ping_timeout is not None and ping_interval is None:
        raise ValueError(f"ping_timeout={brief(ping_timeout)} needs ping_interval, the seconds between two pings")
    if max_size is not None and (isinstance(max_size, bool) or not isinstance(max_size, int)):
        raise TypeError(f"max_size must be a number of bytes (int) or None, not {brief(max_size)}")
    if max_size is not None and max_size <= 0:
        raise ValueError(f"max_size={brief(max_size)} must be positive, or None for no limit")
    if not isinstance(compression, bool):
        raise TypeError(f"compression must be True or False, not {brief(compression)}")
    return Settings(
        address=address,
        protocols=check_protocols(protocols),
        headers=_check_headers(address, headers, origin, cookie, user_agent),
        ssl=ssl,
        proxy=_check_proxy(proxy),
        open_timeout=check_time("open_timeout", open_timeout),
        close_timeout=check_time("close_timeout", close_timeout),
        ping_interval=check_time("ping_interval", ping_interval),
        ping_timeout=check_time("ping_timeout", ping_timeout),
        max_size=max_size,
        compression=compression,
    )


def check_dispatch(dispatch: object) -> Callable[[Callable[[], None]], object] | None:
    """A callable that takes a zero-argument callable, or None.

    Raises:
        TypeError: It is something else, or a coroutine or generator function, whose body would never run.
    """
    if dispatch is None:
        return None
    if isinstance(dispatch, (FunctionType, type)) and (dispatch.__module__ or "").startswith("bws.dispatch."):
        # They take one argument too, and would refuse each call: nothing but a socket that closes would be seen.
        raise TypeError(f"dispatch must be what bws.dispatch.{dispatch.__name__}(...) returns; the call is missing")
    good = callable(dispatch)
    if callable(dispatch):
        with contextlib.suppress(ValueError):  # some builtins have no signature
            try:
                signature_of(dispatch).bind(None)
            except TypeError:
                good = False
    if callable(dispatch) and (kind := runs_later(dispatch)):
        # Each call would be answered with a coroutine that nobody awaits: the socket would stay CONNECTING.
        raise TypeError(
            "dispatch must be a plain callable that gets a zero-argument callable run on your thread, such as "
            f"bws.dispatch.asyncio() or loop.call_soon_threadsafe; {brief(dispatch)} is a {kind} function, whose body "
            "would never run"
        )
    if not good:
        raise TypeError(
            "dispatch must be a callable that gets a zero-argument callable run on your thread, such as "
            f"loop.call_soon_threadsafe, or None; not {brief(dispatch)}"
        )
    return cast("Callable[[Callable[[], None]], object]", dispatch)


def _check_headers(
    address: Address,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
    origin: str | None,
    cookie: str | None,
    user_agent: str | None,
) -> tuple[tuple[str, str], ...]:
    """All header fields beside those of the handshake itself, in the order in which they are sent."""
    chosen = list(_pairs(headers))
    given = {name.lower() for name, _ in chosen}
    result = []
    if "host" not in given:
        result.append(("Host", address.authority))
    for option, name, value, default in (
        ("origin", "Origin", origin, address.http_origin),
        ("user_agent", "User-Agent", user_agent, USER_AGENT),
        ("cookie", "Cookie", cookie, ""),
    ):
        if value is not None:
            if name.lower() in given:
                raise ValueError(f"headers has {name!r}, which {option}= sets too; give only one of them")
            _check_value(option, value)
        elif name.lower() in given:
            continue
        value = default if value is None else value
        if value:
            result.append((name, value))
    if address.authorization:
        if "authorization" in given:
            raise ValueError("headers has 'Authorization', which user:password@ in url sets too; give only one of them")
        result.append(("Authorization", address.authorization))
    return (*result, *chosen)


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> Iterable[tuple[str, str]]:
    if headers is None:
        return
    expected = "headers must be a mapping or an iterable of (name, value) pairs of str"
    # Values are not shown: they may be secret, also where they are in the wrong place.
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise TypeError(f"{expected}, not {_kind(headers)}")
    seen = set()
    for pair in headers.items() if isinstance(headers, Mapping) else headers:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"{expected}; {_kind(pair)} is not a pair")
        name, value = pair
        if not isinstance(name, str) or not isinstance(value, str):
            kind = type(value).__name__ if isinstance(value, (int, float)) else _kind(value)
            if isinstance(name, str) and _TOKEN.match(name):
                raise TypeError(f"headers[{brief(name)}] must be a str, not {kind}")
            raise TypeError(f"{expected}; got {_kind(name)} and {kind}")
        if not _TOKEN.match(name):
            start, colon, _ = name.partition(":")
            raise ValueError(
                f"headers: {brief(start + colon)} is not a header name; expected letters, digits and !#$%&'*+-.^_`|~"
            )
        lower = name.lower()
        if lower in _OURS or lower.startswith("sec-websocket-"):
            raise ValueError(f"headers: {name!r} belongs to the handshake and cannot be set")
        if lower in seen and lower in ("host", "origin", "user-agent", "authorization"):
            raise ValueError(f"headers: {name!r} is there twice; it may be sent once only")
        seen.add(lower)
        yield name, _check_value(f"headers[{name!r}]", value)


def _check_value(option: str, value: str) -> str:
    secret = option not in ("origin", "user_agent")
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a str, not {_kind(value) if secret else brief(value)}")
    shown = option if secret else f"{option}={brief(value)}"
    if found := _CONTROL.search(value):
        raise ValueError(
            f"{shown}: character {found.start() + 1} of {len(value)} is the control character {found[0]!r}, which "
            "would split the request; was a line end read along with the value?"
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError as exc:
        place = f"character {exc.start + 1} of {len(value)}"
        raise ValueError(f"{shown}: {place} is not Latin-1; percent-encode or base64-encode other characters") from None
    return value


def _kind(value: object) -> str:
    """What a value is, when it may be a secret."""
    if isinstance(value, (str, bytes, tuple, list)):
        return f"{type(value).__name__} of length {len(value)}"
    return brief(value) if value is None or isinstance(value, (int, float)) else type(value).__name__


def _check_proxy(proxy: bool | str | None) -> bool | str | None:
    expected = "proxy must be True (the environment's), None (no proxy) or a URL such as 'http://user:pass@host:8080'"
    if proxy is None or proxy is True:
        return proxy
    if not isinstance(proxy, str):
        raise TypeError(f"{expected}, not {_kind(proxy)}")
    try:
        parse_proxy(proxy)
    except ValueError as exc:
        raise ValueError(f"{expected}; {exc}") from None
    return proxy


# -- the methods --------------------------------------------------------------------------------------


def check_close(code: int | None, reason: str | None) -> tuple[int | None, bytes]:
    """Check the arguments of close() (https://websockets.spec.whatwg.org/#dom-websocket-close).

    Returns:
        The code and the reason's UTF-8 bytes.

    Raises:
        TypeError: Wrong types; of the code this is an InvalidAccessError too.
        InvalidAccessError: The code is neither 1000 nor in 3000-4999, or a reason has no code.
        DOMSyntaxError: The reason has over 123 bytes.
    """
    if code is not None and (isinstance(code, bool) or not isinstance(code, int)):
        raise _InvalidAccessTypeError(f"code must be 1000, an int in 3000-4999, or None; not {brief(code)}")
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"reason must be a str or None, not {brief(reason)}")
    # 1. "If code is present, but is neither an integer equal to 1000 nor in the range 3000 to 4999 ..."
    if code is not None and code != 1000 and not 3000 <= code <= 4999:
        raise InvalidAccessError(f"code {brief(code)} cannot be sent; expected 1000 or 3000-4999")
    if code is None and reason:
        # In the browser a missing code before a reason is 0, which is out of range.
        raise InvalidAccessError(f"reason {brief(reason)} needs a code: close(1000, reason)")
    data = scalar(reason or "").encode("utf-8")
    # 2. "If reasonBytes is longer than 123 bytes, then throw a SyntaxError."
    if len(data) > MAX_REASON:
        raise DOMSyntaxError(
            f"reason {brief(reason)} has {len(data)} UTF-8 bytes; at most {MAX_REASON} fit in a close frame"
        )
    return code, data


def payload_of(data: Any) -> tuple[int, bytes | memoryview | str]:
    """The opcode and payload bytes of what send() was given; a text of ASCII only stays as it is.

    Raises:
        TypeError: Neither a str nor a C-contiguous buffer.
    """
    kind = type(data)
    if kind is str:
        if data.isascii():
            return TEXT, data  # it is its own UTF-8: encoding it can wait until it is sent
        try:
            return TEXT, data.encode()
        except UnicodeEncodeError:
            return TEXT, scalar(data).encode("utf-8")
    if kind is bytes:
        return BINARY, data
    if isinstance(data, str):
        return payload_of(str.__str__(data))  # what it holds, whatever the methods of a subclass say
    return BINARY, buffer_of("data", data)


def buffer_of(option: str, data: Any) -> bytes | memoryview:
    """The bytes of any C-contiguous buffer.

    Raises:
        TypeError: It is not one.
        ValueError: It is a memoryview that has been released.
    """
    try:
        view = memoryview(data)
    except TypeError:
        expected = "a str (text) or bytes-like (binary)" if option == "data" else "bytes-like"
        fix = "; for other values send json.dumps(value)" if option == "data" else ""
        raise TypeError(f"{option} must be {expected}, not {type(data).__name__} {brief(data)}{fix}") from None
    except ValueError as exc:
        raise ValueError(f"{option} {brief(data)} cannot be read: {exc}") from None
    if not view.c_contiguous:
        kind = type(data).__name__
        raise TypeError(
            f"{option} must be a C-contiguous buffer, not {kind} {brief(data)}; give a copy of it, made by bytes(...)"
        )
    return view.cast("B") if view.nbytes else b""
