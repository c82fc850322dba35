"""What a hostile server can make the client hold: bytes of memory, measured in a process of its own."""

from __future__ import annotations

import sys
import zlib

import pytest

from tests.conftest import run_python
from tests.wire.frames import BINARY, TEXT, frame
from tests.wire.server import Connection, ScriptedServer

MIB = 1024 * 1024
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

# -- the answer to the opening handshake

# Every allocation counts, and everything was imported and allocated once before.
HANDSHAKE = """
    import sys, tracemalloc
    import bws

    def attempt():
        ws = bws.WebSocket(sys.argv[1])
        ws.bind("error", lambda evt: print(evt.error))
        assert ws.wait_closed(50)

    attempt()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    attempt()
    print(tracemalloc.get_traced_memory()[1] - before)
    """


def _exactly(c: Connection) -> None:
    head = c.response("X-Big: ")[:-4]
    c.send(head + b"x" * (64 * 1024 + 1 - len(head) - 4) + b"\r\n\r\n")


def _endless(c: Connection) -> None:
    c.send(c.response()[:-2])
    while True:
        c.send(b"X-Field: 1\r\n" * 10_000)


def _endless_line(c: Connection) -> None:
    c.send(c.response()[:-2] + b"X-Line: ")
    while True:
        c.send(b"x" * 100_000)


@pytest.mark.parametrize("answer", [_exactly, _endless, _endless_line])
def test_an_answer_of_over_64_kib_takes_less_than_a_mebibyte(answer: object) -> None:
    def script(c: Connection) -> None:
        c.request()
        answer(c)  # type: ignore[operator]
        c.drain()

    with ScriptedServer(script) as server:
        done = run_python(HANDSHAKE, server.url)
    assert done.stderr == ""
    *errors, growth = done.stdout.splitlines()
    assert errors == [f"the answer of host '127.0.0.1' port {server.port} has a head of over 64 KiB"] * 2
    assert int(growth) < MIB


# -- bombs

BOMB = """
    import re, sys, threading
    import bws

    def status(name):
        with open("/proc/self/status") as file:
            return int(re.search(rf"{name}:\\s*(\\d+) kB", file.read())[1]) * 1024

    def attempt(size):
        ws = bws.WebSocket(sys.argv[1], max_size=size)
        ws.bind("error", lambda evt: print(evt.error.close_code))
        assert ws.wait_closed(50)

    attempt(1024)
    before = status("VmRSS")
    attempt(int(sys.argv[2]))
    print(status("VmHWM") - before)
    for thread in threading.enumerate():
        if thread.name.startswith("bws ws:"):
            thread.join()  # which lets the server hear why
    """


def bomb(piece: bytes, size: int) -> bytes:
    """A compressed message: the same piece again and again, up to `size` bytes, made without inflating it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    return once * (size // len(piece)) + b"\x00"


ZEROS = bytes(MIB)
ASCII = b" " * MIB
WIDE = (b" " * 65_532 + "😀".encode()) * 16  # a str of it takes four bytes for each


@pytest.mark.skipif(sys.platform != "linux", reason="the largest size of a process is read from /proc/self/status")
@pytest.mark.parametrize("max_size", [8 * MIB, 128 * MIB])
@pytest.mark.parametrize(
    ("opcode", "piece"), [(BINARY, ZEROS), (TEXT, ASCII), (TEXT, WIDE)], ids=["binary", "text", "wide text"]
)
def test_a_bomb_of_10_gib_takes_16_mebibytes_more_than_max_size(opcode: int, piece: bytes, max_size: int) -> None:
    message = bomb(piece, 10 * 1024 * MIB)
    assert len(message) < 32 * MIB

    def script(c: Connection) -> None:
        c.handshake(DEFLATE)
        c.send(frame(opcode, message, rsv=4))

    with ScriptedServer(script) as server:
        done = run_python(BOMB, server.url, str(max_size))
        seen = server.results(2)
    assert done.stderr == ""
    *codes, growth = done.stdout.split()
    assert codes == ["1009", "1009"]
    assert [s.close[0] for s in seen if s.close] == [1009, 1009]
    assert int(growth) < max_size + 16 * MIB
