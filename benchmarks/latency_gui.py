"""How soon a handler runs in a window's or loop's thread, and what an open silent socket costs it.

Run it with ``python -m benchmarks.latency_gui``; it needs what `make test` needs, and for Tk a display.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import bws
from bws.testing import EchoServer

MESSAGES = 500
PAUSE = 0.01  # s between two: the loop has nothing to do when one comes
SILENCE = 10.0  # s that wake-ups are counted for
LOOPS = ("tk", "PySide6", "PyQt6", "asyncio", "uvloop")


def wake_ups() -> int:
    """How often this thread has given the processor away so far; -1 where the system does not tell."""
    try:
        status = pathlib.Path("/proc/thread-self/status").read_text(encoding="ascii")
    except OSError:
        return -1
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


class Job:
    """Takes messages that carry the time when they were sent, then nothing for a while."""

    def __init__(self, url: str, dispatch: Any, later: Callable[[float, Callable[[], None]], object], quit: Any):
        self.later, self.quit = later, quit
        self.delays: list[float] = []
        self.handed: list[float] = []
        self.before = 0

        def timed(call: Callable[[], object]) -> None:
            self.handed.append(time.monotonic())
            dispatch(call)

        self.ws = bws.WebSocket(url, dispatch=timed)
        self.ws.bind("message", self.on_message)

    def on_message(self) -> None:
        self.delays.append(time.monotonic() - self.handed[-1])
        if len(self.delays) == MESSAGES:
            self.later(1.0, self.listen)

    def listen(self) -> None:
        self.before = wake_ups()
        self.later(SILENCE, self.report)

    def report(self) -> None:
        woken = wake_ups() - self.before - 1  # one is for this timer
        delays = sorted(delay * 1000 for delay in self.delays)
        p95 = delays[len(delays) * 95 // 100]
        print(f"{statistics.median(delays):.3f} ms median, {p95:.3f} ms p95; {woken} wake-ups in {SILENCE:g} s")
        self.quit()


def run_tk(url: str) -> None:
    import tkinter

    root = tkinter.Tk()
    Job(url, bws.dispatch.tk(root), lambda s, call: root.after(round(s * 1000), call), root.destroy)
    root.mainloop()


def run_qt(binding: str, url: str) -> None:
    core = importlib.import_module(f"{binding}.QtCore")
    app = importlib.import_module(f"{binding}.QtWidgets").QApplication([])
    Job(url, bws.dispatch.qt(), lambda s, call: core.QTimer.singleShot(round(s * 1000), call), app.quit)
    app.exec()


def run_asyncio(url: str, run: Callable[[Any], object]) -> None:
    import asyncio

    async def main() -> None:
        ended = asyncio.Event()
        Job(url, bws.dispatch.asyncio(), asyncio.get_running_loop().call_later, ended.set)
        await ended.wait()

    run(main())


def child(loop: str, url: str) -> None:
    """Measure one loop."""
    if loop == "tk":
        run_tk(url)
    elif loop in ("asyncio", "uvloop"):
        run_asyncio(url, importlib.import_module(loop).run)
    else:
        run_qt(loop, url)


def main() -> None:
    """Measure each loop in a process of its own."""
    for loop in LOOPS:
        with EchoServer(echo=False) as server:
            command = [sys.executable, "-m", "benchmarks.latency_gui", loop, server.url]
            environment = {"QT_QPA_PLATFORM": "offscreen", **os.environ}
            with subprocess.Popen(command, env=environment) as process:
                print(f"{loop:8}", end=" ", flush=True)
                for _ in range(MESSAGES):
                    server.send("x", timeout=30)
                    time.sleep(PAUSE)
                process.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(*sys.argv[1:])
    else:
        main()
