"""The interpreter exits with sockets open: quickly, quietly, and the servers see a proper close."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conftest import run_python
from tests.wire.frames import CLOSE, TEXT, frame
from tests.wire.server import Connection, Script, ScriptedServer

SECONDS = 2.0  # that the exit may take, however many sockets there are
SOCKETS = 100

# the hook registered first runs last: it tells how long all others took
BEGIN = """
import atexit, sys, threading, time
left = []
def now():
    # Without the time in which this thread could have run, and the machine had no processor for it (Linux).
    try:
        with open("/proc/thread-self/schedstat") as delays:
            late = int(delays.read().split()[1]) / 1e9
    except OSError:
        late = 0
    return time.monotonic() - late
atexit.register(lambda: print("took", now() - left[0], file=sys.__stdout__))
import bws
urls = sys.argv[1:]
"""
END = "\nleft.append(now())\n"


def run(body: str, *urls: str, end: str = "") -> subprocess.CompletedProcess[str]:
    """Run the body in a process of its own, which then ends."""
    return run_python(BEGIN + body + END + end, *urls)


def check(done: subprocess.CompletedProcess[str], *, status: int = 0) -> None:
    """It ended in time, with that exit status, and said nothing on stderr."""
    assert done.stderr == ""
    assert done.returncode == status
    name, seconds = done.stdout.split()[-2:]
    assert name == "took"
    assert float(seconds) < SECONDS


def tick(c: Connection) -> None:
    """Send until the client closes."""
    c.handshake()
    while not c.readable():
        c.send_text("tick")
        c.pause(0.005)


def test_a_hundred_open_sockets_whose_handlers_print() -> None:
    body = f"""
sockets = [bws.WebSocket(urls[0]) for _ in range({SOCKETS})]
for ws in sockets:
    ws.bind("message", lambda evt: print(evt.data, flush=True))
    ws.bind("close", lambda: print("closed", flush=True))
assert all(ws.wait_open(20) for ws in sockets)
"""
    with ScriptedServer(tick) as server:
        done = run(body, server.url)
        seen = server.results(SOCKETS)
    check(done)
    assert {one.close for one in seen} == {(1001, "")}
    assert "tick" in done.stdout


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3)", 3), ("raise SystemExit", 0), ("raise SystemExit('no')", 1)]
)
def test_the_exit_status_is_the_programs(end: str, status: int) -> None:
    body = "ws = bws.WebSocket(urls[0]); assert ws.wait_open(20)"
    with ScriptedServer(tick) as server:
        done = run(body, server.url, end=end)
        assert server.result().close == (1001, "")
    assert (done.returncode, done.stderr) == (status, "no\n" if status == 1 else "")


def test_a_program_that_dies_of_an_exception_closes_too() -> None:
    body = "ws = bws.WebSocket(urls[0]); assert ws.wait_open(20)"
    with ScriptedServer(tick) as server:
        done = run(body, server.url, end="1 / 0")
        assert server.result().close == (1001, "")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_what_is_queued_is_sent_before() -> None:
    body = """
ws = bws.WebSocket(urls[0])
assert ws.wait_open(20)
for n in range(4):
    ws.send(bytes([n]) * (2 << 20))
ws.send("last")
assert ws.bufferedAmount
"""
    with ScriptedServer(Connection.handshake, receive_buffer=4096) as server:
        done = run(body, server.url)
        seen = server.result()
    check(done)
    assert seen.messages == [*(bytes([n]) * (2 << 20) for n in range(4)), "last"]
    assert seen.close == (1001, "")


def test_a_socket_that_is_just_being_made_keeps_no_other_from_its_end() -> None:
    body = """
ws = bws.WebSocket(urls[0])
assert ws.wait_open(20)
start, starting, go_on = threading.Thread.start, threading.Event(), threading.Event()
def slow_start(thread):
    if thread.name.startswith("bws ws"):
        starting.set()
        go_on.wait(20)
    start(thread)
threading.Thread.start = slow_start
threading.Thread(target=bws.WebSocket, args=urls, daemon=True).start()
assert starting.wait(20)
for n in range(4):
    ws.send(bytes([n]) * (2 << 20))
"""
    with ScriptedServer(Connection.handshake, receive_buffer=4096) as server:
        done = run(body, server.url)
        seen = server.result()
    check(done)
    assert seen.messages == [bytes([n]) * (2 << 20) for n in range(4)]
    assert seen.close == (1001, "")


def test_a_socket_the_program_has_closed_keeps_its_own_code() -> None:
    with ScriptedServer(Connection.handshake) as server:
        done = run("ws = bws.WebSocket(urls[0]); ws.wait_open(20); ws.close(3000, 'mine')", server.url)
        assert server.result().close == (3000, "mine")
    check(done)


def _silent(c: Connection) -> None:
    c.request()
    c.drain()


def _deaf(c: Connection) -> None:
    c.handshake()
    c.drain()


def _reads_nothing(c: Connection) -> None:
    c.handshake()
    c.wait_for(threading.Event())


KEEPERS: list[tuple[Script, str]] = [
    (_silent, "bws.WebSocket(urls[0])"),
    (_silent, "ws = bws.WebSocket(urls[0], dispatch=lambda fn: None); ws.bind('open', print)"),
    (_deaf, "ws = bws.WebSocket(urls[0]); ws.wait_open(20)"),
    (_reads_nothing, "ws = bws.WebSocket(urls[0]); ws.wait_open(20); ws.send(b'x' * (64 << 20))"),
    (tick, "q = []; ws = bws.WebSocket(urls[0], dispatch=q.append); time.sleep(0.1)"),
    (tick, "ws = bws.WebSocket(urls[0]); ws.bind('message', lambda: time.sleep(60)); ws.wait_open(20)"),
]


def _kept(keeper: tuple[Script, str]) -> subprocess.CompletedProcess[str]:
    script, body = keeper
    with ScriptedServer(script, receive_buffer=4096) as server:
        return run(body, server.url)


@pytest.fixture(scope="module")
def keepers() -> Iterator[list[Future[subprocess.CompletedProcess[str]]]]:
    """The programs, on their way: they mostly wait, so two run at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(_kept, keeper) for keeper in KEEPERS]


@pytest.mark.parametrize("number", range(len(KEEPERS)))
def test_nothing_keeps_the_interpreter(number: int, keepers: list[Future[subprocess.CompletedProcess[str]]]) -> None:
    """Not a server that is silent, one that never answers or reads, a loop that is gone, a handler that hangs."""
    done = keepers[number].result()
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout.split()[-1]) < SECONDS + 0.5  # these use up the time there is


def test_nothing_keeps_the_interpreter_in_a_resolver_that_hangs() -> None:
    body = """
import socket
entered = threading.Event()
def hang(*args, **options):
    entered.set()
    threading.Event().wait(60)
socket.getaddrinfo = hang
ws = bws.WebSocket("ws://slow.invalid/")
assert entered.wait(20)
"""
    check(run(body))


def test_system_exit_in_a_handler_ends_its_socket_and_not_the_program() -> None:
    body = """
ws = bws.WebSocket(urls[0])
ws.bind("message", lambda: sys.exit(5))
assert ws.wait_closed(20)
print("the program goes on")
"""
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "x"))) as server:
        done = run(body, server.url)
        assert server.result().close == (1001, "")
    check(done)
    assert "the program goes on" in done.stdout


def test_no_handler_starts_once_the_interpreter_goes() -> None:
    """The close event of the exit is not delivered: what a handler needs may be gone by then."""
    body = """
ws = bws.WebSocket(urls[0])
ws.bind("close", lambda: print("handler"))
assert ws.wait_open(20)
"""

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(CLOSE)
        c.send_text("late")
        c.close(1001)

    with ScriptedServer(script) as server:
        done = run(body, server.url)
    check(done)
    assert "handler" not in done.stdout
