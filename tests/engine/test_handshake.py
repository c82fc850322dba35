"""The opening handshake without a socket: the request as bytes, the reading of the answer, what is accepted."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from bws._engine.deflate import Agreement
from bws._engine.handshake import MAX_HEAD, Accepted, Head, HeadReader, accept_value, check, request
from bws._rules import check_settings
from bws._settings import USER_AGENT, Settings
from bws.errors import HandshakeError
from tests.engine.test_frames import pieces

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
PLAIN = check_settings("ws://example.com/")

# -- the request


def lines(url: str, protocols: Any = None, **options: Any) -> list[str]:
    """The lines of a request."""
    data = request(check_settings(url, protocols, **options), KEY)
    assert data.endswith(b"\r\n\r\n")
    return data[:-4].decode("latin-1").split("\r\n")


def test_the_request_has_its_lines_in_this_order() -> None:
    assert lines("ws://example.com/chat?x=1") == [
        "GET /chat?x=1 HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Origin: http://example.com",
        f"User-Agent: {USER_AGENT}",
    ]


def test_every_option_has_its_place_in_the_request() -> None:
    assert lines(
        "wss://user:p%40ss@[::1]:8443/a/../b",
        ["one", "two"],
        headers=[("X-B", "é"), ("x-a", ""), ("X-B", "2")],
        origin="https://origin.example",
        cookie="a=1",
        user_agent="tests/1.0",
        compression=False,
    ) == [
        "GET /b HTTP/1.1",
        "Host: [::1]:8443",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "Sec-WebSocket-Protocol: one, two",
        "Origin: https://origin.example",
        "User-Agent: tests/1.0",
        "Cookie: a=1",
        "Authorization: Basic " + base64.b64encode(b"user:p@ss").decode(),
        "X-B: é",
        "x-a: ",
        "X-B: 2",
    ]


def test_what_the_program_says_about_caches_goes_before_what_browsers_say() -> None:
    got = [line for line in lines("ws://a", headers={"cache-control": "max-age=0"}) if "ca" in line.lower()[:2]]
    assert got == ["cache-control: max-age=0"]
    assert "Pragma: no-cache" in lines("ws://a", headers={"cache-control": "max-age=0"})


def test_a_host_of_the_programs_own_stands_where_the_host_stands() -> None:
    found = lines("ws://127.0.0.1:80/", headers={"X": "1", "host": "virtual.example"})
    assert found[1] == "host: virtual.example"
    assert [line for line in found if line.lower().startswith("host:")] == ["host: virtual.example"]


def test_a_header_of_the_programs_own_replaces_what_would_be_sent_by_default() -> None:
    found = lines("ws://example.com", headers={"origin": "null", "User-agent": "mine/1"})
    assert [line for line in found if line.lower().startswith(("origin", "user-agent"))] == [
        "origin: null",
        "User-agent: mine/1",
    ]


def test_an_empty_origin_and_user_agent_leave_their_lines_out() -> None:
    found = lines("ws://example.com", origin="", user_agent="")
    assert not [line for line in found if line.startswith(("Origin", "User-Agent"))]


def test_the_accept_value_is_that_of_rfc_6455() -> None:
    assert accept_value(KEY) == ACCEPT
    other = base64.b64encode(b"0123456789abcdef").decode()
    digest = hashlib.sha1(other.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    assert accept_value(other) == base64.b64encode(digest).decode()


# -- reading the head

# name: (the bytes, status, reason, header fields)
HEADS: dict[str, tuple[bytes, int, str, list[tuple[str, str]]]] = {
    "a plain one": (b"HTTP/1.1 101 Switching Protocols\r\nA: 1\r\nB: 2\r\n\r\n", 101, "Switching Protocols", [
        ("A", "1"),
        ("B", "2"),
    ]),
    "without fields": (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, "Not Found", []),
    "without a reason": (b"HTTP/1.1 200\r\n\r\n", 200, "", []),
    "with an empty reason": (b"HTTP/1.1 200 \r\n\r\n", 200, "", []),
    "HTTP/1.0": (b"HTTP/1.0 101 x\r\n\r\n", 101, "x", []),
    "spaces in the status line": (b"HTTP/1.1   101   x  y \r\n\r\n", 101, "x  y", []),
    "bare line feeds": (b"HTTP/1.1 101 x\nA: 1\nB: 2\n\n", 101, "x", [("A", "1"), ("B", "2")]),
    "mixed line ends": (b"HTTP/1.1 101 x\nA: 1\r\nB: 2\n\r\n", 101, "x", [("A", "1"), ("B", "2")]),
    "an end of one kind each": (b"HTTP/1.1 101 x\r\nA: 1\r\n\n", 101, "x", [("A", "1")]),
    "white space around a value": (b"HTTP/1.1 101 x\r\nA:  \t1 \t\r\nB:2\r\n\r\n", 101, "x", [("A", "1"), ("B", "2")]),
    "white space inside a value": (b"HTTP/1.1 101 x\r\nA: 1  2\r\n\r\n", 101, "x", [("A", "1  2")]),
    "an empty value": (b"HTTP/1.1 101 x\r\nA:\r\nB: \r\n\r\n", 101, "x", [("A", ""), ("B", "")]),
    "a colon in a value": (b"HTTP/1.1 101 x\r\nA: b:c\r\n\r\n", 101, "x", [("A", "b:c")]),
    "a name twice": (b"HTTP/1.1 101 x\r\nA: 1\r\na: 2\r\n\r\n", 101, "x", [("A", "1"), ("a", "2")]),
    "a folded value": (b"HTTP/1.1 101 x\r\nA: 1\r\n 2\r\n\t 3\r\nB: 4\r\n\r\n", 101, "x", [("A", "1 2 3"), ("B", "4")]),
    "a folded empty value": (b"HTTP/1.1 101 x\r\nA:\r\n 2\r\n\r\n", 101, "x", [("A", "2")]),
    "a fold of nothing": (b"HTTP/1.1 101 x\r\n 0\r\nA: 1\r\n\r\n", 101, "x", [("A", "1")]),
    "a line that is no field": (b"HTTP/1.1 101 x\r\nnonsense\r\nA: 1\r\n: 2\r\na b: 3\r\n\r\n", 101, "x", [("A", "1")]),
    "space before the colon": (b"HTTP/1.1 101 x\r\nA : 1\r\n\r\n", 101, "x", [("A", "1")]),
    "Latin-1": (b"HTTP/1.1 101 \xfc\r\nA: \xe9\r\n\r\n", 101, "ü", [("A", "é")]),
    "a bare CR in a value": (b"HTTP/1.1 101 x\r\nA: 1\rB: 2\r\n\r\n", 101, "x", [("A", "1 B: 2")]),
    "a bare CR before the line end": (b"HTTP/1.1 101 x\r\r\nA: 1\r\r\n\r\n", 101, "x", [("A", "1")]),
    "a next-line character in a value": (b"HTTP/1.1 101 x\r\nA: 1\x85B: 2\r\n\r\n", 101, "x", [("A", "1\x85B: 2")]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_head_is_read_in_whatever_pieces_it_comes(name: str, size: int) -> None:
    data, status, reason, fields = HEADS[name]
    reader = HeadReader()
    *before, last = pieces(data, size)
    assert [reader.feed(piece) for piece in before] == [None] * len(before)
    assert reader.feed(last) == Head(status, reason, tuple(fields))
    assert reader.rest == b""


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("tail", [b"\x81\x01a", b"\r\n\r\n", b"\n", bytes(100_000)])
def test_what_comes_behind_a_head_is_kept(name: str, tail: bytes) -> None:
    data, status, *_ = HEADS[name]
    for cut in (0, 5, len(data) - 1):
        reader = HeadReader()
        if cut:
            assert reader.feed(data[:cut]) is None
        head = reader.feed(data[cut:] + tail)
        assert head is not None
        assert (head.status, reader.rest) == (status, tail)


# name: the bytes up to the first one that is wrong
NOT_HTTP = {
    "another protocol": b"S",
    "SSH": b"SSH-2.0-x\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "a frame": b"\x81\x01a",
    "lower case": b"h",
    "HTTP/2": b"HTTP/2",
    "HTTP/0.9": b"HTTP/0",
    "an empty line first": b"\r",
    "almost": b"HTTP 1",
    "NUL": b"\0",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_not_http_is_told_at_its_first_wrong_byte(name: str) -> None:
    data = NOT_HTTP[name]
    good = next(n for n in range(len(data)) if not b"HTTP/1.".startswith(data[: n + 1]))
    reader = HeadReader()
    for byte in pieces(data[:good]):
        assert reader.feed(byte) is None
    with pytest.raises(HandshakeError, match="not HTTP/1") as caught:
        reader.feed(data[good:])
    assert caught.value.status is None
    with pytest.raises(HandshakeError, match="not HTTP/1"):
        HeadReader().feed(data + b"\r\n\r\n")


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 101 a\0b\r\n\r\n", b"HTTP/1.1 101 x\r\nA\0: 1\r\n\r\n", b"HTTP/1.1 101 x\r\nA: \0\r\n\r\n"]
)
def test_a_head_has_no_nul(head: bytes) -> None:
    for size in (1, 1000):
        reader = HeadReader()
        *before, last = pieces(head, size)
        assert [reader.feed(piece) for piece in before] == [None] * len(before)
        with pytest.raises(HandshakeError, match="NUL"):
            reader.feed(last)


@pytest.mark.parametrize(
    "line", ["HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 abc", "HTTP/1.1 10", "HTTP/1.1 1010", "HTTP/1.1 101x", "HTTP/1. 101"]
)
def test_a_status_line_without_a_status_is_no_answer(line: str) -> None:
    with pytest.raises(HandshakeError, match="no HTTP status"):
        HeadReader().feed(line.encode() + b"\r\n\r\n")


def test_a_head_may_have_64_kib_and_not_a_byte_more() -> None:
    start, end = b"HTTP/1.1 101 x\r\nA: ", b"\r\n\r\n"
    room = MAX_HEAD - len(start) - len(end)
    head = HeadReader().feed(start + b"x" * room + end + b"frames" * 20_000)
    assert head is not None
    assert len(head.headers[0][1]) == room
    with pytest.raises(HandshakeError, match="over 64 KiB"):
        HeadReader().feed(start + b"x" * (room + 1) + end)
    reader = HeadReader()
    assert reader.feed(start + b"x" * (MAX_HEAD - len(start))) is None
    with pytest.raises(HandshakeError, match="over 64 KiB"):
        reader.feed(b"x")


def test_an_end_in_the_middle_says_how_much_had_come() -> None:
    reader = HeadReader("the answer of proxy 'p' port 1")
    assert str(reader.eof()) == "the connection ended without the answer of proxy 'p' port 1: TCP end before it"
    reader.feed(b"HTTP/1.1 101")
    assert str(reader.eof()).endswith("TCP end after 12 bytes of it")


def test_silence_to_a_question_in_clear_may_mean_tls() -> None:
    reader = HeadReader("the answer", "a wss: server")
    assert str(reader.eof()).endswith("TCP end before it (is it a wss: server?)")
    reader.feed(b"H")
    assert str(reader.eof()).endswith("TCP end after 1 bytes of it")
    with pytest.raises(HandshakeError, match=r"\(it looks like TLS; is it a wss: server\?\)$"):
        HeadReader("the answer", "a wss: server").feed(b"\x15\x03\x03\x00\x02\x02\x46")
    with pytest.raises(HandshakeError, match=r"F'$"):
        HeadReader().feed(b"\x15\x03\x03\x00\x02\x02\x46")


# -- what is accepted


def answer(
    *fields: str,
    status: int = 101,
    reason: str = "Switching Protocols",
    upgrade: str | None = "websocket",
    connection: str | None = "Upgrade",
    accept: str | None = ACCEPT,
) -> Head:
    """The right answer unless told otherwise (None leaves a field out, `fields` are more of them)."""
    right = {"Upgrade": upgrade, "Connection": connection, "Sec-WebSocket-Accept": accept}
    pairs = [(name, value) for name, value in right.items() if value is not None]
    pairs += [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
    return Head(status, reason, tuple(pairs))


def settings(protocols: Any = None, compression: bool = True) -> Settings:
    return check_settings("ws://example.com/", protocols, compression=compression)


DEFLATE = "permessage-deflate"
FIELD = "Sec-WebSocket-Extensions"
WANT = "Sec-WebSocket-Protocol"

# name: (the answer, the settings, what was agreed)
ACCEPTED: dict[str, tuple[Head, Settings, Accepted]] = {
    "the right answer": (answer(), PLAIN, Accepted()),
    "Upgrade in another case": (answer(upgrade="WebSocket"), PLAIN, Accepted()),
    "Connection in another case": (answer(connection="UPGRADE"), PLAIN, Accepted()),
    "Connection with more": (answer(connection="keep-alive, Upgrade"), PLAIN, Accepted()),
    "Connection with blanks": (answer(connection="\tkeep-alive ,,\t Upgrade "), PLAIN, Accepted()),
    "Connection twice": (answer("Connection: keep-alive"), PLAIN, Accepted()),
    "another reason": (answer(reason="OK"), PLAIN, Accepted()),
    "other fields": (answer("Server: x", "Set-Cookie: a=1"), PLAIN, Accepted()),
    "a subprotocol": (answer(f"{WANT}: chat"), settings("chat"), Accepted("chat")),
    "the second subprotocol": (answer(f"{WANT}: b"), settings(["a", "b"]), Accepted("b")),
    "a subprotocol in capitals": (answer(f"{WANT}: Chat"), settings("Chat"), Accepted("Chat")),
    "compression": (answer(f"{FIELD}: {DEFLATE}"), PLAIN, Accepted("", DEFLATE, Agreement())),
    "compression with parameters": (
        answer(f"{FIELD}: {DEFLATE}; server_max_window_bits=10 ;client_no_context_takeover"),
        PLAIN,
        Accepted(
            "",
            f"{DEFLATE}; server_max_window_bits=10 ;client_no_context_takeover",
            Agreement(server_max_window_bits=10, client_no_context_takeover=True),
        ),
    ),
    "a quoted parameter": (
        answer(f'{FIELD}: {DEFLATE};client_max_window_bits="9"'),
        PLAIN,
        Accepted("", f'{DEFLATE};client_max_window_bits="9"', Agreement(client_max_window_bits=9)),
    ),
    "a quoted parameter with a quoted pair": (
        answer(rf'{FIELD}: {DEFLATE};client_max_window_bits="1\5"'),
        PLAIN,
        Accepted("", rf'{DEFLATE};client_max_window_bits="1\5"', Agreement(client_max_window_bits=15)),
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_right_answer_is_accepted(name: str) -> None:
    head, chosen, accepted = ACCEPTED[name]
    assert check(head, chosen, KEY) == accepted


# name: (the answer, the settings, what the message says)
REFUSED: dict[str, tuple[Head, Settings, str]] = {
    "200": (answer(status=200, reason="OK"), PLAIN, "HTTP 200 OK instead of 101"),
    "401 without a reason": (answer(status=401, reason=""), PLAIN, "HTTP 401 instead of 101"),
    "302": (answer("Location: /x", status=302, reason="Found"), PLAIN, "HTTP 302 Found"),
    "100": (answer(status=100, reason="Continue"), PLAIN, "HTTP 100"),
    "102": (answer(status=102, reason="Processing"), PLAIN, "HTTP 102"),
    "no Upgrade": (answer(upgrade=None), PLAIN, "Upgrade header must be 'websocket', not missing"),
    "another Upgrade": (answer(upgrade="h2c"), PLAIN, "not 'h2c'"),
    "Upgrade with more": (answer(upgrade="websocket, h2c"), PLAIN, "Upgrade header"),
    "Upgrade twice": (answer("Upgrade: websocket"), PLAIN, "Upgrade header"),
    "no Connection": (answer(connection=None), PLAIN, "Connection header must have 'Upgrade', not missing"),
    "another Connection": (answer(connection="close"), PLAIN, "not 'close'"),
    "Connection with more than blanks": (answer(connection="\xa0Upgrade\x1f"), PLAIN, "Connection header"),
    "Connection inside a quoted string": (answer(connection='"a, Upgrade, b"'), PLAIN, "Connection header"),
    "Connection with a longer word": (answer(connection="Upgraded"), PLAIN, "Connection header"),
    "no Accept": (answer(accept=None), PLAIN, "Sec-WebSocket-Accept is wrong: missing"),
    "a wrong Accept": (answer(accept=ACCEPT[:-2] + "p="), PLAIN, "Accept is wrong"),
    "Accept in another case": (answer(accept=ACCEPT.upper()), PLAIN, "Accept is wrong"),
    "Accept twice": (answer(f"Sec-WebSocket-Accept: {ACCEPT}"), PLAIN, "Accept is wrong"),
    "the key as Accept": (answer(accept=KEY), PLAIN, "Accept is wrong"),
    "a subprotocol nobody asked for": (answer(f"{WANT}: chat"), PLAIN, "'chat'; offered: missing"),
    "another subprotocol": (answer(f"{WANT}: b"), settings("a"), "'b'; offered: 'a'"),
    "a subprotocol in another case": (answer(f"{WANT}: Chat"), settings("chat"), "'Chat'; offered: 'chat'"),
    "an empty subprotocol": (answer(f"{WANT}: "), settings("a"), "subprotocol"),
    "two subprotocols": (answer(f"{WANT}: a, b"), settings(["a", "b"]), "'a, b'"),
    "two subprotocol fields": (answer(f"{WANT}: a", f"{WANT}: b"), settings(["a", "b"]), "subprotocol"),
    "no subprotocol": (answer(), settings(["a", "b"]), "none of the subprotocols 'a', 'b'"),
    "an extension nobody offered": (answer(f"{FIELD}: x-other; y=1"), PLAIN, "not offered: x-other"),
    "compression that was not offered": (answer(f"{FIELD}: {DEFLATE}"), settings(compression=False), "not offered"),
    "compression twice": (answer(f"{FIELD}: {DEFLATE}, {DEFLATE}"), PLAIN, "permessage-deflate twice"),
    "compression in two fields": (answer(f"{FIELD}: {DEFLATE}", f"{FIELD}: {DEFLATE}"), PLAIN, "deflate twice"),
    "an illegal parameter": (answer(f"{FIELD}: {DEFLATE}; x=1"), PLAIN, "parameter x=1 is not legal"),
    "an illegal value": (answer(f"{FIELD}: {DEFLATE}; server_max_window_bits=7"), PLAIN, "server_max_window_bits=7"),
    "an extension without a name": (answer(f"{FIELD}: ; a=1"), PLAIN, "malformed"),
    "an extension with a value": (answer(f"{FIELD}: {DEFLATE}=1"), PLAIN, "malformed"),
    "a comma at the end": (answer(f"{FIELD}: {DEFLATE},"), PLAIN, "malformed"),
    "a semicolon at the end": (answer(f"{FIELD}: {DEFLATE};"), PLAIN, "malformed"),
    "a parameter without a value": (answer(f"{FIELD}: {DEFLATE}; client_max_window_bits="), PLAIN, "malformed"),
    "a half quoted value": (answer(f'{FIELD}: {DEFLATE}; client_max_window_bits="9'), PLAIN, "malformed"),
    "a quoted value that does not end": (
        answer(rf'{FIELD}: {DEFLATE}; client_max_window_bits="9\"'),
        PLAIN,
        "malformed",
    ),
    "an empty element": (answer(f"{FIELD}: {DEFLATE},"), PLAIN, "malformed"),  # as in Chromium
    "an empty quoted value": (answer(f'{FIELD}: {DEFLATE}; client_max_window_bits=""'), PLAIN, "malformed"),
    "a space in a name": (answer(f"{FIELD}: permessage deflate"), PLAIN, "malformed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_answer_is_refused_and_says_why(name: str) -> None:
    head, chosen, message = REFUSED[name]
    with pytest.raises(HandshakeError) as caught:
        check(head, chosen, KEY)
    assert message in str(caught.value)
    assert (caught.value.status, caught.value.headers) == (head.status, head.headers)


def test_a_message_does_not_repeat_a_header_of_any_length() -> None:
    for head in (
        answer(upgrade="x" * 10_000),
        answer(f"{FIELD}: {'y' * 10_000}"),
        answer(f"{WANT}: {'z' * 10_000}"),
        answer(f"{FIELD}: {DEFLATE}; {'y' * 10_000}"),
        answer(status=404, reason="z" * 10_000),
    ):
        with pytest.raises(HandshakeError) as caught:
            check(head, PLAIN, KEY)
        assert len(str(caught.value)) < 400


# -- the negotiation of permessage-deflate, as it stands in the answer (RFC 7692 section 7.1)

S, C = "server_no_context_takeover", "client_no_context_takeover"
SW, CW = "server_max_window_bits", "client_max_window_bits"

# the parameters: what is agreed, or None
NEGOTIATION: dict[str, Agreement | None] = {
    "": Agreement(),
    f"; {S}": Agreement(server_no_context_takeover=True),
    f"; {C}": Agreement(client_no_context_takeover=True),
    f"; {S}; {C}": Agreement(True, True),
    f";{C};{S}": Agreement(True, True),
    f"; {SW}=8": Agreement(server_max_window_bits=8),
    f"; {SW}=15": Agreement(),
    f"; {CW}=8": Agreement(client_max_window_bits=8),
    f"; {CW}=15": Agreement(),
    f'; {CW}="10"; {SW}="11"': Agreement(server_max_window_bits=11, client_max_window_bits=10),
    f" ;\t{S} ; {CW} = 9": Agreement(server_no_context_takeover=True, client_max_window_bits=9),
    f"; {S}; {C}; {SW}=9; {CW}=12": Agreement(True, True, 9, 12),
    # no value where there has to be one, and the other way round
    f"; {CW}": None,
    f"; {SW}": None,
    f"; {CW}=": None,
    f'; {CW}=""': None,
    f"; {S}=1": None,
    f"; {C}=true": None,
    f'; {S}=""': None,
    # values
    f"; {SW}=7": None,
    f"; {SW}=16": None,
    f"; {CW}=7": None,
    f"; {CW}=16": None,
    f"; {CW}=0": None,
    f"; {CW}=-9": None,
    f"; {CW}=+9": None,
    f"; {CW}=09": None,
    f"; {CW}=9.0": None,
    f"; {CW}=9 9": None,
    f"; {CW}=\u00b2": None,  # a digit, but not of ASCII
    f"; {CW}='9'": None,
    f'; {CW}="9': None,
    f'; {CW}=9"': None,
    f'; {CW}="9" "9"': None,
    # twice, unknown, in another case
    f"; {S}; {S}": None,
    f"; {CW}=9; {CW}=9": None,
    f"; {CW}=9; {CW}=10": None,
    "; x": None,
    "; x=1": None,
    f"; {S.upper()}": None,
    "; permessage-deflate": None,
    # empty ones
    ";": None,
    "; ": None,
    f"; ; {S}": None,
    f"; {S};": None,
    "; =9": None,
    "=1": None,
    # another extension beside it
    ", permessage-deflate": None,
    f", permessage-deflate; {S}": None,
    ", x-other": None,
    "; x, y": None,
    ",": None,
    ", ": None,
}


@pytest.mark.parametrize("parameters", NEGOTIATION)
def test_every_answer_to_the_offer_of_compression_is_agreed_or_refused(parameters: str) -> None:
    head = answer(f"{FIELD}: {DEFLATE}{parameters}")
    agreement = NEGOTIATION[parameters]
    if agreement is None:
        with pytest.raises(
            HandshakeError, match=r"permessage-deflate: the parameter|deflate twice|not offered|malformed"
        ):
            check(head, PLAIN, KEY)
    else:
        assert check(head, PLAIN, KEY) == Accepted("", DEFLATE + parameters, agreement)
    with pytest.raises(HandshakeError, match="not offered"):
        check(head, settings(compression=False), KEY)


@pytest.mark.parametrize(
    "name", ["Permessage-Deflate", "permessage-deflat", "x-webkit-deflate-frame", "deflate", '"permessage-deflate"', ""]
)
def test_only_the_extension_that_was_offered_is_taken(name: str) -> None:
    with pytest.raises(HandshakeError, match=r"not offered|malformed"):
        check(answer(f"{FIELD}: {name}"), PLAIN, KEY)
