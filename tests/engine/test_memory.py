"""What a peer, a slow handler or a large message may cost in memory. Quick by default; BWS_STRESS=1: the full numbers.

Clients whose memory is measured are programs of their own; the server is in the test, so that it is not counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import select
import subprocess
import sys
import threading
from typing import Any, NamedTuple

import pytest

import bws
from bws._settings import MAX_SIZE
from tests.wire.frames import BINARY, TEXT, frame
from tests.wire.server import Connection, ScriptedServer
from tests.wire.tls import authority_pem

ROOT = pathlib.Path(bws.__file__).parents[1]
FULL = os.environ.get("BWS_STRESS") == "1"
KIB, MIB = 1 << 10, 1 << 20
PUSHED = 10 << 30 if FULL else 512 * MIB  # bytes, and half a message more
LARGE = 1 << 30 if FULL else 64 * MIB  # bytes that are sent at once
GROWTH = 64 * MIB  # bytes that a client may grow
ASLEEP, PING = (30, 1) if FULL else (3, 0.3)  # s that a handler sleeps; ping_interval and ping_timeout
SIZE = 64 * KIB  # bytes of a pushed message
LIMIT = 1200.0 if FULL else 50.0  # s for a program

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc"),
    pytest.mark.timeout(1300 if FULL else 60),
]

# What the programs share. They print what the tests look at.
COMMON = """
import gc, json, resource, ssl, sys, threading, time
import bws
url, authority = sys.argv[1], sys.argv[2]
context = ssl.create_default_context(cadata=authority) if authority else None

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

def tell(**what):
    print(json.dumps(what), flush=True)
"""


class _At(NamedTuple):
    """A server that is not ours."""

    url: str


def told(server: ScriptedServer | _At, code: str, *args: str, go: threading.Event | None = None) -> dict[str, Any]:
    """Run a program against the server, which gets a line on stdin once `go` is set; what it tells."""
    authority = authority_pem() if server.url.startswith("wss") else ""
    with subprocess.Popen(
        [sys.executable, "-c", COMMON + code, server.url, authority, *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert go is None or go.wait(LIMIT)
            out, err = program.communicate("go\n", timeout=LIMIT)
        finally:
            program.kill()
    assert (program.returncode, err) == (0, "")
    result: dict[str, Any] = json.loads(out)
    if FULL and "growth" in result:
        print(f"\n{os.environ['PYTEST_CURRENT_TEST']}: grew {result['growth'] / MIB:.1f} MiB", file=sys.stderr)
    return result


# -- a peer that pushes

SLEEPER = """
mode, text = sys.argv[3], sys.argv[4] == "text"
events = bws.dispatch.Queue() if mode == "queue" else None
released, ends, bad = threading.Event(), [], []
got = 0

def on_message(evt):
    global got
    if not got and events is None:
        assert released.wait(1000)
    number = int(evt.data[:8], 16) if text else int.from_bytes(evt.data[:8], "big")
    if number != got or len(evt.data) != 65536:
        bad.append(number)
    got += 1

ws = bws.WebSocket(url, ssl=context, dispatch=events)
before = peak()
ws.bind("message", on_message)
ws.bind("close", lambda evt: ends.append((evt.code, evt.reason)))
sys.stdin.readline()  # the peer is stopped
asleep = peak()
released.set()
if events is None:
    assert ws.wait_closed(1000)
else:
    assert events.run_until(lambda: ends, 1000)
tell(growth=peak() - before, asleep=asleep - before, got=got, bad=bad[:3], ends=ends)
"""


class Flood:
    """A script that pushes numbered messages, and tells when they are not taken any more."""

    def __init__(self, opcode: int) -> None:
        self._opcode, self.count, self.stalled = opcode, PUSHED // SIZE, threading.Event()

    def __call__(self, c: Connection) -> None:
        c.handshake()
        c.sock.settimeout(LIMIT)
        rest = bytes(SIZE - 8)
        for n in range(self.count):
            number = b"%08x" % n if self._opcode == TEXT else n.to_bytes(8, "big")
            while not self.stalled.is_set() and not select.select([], [c.sock], [], 1.0)[1]:
                self.stalled.set()
            c.send(frame(self._opcode, number + rest))
        c.close(1000, "all")


@pytest.mark.parametrize(
    ("mode", "opcode", "tls"),
    [
        ("thread", BINARY, ()),
        ("thread", TEXT, ()),
        ("thread", BINARY, ("127.0.0.1",)),
        ("queue", BINARY, ()),
        ("queue", TEXT, ("127.0.0.1",)),
    ],
)
def test_what_is_pushed_at_a_handler_that_sleeps_stays_with_the_peer(
    mode: str, opcode: int, tls: tuple[str, ...]
) -> None:
    flood = Flood(opcode)
    with ScriptedServer(flood, tls=tls) as server:
        result = told(server, SLEEPER, mode, "text" if opcode == TEXT else "binary", go=flood.stalled)
    assert (result["got"], result["bad"], result["ends"]) == (flood.count, [], [[1000, "all"]])
    assert result["growth"] < GROWTH


# -- keep-alive of a server that does not wait for long

BUSY = """
mode, asleep = sys.argv[3], float(sys.argv[4])
events = bws.dispatch.Queue() if mode == "queue" else None
got, ends = [], []

def on_message(evt):
    got.append(evt.data)
    if evt.data == "first":
        time.sleep(asleep)
        ws.send("awake")
    elif evt.data == "last":
        ws.close(1000)

ws = bws.WebSocket(url, dispatch=events)
ws.bind("message", on_message)
ws.bind("close", lambda evt: ends.append((evt.code, evt.wasClean)))
assert ws.wait_closed(100) if events is None else events.run_until(lambda: ends, 100)
tell(got=got, ends=ends)
"""


@pytest.mark.parametrize("mode", ["thread", "queue"])
def test_a_server_with_a_short_keep_alive_keeps_a_client_whose_handler_sleeps(mode: str) -> None:
    sync = pytest.importorskip("websockets.sync.server")
    heard: list[Any] = []

    def handler(connection: Any) -> None:
        connection.send("first")
        connection.send("second")
        heard.append(connection.recv(LIMIT))
        connection.send("last")
        heard.extend(connection)

    # A loaded machine may be late; 1 s is what the server gives in the full run.
    with sync.serve(handler, "127.0.0.1", 0, ping_interval=PING, ping_timeout=1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            at = _At(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/")
            result = told(at, BUSY, mode, str(ASLEEP))
        finally:
            server.shutdown()
            thread.join(LIMIT)
    assert heard == ["awake"]
    assert result == {"got": ["first", "second", "last"], "ends": [[1000, True]]}


# -- frames that are not what they say

VICTIM = """
limit = None if sys.argv[3] == "None" else int(sys.argv[3])
ws = bws.WebSocket(url, max_size=limit)
before = peak()
ends, got = [], []
ws.bind("message", lambda evt: got.append(len(evt.data)))
ws.bind("error", lambda evt: ends.append("error"))
ws.bind("close", lambda evt: ends.append((evt.code, evt.wasClean)))
assert ws.wait_closed(100)
tell(growth=peak() - before, ends=ends, got=got)
"""
DEFAULT = str(MAX_SIZE)


def lost_inside(data: bytes, how: str) -> Any:
    """A script that sends these bytes and goes."""

    def script(c: Connection) -> None:
        c.handshake()
        c.send(data)
        if how == "reset":
            c.reset()
        c.half_close()

    return script


@pytest.mark.parametrize("how", ["reset", "eof"])
@pytest.mark.parametrize("announced", [100_000, 1 << 62])
def test_a_peer_that_goes_inside_a_frame_costs_what_arrived(how: str, announced: int) -> None:
    with ScriptedServer(lost_inside(frame(BINARY, bytes(50_000), length=announced), how)) as server:
        result = told(server, VICTIM, "None")
    assert (result["ends"], result["got"]) == ([[1006, False]], [])
    assert result["growth"] < 16 * MIB


def test_a_frame_that_announces_2_to_the_62_bytes_fails_with_1009() -> None:
    with ScriptedServer(lambda c: c.handshake(then=frame(BINARY, bytes(1000), length=1 << 62))) as server:
        result = told(server, VICTIM, DEFAULT)
        close = server.result().close
    assert close is not None
    assert close[0] == 1009
    assert (result["ends"], result["got"]) == (["error", [1006, False]], [])
    assert result["growth"] < 16 * MIB


@pytest.mark.parametrize("fragments", [False, True])
def test_a_message_that_trickles_in_costs_little_more_than_it_has(fragments: bool) -> None:
    count = 30_000

    def script(c: Connection) -> None:
        c.handshake()
        body = b"x" * count
        data = b"".join(frame(BINARY if n == 0 else 0, b"x", fin=n == count - 1) for n in range(count))
        for byte in data[: 2 * count] if fragments else frame(BINARY, body):
            c.send(bytes([byte]))
        if fragments:
            c.send(data[2 * count :])
        c.close(1000)

    with ScriptedServer(script) as server:
        result = told(server, VICTIM, DEFAULT)
    assert (result["ends"], result["got"]) == ([[1000, True]], [count])
    assert result["growth"] < 16 * MIB


# -- a large message that is sent

SENDER = """
import hashlib
size, scarce = int(sys.argv[3]), sys.argv[4] == "scarce"
ws = bws.WebSocket(url)
assert ws.wait_open(30)
for n in range(3):
    ws.send("small message number %d, which is long enough to be compressed, too" % n)
data = bytes(range(256)) * (size // 256)
if sys.argv[5] == "copied":
    data = bytearray(data)
raised = None
if scarce:
    assert ws.flush(30)
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + size // 8, limits[1]))
try:
    ws.send(data)
except MemoryError:
    raised = "MemoryError"
left = ws.bufferedAmount
if scarce:
    resource.setrlimit(resource.RLIMIT_AS, limits)
for n in range(3, 6):
    ws.send("small message number %d, which is long enough to be compressed, too" % n)
flushed = ws.flush(1000)
amount = ws.bufferedAmount
ws.close(1000)
assert ws.wait_closed(100)
tell(raised=raised, left=left, flushed=flushed, amount=amount, digest=hashlib.sha256(data).hexdigest())
"""


@pytest.mark.parametrize(
    ("memory", "deflate", "kind", "raises"),
    [
        ("enough", False, "bytes", False),
        ("enough", False, "copied", False),
        ("enough", True, "bytes", False),
        # What nobody can change is sent from where it is; the rest has to be copied, or compressed.
        ("scarce", False, "bytes", False),
        ("scarce", False, "copied", True),
        ("scarce", True, "bytes", True),
    ],
)
def test_a_large_message_is_sent_whole_or_raises_memory_error_and_the_connection_goes_on(
    memory: str, deflate: bool, kind: str, raises: bool
) -> None:
    sync = pytest.importorskip("websockets.sync.server")
    got: list[Any] = []
    compression = "deflate" if deflate else None
    with sync.serve(got_by(got), "127.0.0.1", 0, max_size=None, ping_interval=None, compression=compression) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            at = _At(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/")
            result = told(at, SENDER, str(LARGE), memory, kind)
        finally:
            server.shutdown()
            thread.join(LIMIT)
    expected: list[Any] = [f"small message number {n}, which is long enough to be compressed, too" for n in range(6)]
    if not raises:
        expected.insert(3, (LARGE, result["digest"]))
    assert got == expected
    assert result["raised"] == ("MemoryError" if raises else None)
    assert (result["flushed"], result["amount"]) == (True, 0)
    assert result["left"] == 0 if raises else result["left"] <= LARGE


def got_by(got: list[Any]) -> Any:
    """A handler of websockets that notes texts, and size and digest of what is binary."""

    def handler(connection: Any) -> None:
        for data in connection:
            got.append(data if isinstance(data, str) else (len(data), hashlib.sha256(data).hexdigest()))

    return handler
