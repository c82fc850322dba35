"""Any answer to the opening handshake, right or damaged, in any pieces; read as h11 and wsproto read it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h11
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from bws._engine.handshake import MAX_HEAD, Head, HeadReader, accept_value, check
from bws._rules import check_settings
from bws.errors import HandshakeError
from tests.fuzz.budget import count, examples
from tests.fuzz.readers import cut
from tests.fuzz.streams import damaged, damages, pieces

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RIGHT = accept_value(KEY)

names = st.sampled_from(
    ["Upgrade", "Connection", "Sec-WebSocket-Accept", "sec-websocket-protocol", "Set-Cookie", "X", "Server", "!#$%&'*"]
)
values = st.sampled_from(
    [
        "websocket",
        "Upgrade",
        "upgrade, x",
        "keep-alive, Upgrade",
        RIGHT,
        "",
        "chat",
        "a b",
        "\xe9",
        '"q, r"',
        " \t",
        "a:b",
    ]
) | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)
fields = st.lists(st.tuples(names, values), max_size=6)
statuses = st.sampled_from(["101 Switching Protocols", "101", "200 OK", "302 Found", "401 Unauthorized", "503 x y"])
ends = st.sampled_from(["\r\n", "\r\n", "\n"])


def encode(status: str, headers: list[tuple[str, str]], end: str = "\r\n", version: str = "1.1") -> bytes:
    """An answer's head."""
    lines = [f"HTTP/{version} {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return end.join(lines).encode("latin-1")


answer = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", RIGHT)]
heads = st.builds(encode, statuses, fields, ends, st.sampled_from(["1.1", "1.1", "1.0", "1.9"]))
# mostly right ones, with a header more or less, in any order; all ASCII, because wsproto raises UnicodeDecodeError for
# other octets, which RFC 9110 section 5.5 asks to be treated as opaque
answers = st.builds(
    lambda order, drop, more: [pair for i, pair in enumerate(order) if i != drop] + more,
    st.permutations(answer),
    st.sampled_from([None, None, None, 0, 1, 2]),
    st.lists(
        st.tuples(
            st.sampled_from(["Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "X"]),
            values.filter(str.isascii),
        ),
        max_size=2,
    ),
)


class Got(tuple[Any, ...]):
    """What a reader made of an answer: the head, what is behind it, or the error."""


def read(parts: Iterable[bytes]) -> Got:
    """Feed the parts; anything raised but a `HandshakeError` goes through."""
    reader = HeadReader()
    rest = b""
    head: Head | None = None
    try:
        for part in parts:
            if head is None:
                head = reader.feed(part)
                rest = reader.rest
            else:
                rest += part
    except HandshakeError as exc:
        return Got(("error", type(exc)))
    return Got(("head", head, rest) if head else ("waits", None, b""))


@given(heads | st.binary(max_size=80), st.lists(damages, max_size=2), st.binary(max_size=20), pieces)
@examples(0.06)
def test_any_answer_is_read_the_same_in_any_pieces(head: bytes, damage: Any, behind: bytes, sizes: list[int]) -> None:
    count()
    data = head + behind
    for one in damage:
        data = damaged(data, one)
    whole = read([data])
    assert read(cut(data, sizes)) == whole
    assert read(data[i : i + 1] for i in range(len(data))) == whole
    if whole[0] == "head":
        assert data.endswith(whole[2])
        assert 0 <= whole[1].status <= 999


@given(statuses, fields, st.binary(max_size=20))
@examples(0.04)
def test_what_h11_reads_is_read_the_same(status: str, headers: list[tuple[str, str]], behind: bytes) -> None:
    count()
    data = encode(status, headers)
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "h"), ("Upgrade", "websocket")]))
    connection.receive_data(data + behind)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return  # bws is as lenient as browsers are; h11 is not
    assert isinstance(event, (h11.Response, h11.InformationalResponse))
    _, head, rest = read([data + behind])
    assert (head.status, head.reason) == (event.status_code, event.reason.decode("latin-1"))
    assert [(name.lower(), value) for name, value in head.headers] == [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
    ]
    assert rest == behind


@given(st.integers(-80, 80), st.booleans(), pieces)
@examples(0.004)
def test_the_head_may_have_64_kib_and_not_a_byte_more(over: int, ends: bool, sizes: list[int]) -> None:
    count()
    start = b"HTTP/1.1 101 x\r\nX: "
    data = start + b"y" * (MAX_HEAD + over - len(start) - 4) + b"\r\n\r\n"
    data = data if ends else data.replace(b"\r\n\r\n", b"yyyy")
    got = read(cut(data, [*sizes, 60_000]))
    assert got == read([data])
    assert got[0] == ("error" if over > 0 else "head" if ends else "waits")


@given(statuses.filter(lambda s: s.startswith("101")), answers, st.sampled_from([(), ("chat",), ("a", "chat")]))
@examples(0.03)
def test_what_is_accepted_wsproto_accepts_too(status: str, headers: list[tuple[str, str]], offered: Any) -> None:
    count()
    client = WSConnection(ConnectionType.CLIENT)
    sent = client.send(Request(host="h", target="/", subprotocols=list(offered)))
    key = next(line[19:] for line in sent.decode().split("\r\n") if line.lower().startswith("sec-websocket-key: "))
    # wsproto knows only the last of several Connection fields; RFC 9110 section 5.3 makes them one list.
    tokens = ", ".join(value for name, value in headers if name == "Connection")
    one = [pair for pair in headers if pair[0] != "Connection"] + ([("Connection", tokens)] if tokens else [])
    data = encode(status, [(n, accept_value(key) if v == RIGHT else v) for n, v in headers])
    joined = encode(status, [(n, accept_value(key) if v == RIGHT else v) for n, v in one])
    options = check_settings("ws://h/", offered or None, compression=False)
    head = HeadReader().feed(data)
    assert head is not None
    try:
        accepted = check(head, options, key)
    except HandshakeError:
        return  # strict as browsers are; wsproto is not always
    try:
        client.receive_data(joined)
        events = list(client.events())
    except (RemoteProtocolError, LocalProtocolError) as exc:
        raise AssertionError(f"wsproto refuses what bws accepts: {exc}") from exc
    assert [type(event) for event in events] == [AcceptConnection]
    assert (events[0].subprotocol or "") == accepted.protocol  # type: ignore[attr-defined]


extensions = st.lists(
    st.sampled_from(
        ["permessage-deflate", ";", ",", " ", "=", "client_max_window_bits", "server_max_window_bits", "10", "8", '"9"',
         "server_no_context_takeover", "client_no_context_takeover", "x-webkit-deflate-frame", "16", "é", "\t"]
    ),
    max_size=10,
).map("".join) | st.text(st.characters(max_codepoint=255), max_size=30)  # fmt: skip


@given(extensions)
@examples(0.03)
def test_any_extensions_header_is_accepted_or_refused(text: str) -> None:
    count()
    head = Head(101, "", (*answer, ("Sec-WebSocket-Extensions", text)))
    options = check_settings("ws://h/")
    try:
        accepted = check(head, options, KEY)
    except HandshakeError:
        return
    assert accepted.deflate is not None
    agreed = accepted.deflate
    assert text.strip().startswith("permessage-deflate")
    assert min(agreed.server_max_window_bits, agreed.client_max_window_bits) >= 8
    assert max(agreed.server_max_window_bits, agreed.client_max_window_bits) <= 15
    assert agreed.server_no_context_takeover == ("server_no_context_takeover" in text)
    assert agreed.client_no_context_takeover == ("client_no_context_takeover" in text)
