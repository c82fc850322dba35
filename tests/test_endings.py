"""A program is interrupted, leaves, forks or dies in every state of its sockets: see the tables.

All programs of a table run at the same time. Each checks: exit status, what is on stderr, the close frame, and that the
exit took no longer than it may, generously, as the machine may be busy.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

import bws
from tests.conftest import run_python
from tests.wire.frames import TEXT, frame
from tests.wire.server import Connection, Script, ScriptedServer

if sys.platform == "win32":
    pytest.skip("Windows has no signals that one program sends to another", allow_module_level=True)

EXIT = 10.0  # s that the exit may take; 2 are promised where the machine is idle
Close = tuple[int | None, str] | None  # code and reason
Played = tuple[subprocess.CompletedProcess[str], Close]
AWAY: Close = (1001, "")

BEGIN = """
import atexit, os, signal, sys, threading, time
left = []
atexit.register(lambda: os.write(1, f"\\ntook {time.monotonic() - (left or [time.monotonic()])[0]:.3f}\\n".encode()))
last = []  # what an atexit handler does that was there before the one of bws, and so runs after it
atexit.register(lambda: [do() for do in last])
import bws
# What the first connection imports: CPython exits with 1 instead of SIGINT when another thread just then runs the
# exec() of an import (it keeps "ended by KeyboardInterrupt" in a global, which each exec() clears).
import encodings.idna, ssl, websocket
url = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what runs behind it

def interrupt(number, inside):
    "Send this process a signal as soon as the main thread is inside the function of that name."
    def run():
        while True:
            f = sys._current_frames()[threading.main_thread().ident]
            while f is not None:
                if f.f_code.co_name == inside:
                    time.sleep(0.05)
                    left.append(time.monotonic())
                    return os.kill(os.getpid(), number)
                f = f.f_back
            time.sleep(0.005)
    threading.Thread(target=run, daemon=True).start()

def blocks():
    signal.pause()

def reads():
    os.dup2(os.pipe()[0], 0)
    input()
"""


@dataclass
class Ending:
    """One program, and how it ends."""

    server: Callable[[], contextlib.AbstractContextManager[tuple[str, ScriptedServer | None]]]
    body: str
    status: int = 0
    close: Close = AWAY  # what the server gets; None: nothing is promised
    stderr: str = ""  # how it ends; "KeyboardInterrupt": exactly its traceback


def scripted(script: Script, scheme: str = "ws", **options: int) -> Callable[[], contextlib.AbstractContextManager]:  # type: ignore[type-arg]
    """A server that does this with each connection."""

    @contextlib.contextmanager
    def make() -> Iterator[tuple[str, ScriptedServer | None]]:
        with ScriptedServer(script, receive_buffer=options.get("receive_buffer")) as server:
            yield f"{scheme}://127.0.0.1:{server.port}/", server

    return make


@contextlib.contextmanager
def full() -> Iterator[tuple[str, ScriptedServer | None]]:
    """A server that takes no more TCP connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with contextlib.ExitStack() as clients:
            for _ in range(8):
                client = clients.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/", None


def silent(c: Connection) -> None:
    c.drain()


def deaf(c: Connection) -> None:
    c.handshake()
    c.drain()


def reads_nothing(c: Connection) -> None:
    c.handshake()
    c.wait_for(threading.Event())


def greet(c: Connection) -> None:
    c.handshake(then=frame(TEXT, "x"))


HANG = """
import socket
url = "ws://slow.invalid/"
socket.getaddrinfo = lambda *args, **options: threading.Event().wait(600)
"""
OPEN = "ws = bws.WebSocket(url); assert ws.wait_open(40)\n"
BUSY = """
inside = threading.Event()
ws = bws.WebSocket(url)
ws.bind("message", lambda: (inside.set(), {}))
assert inside.wait(40)
"""
CONNECT = "ws = bws.WebSocket(url, open_timeout=None)\n"

# name of the state: server, how to get there, the main thread's waits, the close frame
STATES = {
    "CONNECTING, DNS": (full, HANG + CONNECT, ["wait_open", "wait_closed"], None),
    "CONNECTING, TCP": (full, CONNECT, ["wait_open", "sleep"], None),
    "CONNECTING, TLS": (scripted(silent, "wss"), CONNECT, ["wait_open", "input"], None),
    "CONNECTING, handshake": (scripted(silent), CONNECT, ["wait_open", "wait_closed"], None),
    "OPEN, idle": (scripted(Connection.handshake), OPEN, ["wait_closed", "flush", "sleep", "input"], AWAY),
    "OPEN, in a handler": (scripted(greet), BUSY.format("time.sleep(600)"), ["wait_closed", "sleep"], AWAY),
    "CLOSING": (scripted(deaf), OPEN + "ws.close(3000, 'mine')\n", ["wait_closed", "sleep"], (3000, "mine")),
    "CLOSED": (
        scripted(Connection.handshake),
        OPEN + "ws.close(3000, 'mine'); assert ws.wait_closed(40)\n",
        ["sleep", "input"],
        (3000, "mine"),
    ),
}
WAITS = {
    "wait_open": ("wait_open", "ws.wait_open()"),
    "wait_closed": ("wait_closed", "ws.wait_closed()"),
    # flush() has nothing to wait for but when the server does not read: that is a row of its own below
    "flush": ("blocks", "ws.flush(); blocks()"),
    "sleep": ("blocks", "blocks()"),
    "input": ("reads", "reads()"),
}
SIGNALS = {
    "SIGINT": ("", "signal.SIGINT", -signal.SIGINT, "KeyboardInterrupt"),
    "SIGTERM, which exits": ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n", "signal.SIGTERM", 7, ""),
}


def interrupted() -> Iterator[tuple[str, Ending]]:
    """Both signals, in each state, in each wait."""
    for what, (prepare, number, status, stderr) in SIGNALS.items():
        for state, (server, reach, waits, close) in STATES.items():
            for wait in waits:
                function, call = WAITS[wait]
                body = f"{prepare}{reach}interrupt({number}, {function!r})\n{call}\n"
                yield f"{what}, {state}, main thread in {wait}", Ending(server, body, status, close, stderr)


TABLE = dict(interrupted())
TABLE["SIGINT, a queue that the server does not read, main thread in flush"] = Ending(
    scripted(reads_nothing, receive_buffer=4096),
    OPEN + "ws.send(b'x' * (64 << 20)); interrupt(signal.SIGINT, 'flush'); ws.flush()",
    -signal.SIGINT,
    None,
    "KeyboardInterrupt",
)
TABLE["SIGTERM, by default"] = Ending(
    scripted(Connection.handshake), OPEN + "interrupt(signal.SIGTERM, 'blocks'); blocks()", -signal.SIGTERM, None
)
TABLE["a signal handler that closes"] = Ending(
    scripted(Connection.handshake),
    "signal.signal(signal.SIGTERM, lambda *_: ws.close(3000, 'mine'))\n"
    + OPEN
    + "interrupt(signal.SIGTERM, 'wait_closed'); assert ws.wait_closed()",
    close=(3000, "mine"),
)
TABLE["a signal handler that closes and waits"] = Ending(
    scripted(Connection.handshake),
    "signal.signal(signal.SIGTERM, lambda *_: (ws.close(3000, 'mine'), ws.wait_closed(40) or sys.exit(9)))\n"
    + OPEN
    + "interrupt(signal.SIGTERM, 'wait_closed'); assert ws.wait_closed()",
    close=(3000, "mine"),
)
TABLE["with, and SIGINT inside it"] = Ending(
    scripted(Connection.handshake),
    "with bws.WebSocket(url) as ws:\n    interrupt(signal.SIGINT, 'blocks')\n    blocks()",
    -signal.SIGINT,
    (None, ""),
    "KeyboardInterrupt",
)
for what, call in {
    "time.sleep": "time.sleep(600)",
    "a lock": "[lock.acquire() for lock in [threading.Lock()] * 2]",
    "a call of C code": "__import__('hashlib').pbkdf2_hmac('sha256', b'x', b'y', 2_000_000_000)",
    "a loop": "[None for _ in iter(int, 1)]",
}.items():
    TABLE[f"the end, a handler is inside {what}"] = Ending(scripted(greet), BUSY.format(call))
TABLE |= {
    "sys.exit in a handler on the main thread": Ending(
        scripted(greet),
        "q = bws.dispatch.Queue(); ws = bws.WebSocket(url, dispatch=q)\n"
        "ws.bind('message', lambda: sys.exit(5)); q.run_until(lambda: False, 40)",
        status=5,
    ),
    "an exception in the main thread": Ending(scripted(Connection.handshake), OPEN + "1 / 0", 1, AWAY, "ision by zero"),
    "os._exit": Ending(scripted(Connection.handshake), OPEN + "print('took 0', flush=True); os._exit(4)", 4, None),
    "daemon threads that send and write": Ending(
        scripted(Connection.handshake),
        OPEN
        + """
def chatter():
    while True:
        ws.send("still here")
        os.write(1, b".\\n")
        time.sleep(0.001)
for _ in range(8):
    threading.Thread(target=chatter, daemon=True).start()
time.sleep(0.05)
""",
    ),
    "made when a module is imported": Ending(
        scripted(Connection.echo),
        """
import tempfile
with tempfile.TemporaryDirectory() as folder:
    with open(folder + "/made.py", "w") as file:
        file.write("import bws, sys\\nws = bws.WebSocket(sys.argv[1])\\nassert ws.wait_open(40)\\nws.send('x')\\n")
    sys.path.insert(0, folder)
    from made import ws
""",
    ),
    "made in an atexit handler": Ending(
        scripted(Connection.handshake),
        """
def late():
    try:
        ws = bws.WebSocket(url)
    except RuntimeError as exc:  # since Python 3.12
        assert "shutdown" in str(exc), exc
    else:
        assert ws.wait_open(40)
        ws.close(1000)
        assert ws.wait_closed(40)
atexit.register(late)
""",
        close=None,
    ),
    "made when hardly anything is left of the interpreter": Ending(
        scripted(Connection.handshake),
        """
import builtins
class Last:
    def __del__(self):
        try:
            bws.WebSocket(url)
        except RuntimeError as exc:
            assert "shutdown" in str(exc), exc
builtins.last = Last()
""",
        close=None,
    ),
    "made in an atexit handler that runs last of all": Ending(
        scripted(Connection.handshake),
        """
def late():
    try:
        bws.WebSocket(url)
    except RuntimeError as exc:
        assert "shutdown" in str(exc), exc
last.append(late)
""",
        close=None,
    ),
}
if not (3, 12) <= sys.version_info < (3, 12, 2):  # those start no thread then: python/cpython#113964
    TABLE["made in a thread, when the main thread has ended"] = Ending(
        scripted(Connection.handshake),
        f"""
def late():
    threading.main_thread().join()
    {OPEN.strip()}
threading.Thread(target=late).start()
""",
    )


def play(ending: Ending) -> Played:
    """Run the program; how it ended, and the close frame that its server got."""
    with ending.server() as (url, server):
        done = run_python(BEGIN + ending.body + "\nleft.append(time.monotonic())\n", url)
        return done, server.result(40).close if server is not None and ending.close is not None else None


@pytest.fixture(scope="module")
def endings() -> Iterator[dict[str, Future[Played]]]:
    """All of them, on their way."""
    with ThreadPoolExecutor(6) as pool:
        yield {name: pool.submit(play, ending) for name, ending in TABLE.items()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TABLE)
def test_a_program_ends_as_it_should(name: str, endings: dict[str, Future[Played]]) -> None:
    ending = TABLE[name]
    done, close = endings[name].result()
    if ending.stderr:
        assert done.stderr.count("Traceback") == 1, done.stderr
        assert done.stderr.startswith("Traceback"), done.stderr
        assert done.stderr.rstrip().endswith(ending.stderr), done.stderr
    else:
        assert done.stderr == ""
    assert done.returncode == ending.status
    assert close == ending.close
    if ending.status != -signal.SIGTERM:
        # Daemon threads may go on printing behind it, in the middle of its line too.
        took = re.search(r"took (-?[0-9.]+(?:e[-+][0-9]+)?)", done.stdout)
        assert took is not None, done.stdout[-200:]
        assert float(took[1].rstrip(".")) < EXIT


MULTIPROCESSING = """
import multiprocessing, sys
import bws

def talk(url, text):
    ws = bws.WebSocket(url)
    got = []
    ws.bind("message", lambda evt: (got.append(evt.data), ws.close(1000, text)))
    assert ws.wait_open(40)
    ws.send(text)
    assert ws.wait_closed(40)
    return got

def leave(url):
    ws = bws.WebSocket(url)
    assert ws.wait_open(40)
    sys.exit(3)

if __name__ == "__main__":
    method, url = sys.argv[1:]
    context = multiprocessing.get_context(method)
    ws = bws.WebSocket(url)
    got = []
    ws.bind("message", lambda evt: (got.append(evt.data), ws.close(1000, "parent")))
    assert ws.wait_open(40)
    with context.Pool(2) as pool:
        assert pool.starmap(talk, [(url, "a"), (url, "b")]) == [["a"], ["b"]]
        pool.close()
        pool.join()
    process = context.Process(target=leave, args=[url])
    process.start()
    process.join()
    assert process.exitcode == 3, process.exitcode
    ws.send("the parent's is untouched")
    assert ws.wait_closed(40)
    assert got == ["the parent's is untouched"]
"""


@pytest.mark.timeout(180)
def test_the_processes_of_multiprocessing_have_sockets_of_their_own(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)

    def run(method: str) -> list[Close]:
        with ScriptedServer(Connection.echo) as server:
            done = subprocess.run(
                [sys.executable, "-W", "ignore::DeprecationWarning", str(program), method, server.url],
                env={**os.environ, "PYTHONPATH": str(pathlib.Path(bws.__file__).parents[1])},
                capture_output=True,
                text=True,
                timeout=150,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
            return [seen.close for seen in server.results(4, 40)]

    methods = ["fork", "spawn", "forkserver"]
    with ThreadPoolExecutor(len(methods)) as pool:
        for closes in pool.map(run, methods):
            for code, text in ((1000, "a"), (1000, "b"), (1000, "parent")):
                closes.remove((code, text))
            # Where a process is forked, multiprocessing ends it with os._exit(): no atexit handler runs.
            assert closes in ([None], [AWAY])
