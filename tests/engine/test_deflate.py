"""permessage-deflate: what may be agreed, round trips with zlib and with the websockets library, bombs."""

from __future__ import annotations

import itertools
import random
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import Server, ServerConnection, serve

import bws
from bws._engine.deflate import OFFER, Agreement, Deflater, Inflater, agree
from bws._engine.frames import FrameReader
from bws.errors import HandshakeError, ProtocolError
from bws.testing import EchoServer
from tests.conftest import TIMEOUT, Play, Recorder
from tests.engine.test_frames import Fed, fragments, pieces
from tests.wire.frames import BINARY, CONTINUATION, TEXT, frame
from tests.wire.server import Connection

MIB = 1 << 20
NAME = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"

# -- what may be agreed

Parameters = list[tuple[str, str | None]]

LEGAL: list[tuple[Parameters, Agreement]] = [
    ([], Agreement()),
    ([("server_no_context_takeover", None)], Agreement(server_no_context_takeover=True)),
    ([("client_no_context_takeover", None)], Agreement(client_no_context_takeover=True)),
    ([("server_max_window_bits", "8")], Agreement(server_max_window_bits=8)),
    ([("server_max_window_bits", "15")], Agreement()),
    ([("client_max_window_bits", "8")], Agreement(client_max_window_bits=8)),
    ([("client_max_window_bits", "12")], Agreement(client_max_window_bits=12)),
    (
        [
            ("client_max_window_bits", "9"),
            ("server_max_window_bits", "10"),
            ("client_no_context_takeover", None),
            ("server_no_context_takeover", None),
        ],
        Agreement(True, True, 10, 9),
    ),
]

ILLEGAL: list[list[tuple[str, Parameters]]] = [
    [],
    [("x-other", [])],
    [("Permessage-Deflate", [])],
    [(NAME, []), (NAME, [])],
    [(NAME, []), ("x-other", [])],
    [("x-other", []), (NAME, [])],
    [(NAME, [("x", None)])],
    [(NAME, [("x", "1")])],
    [(NAME, [("Server_no_context_takeover", None)])],
    [(NAME, [("server_no_context_takeover", "1")])],
    [(NAME, [("server_no_context_takeover", "")])],
    [(NAME, [("client_no_context_takeover", "true")])],
    [(NAME, [("server_no_context_takeover", None), ("server_no_context_takeover", None)])],
    [(NAME, [("client_max_window_bits", None)])],
    [(NAME, [("server_max_window_bits", None)])],
    [(NAME, [("client_max_window_bits", "9"), ("client_max_window_bits", "9")])],
]
NO_BITS = ("", "0", "7", "16", "-9", "+9", "09", "9.0", "1e1", "0x9", " 9", "15 ")


@pytest.mark.parametrize(("parameters", "agreement"), LEGAL)
def test_legal_parameters_are_agreed_in_any_order(parameters: Parameters, agreement: Agreement) -> None:
    for order in itertools.permutations(parameters):
        assert agree([(NAME, order)]) == agreement


@pytest.mark.parametrize("extensions", ILLEGAL)
def test_anything_else_is_no_agreement(extensions: list[tuple[str, Parameters]]) -> None:
    with pytest.raises(HandshakeError, match=r"permessage-deflate|not offered"):
        agree(extensions)


@pytest.mark.parametrize("value", NO_BITS)
@pytest.mark.parametrize("name", ["client_max_window_bits", "server_max_window_bits"])
def test_a_window_has_8_to_15_bits(name: str, value: str) -> None:
    with pytest.raises(HandshakeError, match=name):
        agree([(NAME, [(name, value)])])


def test_what_is_offered_lets_the_server_choose_both_windows() -> None:
    # A server may use its own two parameters and client_no_context_takeover without being asked.
    assert OFFER == "permessage-deflate; client_max_window_bits"


# -- receiving

AGREEMENTS = [
    Agreement(server, client, bits, bits)
    for server, client in itertools.product([False, True], repeat=2)
    for bits in (8, 9, 10, 11, 12, 13, 14, 15)
]

chance = random.Random(7)
NOISE = chance.randbytes(40_000)
TEXTS = [
    b"",
    b"x",
    b"hello hello hello",
    b'{"id": 1, "name": "somebody"}' * 30,
    bytes(100_000),
    NOISE,
    b"far" + NOISE[:30_000] + b"away" + NOISE[:30_000],  # repeats over a distance that needs a large window
    b'{"id": 2, "name": "somebody"}' * 30,
]


def ids(agreement: Agreement) -> str:
    server, client = (
        "fresh" * it for it in (agreement.server_no_context_takeover, agreement.client_no_context_takeover)
    )
    return f"{agreement.server_max_window_bits} bits, server {server}, client {client}"


class Peer:
    """The other end's compressor, straight from zlib."""

    def __init__(self, bits: int = 15, fresh: bool = False, level: int = 6) -> None:
        # zlib writes no window of 256 bytes; a message without repetitions over more than that looks the same.
        self._bits, self._fresh, self._level = max(9, bits), fresh, level
        self._zlib = self._new()

    def _new(self) -> Any:
        return zlib.compressobj(self._level, zlib.DEFLATED, -self._bits)

    def message(self, data: bytes) -> bytes:
        out: bytes = self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        if self._fresh:
            self._zlib = self._new()
        assert out.endswith(TAIL)
        return out[:-4]


def inflate(inflater: Inflater, data: bytes, cut: int | None = None) -> bytes:
    """Decompress one message, in one piece or two."""
    if cut is None:
        return b"".join(inflater.inflate(data, True))
    return b"".join([*inflater.inflate(data[:cut], False), *inflater.inflate(data[cut:], True)])


@pytest.mark.parametrize("agreement", AGREEMENTS, ids=ids)
def test_what_zlib_compresses_is_decompressed(agreement: Agreement) -> None:
    small = agreement.server_max_window_bits == 8
    peer = Peer(agreement.server_max_window_bits, agreement.server_no_context_takeover or small)
    inflater = Inflater(agreement)
    for text in [chance.randbytes(100) + b"abc" * 30 if small else t for t in TEXTS] * 2:
        assert inflate(inflater, peer.message(text)) == text


@pytest.mark.parametrize("agreement", AGREEMENTS, ids=ids)
def test_what_is_compressed_zlib_decompresses_with_the_agreed_window(agreement: Agreement) -> None:
    deflater = Deflater(agreement)
    peer = None
    for text in TEXTS * 2:
        data = deflater.deflate(memoryview(text))
        if data is None:
            continue
        assert len(data) < len(text)
        if peer is None or agreement.client_no_context_takeover:
            peer = zlib.decompressobj(-agreement.client_max_window_bits)
        # In small pieces zlib has no more of what came before than its window.
        out = b""
        rest = data + TAIL
        while rest or len(out) < len(text):
            out += peer.decompress(rest, 64)
            rest = peer.unconsumed_tail
        assert out == text
    assert (peer is None) == (agreement.client_max_window_bits == 8)


def test_a_small_message_is_not_compressed() -> None:
    deflater = Deflater(Agreement())
    assert deflater.deflate(b"") is None
    assert deflater.deflate(b"a" * 20) is None
    assert deflater.deflate(b"a" * 1000) is not None


def test_a_message_that_would_grow_is_sent_as_it_is_and_the_next_one_is_readable() -> None:
    deflater, peer = Deflater(Agreement()), zlib.decompressobj(-15)
    before, after = deflater.deflate(b"abc" * 100), None
    assert before is not None
    assert peer.decompress(before + TAIL) == b"abc" * 100
    assert deflater.deflate(NOISE[:2000]) is None
    # It may refer to what the peer has seen, and to nothing of the noise, which the peer has not decompressed.
    after = deflater.deflate(b"abc" * 100 + NOISE[:500] * 2)
    assert after is not None
    assert peer.decompress(after + TAIL) == b"abc" * 100 + NOISE[:500] * 2


def test_with_context_takeover_a_repeated_message_is_tiny() -> None:
    text = bytes(chance.choices(range(97, 123), k=2000))
    deflater = Deflater(Agreement())
    sizes = [len(deflater.deflate(text) or text) for _ in range(3)]
    assert sizes[0] > 10 * sizes[1] > 0
    fresh = Deflater(Agreement(client_no_context_takeover=True))
    assert len({fresh.deflate(text) for _ in range(3)}) == 1


HELLO = bytes.fromhex("f248cdc9c90700")

# RFC 7692 section 7.2.3
RFC: dict[str, tuple[list[bytes], list[bytes]]] = {
    "one block": ([HELLO], [b"Hello"]),
    "the same again, with context takeover": ([HELLO, bytes.fromhex("f200110000")], [b"Hello", b"Hello"]),
    "a block without compression": ([bytes.fromhex("000500faff48656c6c6f00")], [b"Hello"]),
    "a block with BFINAL": ([bytes.fromhex("f348cdc9c9070000")], [b"Hello"]),
    "two blocks": ([bytes.fromhex("f2480500 0000ffffcac9c90700")], [b"Hello"]),
    "an empty message": ([b"\x00", HELLO], [b"", b"Hello"]),
    "a block with BFINAL and nothing behind it": ([bytes.fromhex("f348cdc9c90700")] * 2, [b"Hello"] * 2),
    "BFINAL in every message": ([bytes.fromhex("f348cdc9c9070000")] * 3, [b"Hello"] * 3),
    "BFINAL, then without": ([bytes.fromhex("f348cdc9c9070000"), HELLO], [b"Hello", b"Hello"]),
    "two final blocks in a message": ([bytes.fromhex("f348cdc9c90700") * 2 + b"\x00"], [b"HelloHello"]),
}


@pytest.mark.parametrize("name", RFC)
def test_the_examples_of_rfc_7692_are_read_however_they_are_cut(name: str) -> None:
    data, texts = RFC[name]
    assert [inflate(it, piece) for it in [Inflater(Agreement())] for piece in data] == texts
    for cut in range(max(map(len, data)) + 1):
        inflater = Inflater(Agreement())
        assert [inflate(inflater, piece, cut) for piece in data] == texts
    inflater = Inflater(Agreement())
    for piece, text in zip(data, texts, strict=True):
        out = [part for byte in pieces(piece) for part in inflater.inflate(byte, False)]
        assert b"".join([*out, *inflater.inflate(b"", True)]) == text


@pytest.mark.parametrize("agreement", [it for it in AGREEMENTS if it.server_max_window_bits > 8], ids=ids)
def test_a_stream_behind_a_final_block_may_refer_to_what_was_before_it(agreement: Agreement) -> None:
    bits = agreement.server_max_window_bits
    inflater = Inflater(agreement)
    history = b""
    for size in (50, 500, 5_000, 50_000, 500, 200_000):
        if agreement.server_no_context_takeover:
            history = b""
        message, text = b"", b""
        for final in (True, True, False):
            window = history[-(1 << bits) + 300 :]
            stream = zlib.compressobj(9, zlib.DEFLATED, -bits, zdict=window)
            part = window[:100] + chance.randbytes(size)
            message += stream.compress(part) + stream.flush(zlib.Z_FINISH if final else zlib.Z_SYNC_FLUSH)
            text, history = text + part, history + part
        data = message.removesuffix(TAIL)
        assert inflate(inflater, data, chance.randrange(len(data))) == text


def test_little_is_kept_of_what_went_before() -> None:
    peer, inflater = Peer(), Inflater(Agreement())
    tracemalloc.start()
    try:
        for size in [1] * 20_000 + [1000] * 500 + [1 << 20] * 3:
            assert len(inflate(inflater, peer.message(bytes(size)))) == size
        before = tracemalloc.get_traced_memory()[0]
        del inflater
        assert before - tracemalloc.get_traced_memory()[0] < 256 * 1024
    finally:
        tracemalloc.stop()


def test_a_stored_block_behind_a_final_one_is_read_however_it_is_cut() -> None:
    text = chance.randbytes(0xFF00)
    final = zlib.compressobj(wbits=-15)
    head = final.compress(b"abc") + final.flush(zlib.Z_FINISH)
    data = head + b"\x00" + b"\x00\xff\xff\x00" + text + b"\x00"  # the length begins like an empty block's
    for cut in range(len(head) + 8):
        assert inflate(Inflater(Agreement()), data, cut) == b"abc" + text


@pytest.mark.parametrize("steps", [1, 2])
def test_nothing_is_left_inside_at_the_edges_of_a_step(steps: int) -> None:
    """Output comes in steps of 128 KiB: around each edge zlib has used up its input before its output is out."""
    peer, inflater = Peer(), Inflater(Agreement())
    for size in range(steps * 131072 - 5, steps * 131072 + 300, 5):
        data = peer.message(bytes(size))
        for cut in (None, len(data) - 1):
            assert len(inflate(inflater, data, cut)) == size
            data = peer.message(bytes(size))
        early = Peer().message(bytes(size))[:-1]
        there = zlib.decompressobj(wbits=-15).decompress(early)
        assert b"".join(Inflater(Agreement()).inflate(early, last=False)) == there


@given(st.lists(st.binary(max_size=2000), max_size=6), st.integers(0, 9), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_any_messages_at_any_level_in_any_pieces(texts: list[bytes], level: int, size: int) -> None:
    peer, inflater = Peer(level=level), Inflater(Agreement())
    for text in texts:
        data = peer.message(text)
        out = [part for piece in pieces(data, size) for part in inflater.inflate(piece, False)]
        assert b"".join([*out, *inflater.inflate(b"", True)]) == text


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x07", bytes.fromhex("000500000048656c6c6f")])
@pytest.mark.parametrize("cut", [None, 1, 5])
def test_corrupt_data_is_a_violation(data: bytes, cut: int | None) -> None:
    with pytest.raises(ProtocolError, match="corrupt") as caught:
        inflate(Inflater(Agreement()), data, cut)
    assert caught.value.close_code == 1002


# -- compressed messages among frames


def reader(max_size: int | None = None) -> Fed:
    return Fed(max_size, Inflater(Agreement()))


def test_compressed_and_uncompressed_messages_may_take_turns() -> None:
    peer = Peer()
    stream = (
        frame(TEXT, peer.message("zürich".encode()), rsv=4)
        + frame(TEXT, "plain")
        + frame(BINARY, peer.message(b"\xff" * 100), rsv=4)
        + frame(BINARY, b"\xff")
        + frame(TEXT, peer.message("zürich".encode()), rsv=4)
        + frame(TEXT, b"\x00", rsv=4)
    )
    items = ["zürich", "plain", b"\xff" * 100, b"\xff", "zürich", ""]
    assert reader().feed(stream).items == items
    assert reader().feed(*pieces(stream)).items == items


@pytest.mark.parametrize("cut", range(12))
def test_a_compressed_message_may_be_cut_anywhere(cut: int) -> None:
    data = Peer().message("€uro".encode())
    stream = fragments(TEXT, data, [(cut, [(9, b"ping")]), (cut * 2, [])], rsv=4)
    assert reader().feed(*pieces(stream)).items == [(9, b"ping"), "€uro"]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (frame(TEXT, Peer().message(b"abc\xff"), rsv=4), 1007),
        (frame(TEXT, Peer().message(b"abc\xe2\x82"), rsv=4), 1007),
        (frame(TEXT, b"\xff\xff\xff", rsv=4), 1002),
        (frame(TEXT, HELLO, rsv=6), 1002),
        (frame(9, b"x", rsv=4), 1002),
        (frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(CONTINUATION, HELLO[3:], rsv=4), 1002),
        (frame(CONTINUATION, HELLO, rsv=4), 1002),
    ],
)
def test_what_is_wrong_in_a_compressed_message_is_a_violation(stream: bytes, code: int) -> None:
    for data in ([stream], pieces(stream)):
        with pytest.raises(ProtocolError) as caught:
            reader().feed(*data)
        assert caught.value.close_code == code


# -- bombs


def peak_of(fed: Fed, data: list[bytes]) -> tuple[ProtocolError, int]:
    """The violation that `data` ends in, and the bytes that reading took."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as caught:
            fed.feed(*data)
        return caught.value, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMB = Peer(level=9).message(bytes(200 * MIB))


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [len(BOMB) + 20, 4096])
def test_a_bomb_stops_at_max_size_and_is_not_held_in_memory(opcode: int, size: int) -> None:
    assert len(BOMB) < MIB
    error, peak = peak_of(reader(2 * MIB), pieces(frame(opcode, BOMB, rsv=4), size))
    assert error.close_code == 1009
    assert "max_size=2,097,152" in str(error)
    assert peak < 2 * MIB + MIB  # what may be held, and a few steps


def test_a_bomb_in_fragments_stops_at_max_size_too() -> None:
    stream = fragments(BINARY, BOMB, [(n * 1000, [(9, b"")]) for n in range(100)], rsv=4)
    error, peak = peak_of(reader(2 * MIB), pieces(stream, 65536))
    assert (error.close_code, peak < 3 * MIB) == (1009, True)


def test_a_compressed_message_of_exactly_max_size_is_fine() -> None:
    fed = reader(MIB)
    for _ in range(2):
        fed.feed(frame(BINARY, Peer().message(bytes(MIB)), rsv=4))
    assert [len(item) for item in fed.items] == [MIB, MIB]
    with pytest.raises(ProtocolError, match="max_size"):
        reader(MIB).feed(frame(BINARY, Peer().message(bytes(MIB + 1)), rsv=4))


def test_a_frame_that_announces_more_than_max_size_is_not_waited_for() -> None:
    with pytest.raises(ProtocolError, match="max_size") as caught:
        reader(1000).feed(frame(BINARY, HELLO, length=1001, rsv=4))
    assert caught.value.close_code == 1009


def test_a_bomb_fails_the_connection_with_1009(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(f"Sec-WebSocket-Extensions: {NAME}", then=frame(TEXT, "before") + frame(BINARY, BOMB, rsv=4))

    played = play(script, max_size=MIB)
    assert played.entries == [("open", 1), ("message", 1, "before"), ("error", 3), ("close", 3, 1006, "", False)]
    assert played.seen.close is not None
    assert played.seen.close[0] == 1009


# -- with another implementation at the other end

SAMPLES: list[str | bytes] = [
    "",
    b"",
    "short",
    "é€😀" * 1000,
    b"\x00\xff" * 50_000,
    NOISE,
    '{"id": 1, "name": "somebody"}' * 30,
    bytes(3 * MIB),
    "x" * 125,
    b"x" * 65536,
]


def echoed(url: str) -> tuple[str, list[Any]]:
    """What was agreed, and what comes back of the samples."""
    with bws.WebSocket(url) as ws:
        recorder = Recorder(ws)
        for sample in SAMPLES:
            ws.send(sample)
        recorder.wait_for("message", len(SAMPLES))
        return ws.extensions, recorder.data


def test_messages_survive_the_websockets_library() -> None:
    with EchoServer(compression=True) as server:
        extensions, data = echoed(server.url)
        assert server.headers["Sec-WebSocket-Extensions"] == OFFER
        assert server.messages == SAMPLES
    assert extensions.startswith(NAME)
    assert data == SAMPLES


@pytest.mark.parametrize("compression", [True, False])
def test_without_agreement_nothing_is_compressed(compression: bool) -> None:
    with EchoServer(compression=not compression) as server, bws.WebSocket(server.url, compression=compression) as ws:
        assert ws.extensions == ""
        recorder = Recorder(ws)
        ws.send("plain" * 1000)
        recorder.wait_for("message")
        assert recorder.data == ["plain" * 1000]
        assert ("Sec-WebSocket-Extensions" in server.headers) == compression


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The threaded echo server of websockets with these parameters."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    factory = ServerPerMessageDeflateFactory(*request.param)
    with serve(echo, "127.0.0.1", 0, extensions=[factory], compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(TIMEOUT)


@pytest.mark.parametrize(
    "server",
    [
        (False, False, None, None),
        (True, False, None, None),
        (False, True, None, None),
        (True, True, None, None),
        (False, False, 9, 9),
        (True, True, 9, 9),
        (False, False, 12, 15),
        (False, False, 15, 10),
    ],
    indirect=True,
)
def test_all_parameters_work_with_the_websockets_library(server: Server, request: pytest.FixtureRequest) -> None:
    server_fresh, client_fresh, server_bits, client_bits = request.node.callspec.params["server"]
    port = server.socket.getsockname()[1]
    extensions, data = echoed(f"ws://127.0.0.1:{port}/")
    assert data == SAMPLES
    assert ("server_no_context_takeover" in extensions) == server_fresh
    assert ("client_no_context_takeover" in extensions) == client_fresh
    assert f"client_max_window_bits={client_bits}" in extensions or client_bits is None
    assert f"server_max_window_bits={server_bits}" in extensions or server_bits is None


def test_a_reader_without_an_inflater_knows_no_compression() -> None:
    with pytest.raises(ProtocolError, match="reserved bits"):
        FrameReader(None, lambda opcode, payload: None).feed(frame(TEXT, HELLO, rsv=4))
