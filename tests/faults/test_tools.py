"""The proxy does what it is told, and the judge knows right from wrong: else the other tests would show nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.conftest import TIMEOUT
from tests.faults import judge
from tests.faults.proxy import (
    BLACKHOLE,
    CORRUPT,
    END,
    HALF_CLOSE,
    NOTHING,
    PAUSE,
    RESET,
    VANISH,
    Fault,
    FaultProxy,
    Link,
)
from tests.wire.frames import BINARY, CONTINUATION, PING, TEXT, Data, close_frame, frame

DATA = bytes(range(200))
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@contextlib.contextmanager
def through(up: Fault = NOTHING, down: Fault = NOTHING) -> Iterator[tuple[socket.socket, socket.socket, Link]]:
    """Client and server, connected through a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener, FaultProxy(listener.getsockname()) as proxy:
        link = proxy.link(up, down)
        with socket.create_connection(("127.0.0.1", link.port), TIMEOUT) as client:
            proxy.serve(link)
            server, _ = listener.accept()
            with server:
                server.settimeout(TIMEOUT)
                yield client, server, link


def everything(sock: socket.socket) -> tuple[bytes, str]:
    """What comes, and how it ends."""
    got = b""
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return got, "reset"
        if not data:
            return got, "end"
        got += data


@pytest.mark.parametrize(
    "fault", [Fault(), Fault(piece=1), Fault(latency=0.05, jitter=0.01), Fault(rate=10_000, piece=50)]
)
def test_what_is_only_slowed_arrives_whole(fault: Fault) -> None:
    with through(fault, fault) as (client, server, link):
        for one, other, lane in ((client, server, link.up), (server, client, link.down)):
            start = time.monotonic()
            one.sendall(DATA)
            one.shutdown(socket.SHUT_WR)
            assert everything(other) == (DATA, "end")
            assert lane.passed == DATA
            assert time.monotonic() - start >= fault.latency + (len(DATA) - 1) / (fault.rate or 1e9) / 2
        assert link.over.wait(TIMEOUT)


@pytest.mark.parametrize("at", [0, 1, 77, len(DATA)])
@pytest.mark.parametrize(("act", "end"), [(RESET, "reset"), (END, "end"), (HALF_CLOSE, "end")])
def test_a_cut_lets_so_many_bytes_pass_and_no_more(act: str, end: str, at: int) -> None:
    with through(down=Fault(at, act)) as (client, server, link):
        with contextlib.suppress(OSError):  # it may have been reset already
            server.sendall(DATA)
        assert everything(client) == (DATA[:at], end)
        assert link.down.passed == DATA[:at]
        if act == HALF_CLOSE:
            client.sendall(DATA)
            client.shutdown(socket.SHUT_WR)
        assert everything(server)[0] == (DATA if act == HALF_CLOSE else b"")


@pytest.mark.parametrize("act", [BLACKHOLE, VANISH])
def test_a_silence_swallows_the_rest_and_the_end(act: str) -> None:
    with through(down=Fault(77, act)) as (client, server, link):
        server.sendall(DATA)
        server.shutdown(socket.SHUT_WR)
        got = b""
        while len(got) < 77:
            got += client.recv(100)
        client.sendall(DATA)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        assert got == link.down.passed == DATA[:77]
        server.settimeout(0.2)
        if act == VANISH:
            with pytest.raises(TimeoutError):
                server.recv(100)
        else:
            assert server.recv(1000) == DATA
    assert link.over.wait(TIMEOUT)


def test_a_bit_is_flipped_and_a_pause_is_made() -> None:
    with through(Fault(9, CORRUPT, bit=3), Fault(9, PAUSE, pause=0.2)) as (client, server, _):
        client.sendall(DATA)
        client.shutdown(socket.SHUT_WR)
        assert everything(server) == (DATA[:9] + bytes([DATA[9] ^ 8]) + DATA[10:], "end")
        start = time.monotonic()
        server.sendall(DATA)
        server.shutdown(socket.SHUT_WR)
        assert everything(client) == (DATA, "end")
        assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    ("stream", "messages", "end"),
    [
        (b"", [], None),
        (frame(TEXT, "a") + frame(BINARY, b"b" * 300), ["a", b"b" * 300], None),
        ((frame(TEXT, "a") * 2)[:-1], ["a"], None),
        (frame(TEXT, "a", fin=False) + frame(PING) + frame(CONTINUATION, "b"), ["ab"], None),
        (frame(TEXT, "a") + close_frame(4000, "bye") + frame(TEXT, "b"), ["a"], (4000, "bye")),
        (close_frame(), [], (1005, "")),
        (close_frame(1000, "bye")[:-1], [], None),
        (frame(TEXT, "a") + frame(3), ["a"], "failed"),
        (frame(TEXT, "a", rsv=4), [], "failed"),
        (frame(CONTINUATION, "a"), [], "failed"),
        (frame(TEXT, "a", mask=b"mask"), [], "failed"),
        (frame(TEXT, b"\xff", length=9), [], "failed"),
        (frame(TEXT, "a", length_bytes=2), [], "failed"),
        (close_frame(999), [], "failed"),
    ],
)
def test_the_judge_hears_what_the_rfc_says(
    stream: bytes, messages: list[Data], end: tuple[int, str] | str | None
) -> None:
    assert judge.hear(HEAD + stream) == judge.Heard(True, messages, end)


def test_the_judge_hears_nothing_before_the_handshake_is_done() -> None:
    for length in range(len(HEAD)):
        assert judge.hear(HEAD[:length]).entries() == judge.FAILED
    assert judge.hear(HEAD).entries() == [("open", 1), *judge.LOST]
    assert judge.hear(HEAD.replace(b"\r", b"")).opened
    assert judge.hear(HEAD.replace(b"101", b"400")).entries() == judge.FAILED


def test_a_stream_of_tls_is_unfinished_while_a_record_is() -> None:
    record = b"\x17\x03\x03\x00\x03abc"
    assert not judge.unfinished(b"")
    assert not judge.unfinished(record * 2)
    for size in range(1, len(record)):
        assert judge.unfinished(record + record[:size])
    assert judge.unfinished(record.replace(b"\x00\x03a", b"\x00\x83a") + record)
