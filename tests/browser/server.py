"""The other end: the path of the URL says how the server behaves. Built on the tests' own server of plain bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from tests.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame, http
from tests.wire.server import Connection

Script = Callable[[Connection], None]
STATUS = "HTTP/1.1 101 Switching Protocols"
WAIT = 10.0  # seconds that a stalled server waits; the client leaves long before


def serve(c: Connection) -> None:
    """The script of every connection."""
    c.request()
    name, _, argument = c.seen.target.lstrip("/").partition("?")
    if name in TALKS:
        c.upgrade(c.response())
        TALKS[name](c)
    elif name in STREAMS:
        c.upgrade(c.response() + STREAMS[name])
        c.close_sent = bytes([0x80 | CLOSE]) in STREAMS[name][-130:]
    elif name in ANSWERS:
        ANSWERS[name](c)
    elif name == "close":
        code, _, reason = argument.partition(",")
        c.upgrade(c.response())
        c.close(None if code == "none" else int(code), reason)
    elif name == "protocol":
        c.upgrade(c.response(protocol=argument or None))
    else:
        raise AssertionError(f"no such script: {name}")


def _note(c: Connection) -> None:
    """Say nothing."""


def _close_differently(c: Connection) -> None:
    c.read_until(CLOSE)
    c.close(4000, "mine")


def _close_with_eof(c: Connection) -> None:
    c.read_until(CLOSE)
    c.half_close()


def _talk_until_closed(c: Connection) -> None:
    c.send_text("before")
    c.read_until(CLOSE)
    c.send(frame(TEXT, "after") + frame(BINARY, b"after"))
    c.close(3000)


def _end(c: Connection) -> None:
    c.send_text("hello")
    c.half_close()


def _end_in_a_message(c: Connection) -> None:
    c.send(frame(TEXT, "half", length=10))
    c.half_close()


def _reset(c: Connection) -> None:
    c.send(frame(TEXT, "hello") + frame(PING, "here?"))
    c.read_until(PONG)  # the message has arrived, and is not lost with the reset
    c.reset()


def _pings(c: Connection) -> None:
    c.send(frame(PING, "1") + frame(PING) + frame(TEXT, "text") + frame(PING, b"\x00\xff" * 62))
    for _ in range(3):
        c.read_until(PONG)
    c.close(3000)


# after a right answer
TALKS: dict[str, Script] = {
    "echo": Connection.echo,
    "note": _note,
    "close-differently": _close_differently,
    "close-with-eof": _close_with_eof,
    "talks-until-closed": _talk_until_closed,
    "eof": _end,
    "eof-in-a-message": _end_in_a_message,
    "reset": _reset,
    "pings": _pings,
}

BYE = close_frame(3000, "bye")

# in one packet with a right answer
STREAMS: dict[str, bytes] = {
    "greet": frame(TEXT, "one") + frame(TEXT, "two") + close_frame(),
    "greet-and-close": frame(TEXT, "hello") + BYE,
    "many": b"".join(frame(TEXT, str(n)) for n in range(200)) + BYE,
    "mixed": frame(TEXT, "1") + frame(BINARY, b"\x02") + frame(TEXT, "") + frame(BINARY) + BYE,
    "fragments": frame(TEXT, b"\xe2\x82", fin=False)
    + frame(PING, "between")
    + frame(CONTINUATION, b"\xac one ", fin=False)
    + frame(CONTINUATION, fin=False)
    + frame(CONTINUATION, "two")
    + BYE,
    "close-and-data": frame(TEXT, "before") + BYE + frame(TEXT, "behind"),
    "close-unicode": close_frame(3000, "h\u00e9 \u2713 \U0001f600"),
    "masked": frame(TEXT, "before") + frame(TEXT, "x", mask=b"mask"),
    "rsv2": frame(TEXT, "before") + frame(TEXT, "x", rsv=2),
    "rsv1": frame(TEXT, "before") + frame(TEXT, "x", rsv=4),
    "opcode-3": frame(TEXT, "before") + frame(3, "x"),
    "opcode-11": frame(TEXT, "before") + frame(11, "x"),
    "continuation": frame(TEXT, "before") + frame(CONTINUATION, "x"),
    "text-in-text": frame(TEXT, "before") + frame(TEXT, "a", fin=False) + frame(TEXT, "b"),
    "long-ping": frame(TEXT, "before") + frame(PING, "x" * 126),
    "split-ping": frame(TEXT, "before") + frame(PING, "x", fin=False),
    "long-length": frame(TEXT, "before") + frame(TEXT, "x", length_bytes=2),
    "bad-utf8": frame(TEXT, "before") + frame(TEXT, b"a\xff"),
    "bad-utf8-later": frame(TEXT, "before") + frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"a"),
    "surrogate": frame(TEXT, "before") + frame(TEXT, b"\xed\xa0\x80"),
    "close-of-one-byte": frame(TEXT, "before") + frame(CLOSE, b"\x03"),
    "bad-close-reason": frame(TEXT, "before") + close_frame(1000, b"\xff"),
}


def _compressed(c: Connection) -> None:
    squeeze = zlib.compressobj(wbits=-15)
    body = (squeeze.compress(b"a text " * 20) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]
    c.upgrade(c.response("Sec-WebSocket-Extensions: permessage-deflate") + frame(TEXT, body, rsv=4) + BYE)
    c.close_sent = True


def _half_an_answer(c: Connection) -> None:
    c.send(c.response()[:40])
    c.half_close()


def _answer(*extra: str, **fields: str | None) -> Script:
    return lambda c: c.upgrade(c.response(*extra, **fields) + frame(TEXT, "hello") + BYE)  # type: ignore[arg-type]


def _status(status: str, *headers: str) -> Script:
    def script(c: Connection) -> None:
        c.send(http(status, *headers))
        c.half_close()

    return script


def _lines(change: Callable[[bytes], bytes]) -> Script:
    def script(c: Connection) -> None:
        c.upgrade(change(c.response()) + frame(TEXT, "hello") + BYE)
        c.close_sent = True

    return script


# instead of a right answer
ANSWERS: dict[str, Script] = {
    "compressed": _compressed,
    "stall": lambda c: c.drain(),
    "eof-before-the-answer": Connection.half_close,
    "half-an-answer": _half_an_answer,
    "status-200": _status("200 OK"),
    "status-404": _status("404 Not Found"),
    "status-401": _status("401 Unauthorized", 'WWW-Authenticate: Bearer realm="x"'),
    "redirect": _status("302 Found", "Location: /greet-and-close"),
    "wrong-accept": _answer(accept="s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "no-accept": _answer(accept=None),
    "accept-twice": lambda c: _answer(f"Sec-WebSocket-Accept: {c.accept}")(c),
    "no-upgrade": _answer(upgrade=None),
    "wrong-upgrade": _answer(upgrade="h2c"),
    "no-connection": _answer(connection=None),
    "unasked-protocol": _answer("Sec-WebSocket-Protocol: chat"),
    "unasked-extension": _answer("Sec-WebSocket-Extensions: x-nobody-knows"),
    "nonsense": lambda c: c.send(b"I am no web server\r\n\r\n"),
    "bare-lf": _lines(lambda head: head.replace(b"\r\n", b"\n")),
    "folded": _lines(lambda head: head.replace(b"Upgrade: websocket", b"Upgrade:\r\n websocket")),
}
