"""The command `bws` beside the programs that people use instead: wscat, `python -m websockets`, wsdump.

    python -m benchmarks.cli_comparison             about ten minutes, 1 GB through each that takes it
    python -m benchmarks.cli_comparison --quick     a minute

Every program runs as a person would run it, in a pipe or on a terminal, against the same servers. It prints a table in
Markdown. wscat is looked for in benchmarks/node_modules (`npm install --prefix benchmarks wscat`); what is not there is
left out. Linux only: it needs pseudo-terminals and /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bws.testing import EchoServer

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
TIMEOUT = 15.0  # s for a small run
LINE = 100  # bytes of one with its end, in the runs that measure the rate
LONG = 1000  # the same in those that measure memory

# A session of its own, so that Ctrl-C on that terminal reaches the program and nobody else.
# A shell ignores it for what runs in the background, and so would the program.
ON_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

# The least that does the same with the library: a line is sent, a message is printed. As in the program, what arrives
# together is written together, and what is sent waits when much is unsent.
BARE = """
import sys, threading
import bws

lines = sys.stdin.buffer
write = sys.stdout.buffer.write
sent, received, over, done = 0, 0, False, threading.Event()

def show(evt):
    global received
    write(evt.data.encode() + b"\\n")
    received += 1
    if over and received >= sent:
        done.set()

def at_once(deliver):
    deliver()
    sys.stdout.buffer.flush()

with bws.WebSocket(sys.argv[1], dispatch=at_once) as ws:
    ws.bind("message", show)
    for line in lines:
        ws.send(line[:-1].decode())
        sent += 1
        if not sent % 1000:
            while ws.bufferedAmount > 1 << 20:
                ws.flush(0.2)
    over = True
    if received < sent:
        done.wait()
"""


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        name: As people call it.
        version: Of it.
        command: What runs it; the URL comes next.
        header: What adds a request header, or None when it cannot.
    """

    name: str
    version: str
    command: tuple[str, ...]
    header: tuple[str, ...] | None


@dataclass(frozen=True)
class Run:
    """How a program ended.

    Attributes:
        status: Its exit status, negative for a signal; None when it had to be killed.
        out: What was on stdout, or on its terminal.
        err: What was on stderr.
        seconds: How long it ran.
        cpu: Seconds of processor time, user and system.
        memory: The most that was resident, MiB.
    """

    status: int | None
    out: bytes
    err: bytes
    seconds: float
    cpu: float
    memory: float

    @property
    def exit(self) -> str:
        return "does not end" if self.status is None else f"exit {self.status}"


def programs() -> list[Program]:
    """Those that are installed."""
    version = importlib.metadata.version
    found = [Program("bws", version("bws"), (str(BIN / "bws"),), ("-H", "X-Test: 1"))]
    wscat = HERE / "node_modules" / "wscat"
    if wscat.exists():
        number = str(json.loads((wscat / "package.json").read_text())["version"])
        command = (str(HERE / "node_modules" / ".bin" / "wscat"), "-c")
        found.append(Program("wscat", number, command, ("-H", "X-Test: 1")))
    found.append(
        Program("python -m websockets", version("websockets"), (sys.executable, "-m", "websockets"), None),
    )
    wsdump = (str(BIN / "wsdump"),)
    found.append(Program("wsdump", version("websocket-client"), wsdump, ("--headers", "X-Test: 1")))
    return found


def run(
    command: Sequence[str], feed: Callable[[int], None] | None, timeout: float = TIMEOUT, sink: bool = False
) -> Run:
    """Run a program in pipes to its end.

    Args:
        command: The program and its arguments.
        feed: Writes its input to that descriptor, on a thread; None leaves the input open until the end.
        timeout: Seconds after which it is killed.
        sink: Whether its stdout is thrown away.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL if sink else out, stderr=err)
        assert child.stdin is not None
        entry = child.stdin

        def write() -> None:
            with contextlib.suppress(OSError):
                if feed is not None:
                    feed(entry.fileno())
                    entry.close()

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        memory, killed = 0.0, False
        while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
            # ru_maxrss counts what the parent had when it started the child
            memory = max(memory, resident(child.pid))
            if time.monotonic() > start + timeout and not killed:
                killed = True
                child.kill()
            time.sleep(0.01)
        _, status, used = ended
        seconds = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            entry.close()
        writer.join(TIMEOUT)
        out.seek(0)
        err.seek(0)
        cpu = used.ru_utime + used.ru_stime
        return Run(None if killed else child.returncode, out.read(), err.read(), seconds, cpu, memory)


def resident(pid: int) -> float:
    """The most that has been resident of a process so far, MiB; 0 when it has ended. Linux only."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


@contextlib.contextmanager
def on_terminal(command: Sequence[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A program on a terminal of its own; the other side of that terminal."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *command], stdin=slave, stdout=slave, stderr=slave,
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
    )  # fmt: skip
    os.close(slave)
    try:
        yield master, child
    finally:
        child.kill()
        child.wait()
        os.close(master)


def read_until(master: int, wanted: bytes, seconds: float) -> bytes:
    """What is printed on a terminal until that has come, or nothing more within the time."""
    seen, end = b"", time.monotonic() + seconds
    while wanted not in seen:
        ready, _, _ = select.select([master], [], [], max(0.0, end - time.monotonic()))
        try:
            data = os.read(master, 65536) if ready else b""
        except OSError:  # the program has left
            data = b""
        if not data:
            break
        seen += data
    return seen


def pieces(lines: int, size: int) -> Callable[[int], None]:
    """Writes so many numbered lines of that size, with their ends."""

    def feed(descriptor: int) -> None:
        for first in range(0, lines, 1000):
            numbers = range(first, min(lines, first + 1000))
            block = memoryview(b"".join(f"{number:09d} ".encode().ljust(size - 1, b"x") + b"\n" for number in numbers))
            while block:
                block = block[os.write(descriptor, block) :]

    return feed


# --- the questions ---


def piped(program: Program, _: EchoServer) -> str:
    replies = [f"reply {number}" for number in range(1000)]

    def reply(server: EchoServer) -> None:
        with contextlib.suppress(TimeoutError):
            for text in replies:
                server.next_message(TIMEOUT)
                server.send(text, timeout=0.1)

    with EchoServer(echo=False) as server:
        thread = threading.Thread(target=reply, args=(server,))
        thread.start()
        text = "".join(f"line {number}\n" for number in range(len(replies))).encode()
        done = run([*program.command, server.url], lambda descriptor: void(os.write(descriptor, text)))
        thread.join()
        arrived = len(server.messages)
    printed = done.out.decode("utf-8", "replace").splitlines()
    shown = len(set(re.findall(r"reply \d+", "\n".join(printed))))
    clean = "nothing else" if printed == replies else "and more" if len(printed) > shown else "decorated"
    return f"{arrived:,} sent, {shown:,} printed{f', {clean}' if shown else ''}, {done.exit}"


def void(_: object) -> None:
    """So that a lambda returns nothing."""


def refused(program: Program, _: EchoServer) -> str:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        return run([*program.command, f"ws://127.0.0.1:{taken.getsockname()[1]}"], None).exit


def unauthorized(program: Program, server: EchoServer) -> str:
    server.at("/private").refuse(401)
    return run([*program.command, f"{server.url}/private"], None).exit


def untrusted(program: Program, _: EchoServer) -> str:
    with EchoServer(tls=True) as server:
        return run([*program.command, server.url], None).exit


def closed_1011(program: Program, server: EchoServer) -> str:
    def close() -> None:
        with contextlib.suppress(TimeoutError):
            server.at("/broken").close(1011, "broken", timeout=TIMEOUT)

    thread = threading.Thread(target=close)
    thread.start()
    done = run([*program.command, f"{server.url}/broken"], None)
    thread.join()
    return done.exit


def headers(program: Program, server: EchoServer) -> str:
    if program.header is None:
        return "no option"
    run([*program.command, f"{server.url}/headers", *program.header], lambda _: None, timeout=5.0)
    return "sent" if server.headers.get("X-Test") == "1" else "not sent"


def binary(program: Program, server: EchoServer) -> str:
    with on_terminal([*program.command, f"{server.url}/binary"]) as (master, _):
        read_until(master, b">", TIMEOUT)
        server.at("/binary").send(b"\x00\xffmarker\x1b[2J")
        server.at("/binary").send("END")
        screen = read_until(master, b"END", TIMEOUT)
    if b"00ff6d61" in screen:
        return "hexadecimal"
    if b"\\x00\\xffmarker" in screen:
        return "Python's `repr`"
    return "raw, control characters too" if b"\x1b[2J" in screen else "not shown" if b"marker" not in screen else "raw"


def controls(program: Program, server: EchoServer) -> str:
    with on_terminal([*program.command, f"{server.url}/controls"]) as (master, _):
        read_until(master, b">", TIMEOUT)
        server.at("/controls").send("\x1b]0;owned\x07")
        server.at("/controls").send("END")
        screen = read_until(master, b"END", TIMEOUT)
    return "obeyed by the terminal" if b"\x1b]0;owned\x07" in screen else "escaped"


def ctrl_c(program: Program, server: EchoServer) -> str:
    with on_terminal([*program.command, f"{server.url}/ctrl-c"]) as (master, child):
        read_until(master, b">", TIMEOUT)
        server.at("/ctrl-c").send("END")
        read_until(master, b"END", TIMEOUT)
        time.sleep(0.5)  # some programs take Ctrl-C only when their prompt is there
        os.write(master, b"\x03")
        tail = read_until(master, b"no end", 5.0)
        try:
            status: int | None = child.wait(5.0)
        except subprocess.TimeoutExpired:
            status = None
    try:
        code: int | None = server.next_close(2.0)[0]
    except TimeoutError:
        code = None
    end = "does not end" if status is None else f"exit {status}"
    return f"{end}, the server sees {code}{', traceback' if b'Traceback' in tail else ''}"


QUESTIONS: dict[str, Callable[[Program, EchoServer], str]] = {
    "1,000 lines piped: replies printed": piped,
    "nobody listens": refused,
    "401": unauthorized,
    "certificate not trusted": untrusted,
    "server closes with 1011": closed_1011,
    "header of one's own": headers,
    "binary message": binary,
    "`ESC ] 0 ; …` from the server": controls,
    "Ctrl-C": ctrl_c,
}


@contextlib.contextmanager
def fast_server() -> Iterator[str]:
    """The echo server of the benchmarks, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE.parent) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        yield "ws://127.0.0.1:" + str(json.loads(child.stdout.readline())["plain"]) + "/echo"
        child.stdin.close()


def rates(found: list[Program], url: str, lines: int, rounds: int) -> Iterator[tuple[str, str]]:
    """Processor time of each program for the same lines, and how much more that is than the bare script's."""
    jobs = {"bare": (sys.executable, "-c", BARE)} | {program.name: program.command for program in found}
    best: dict[str, Run] = {}
    ended: dict[str, bool] = {}
    for _ in range(rounds):
        for name, command in jobs.items():
            done = run([*command, url], pieces(lines, LINE), timeout=120.0)
            shown = done.out.count(b"\n") >= lines and done.status == 0
            ended[name] = ended.get(name, True) and shown
            if name not in best or done.cpu < best[name].cpu:
                best[name] = done
    bare = best["bare"]
    for name, done in best.items():
        if ended[name]:
            multiple = "" if name == "bare" else f" ({done.cpu / bare.cpu:.2f} x)"
            yield name, f"{done.cpu:.2f} s CPU{multiple}, {done.seconds:.1f} s"
        else:
            yield name, f"not all replies; {done.exit}"


def memory(program: Program, url: str, megabytes: int) -> str:
    done = run([*program.command, url], pieces(megabytes * 1000, LONG), timeout=900.0, sink=True)
    return f"{done.memory:,.0f} MiB, {done.seconds:.0f} s, {done.exit}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cli_comparison")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--megabytes", type=int, help="piped through each program to see its memory (1000; quick: 10)")
    parser.add_argument("--lines", type=int, help="piped to see the rate (200,000; quick: 10,000)")
    parser.add_argument("--rounds", type=int, help="of the rate; the best counts (3; quick: 1)")
    given = parser.parse_args()
    megabytes = given.megabytes or (10 if given.quick else 1000)
    lines = given.lines or (10_000 if given.quick else 200_000)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    found = programs()
    print(f"{datetime.date.today()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}")  # fmt: skip
    print("\n| | " + " | ".join(f"`{program.name}` {program.version}" for program in found) + " |")
    print("|---|" + "---|" * len(found), flush=True)

    def row(name: str, cells: list[str]) -> None:
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)

    for name, question in QUESTIONS.items():
        with EchoServer() as server:
            row(name, [question(program, server) for program in found])
    with fast_server() as url:
        by_name = dict(rates(found, url, lines, given.rounds or (1 if given.quick else 3)))
        row(f"{lines:,} lines of {LINE} bytes (bare script: {by_name['bare']})",
            [by_name[program.name] for program in found])  # fmt: skip
        row(
            f"{megabytes:,} MB in lines of {LONG:,} bytes: memory",
            [memory(program, url, megabytes) for program in found],
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
