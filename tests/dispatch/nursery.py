"""An interpreter that has imported what programs need; each of them is a fork of it, which saves it the start.

`python -m tests.dispatch.nursery MODULE...`. A line of JSON on stdin is a program: its code, arguments, environment
and the files for its output. Its process id comes on stdout, then its exit status, a line each.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """The other end; one program at a time. It ends with the interpreter."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        command = [sys.executable, "-W", "error", "-m", __name__, *modules]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self._close)

    def run(
        self, code: str, args: tuple[str, ...], env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, which is SIGABRT after `timeout` seconds."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("stdout", "stderr")]
            job = {"code": code, "args": args, "env": env, "output": list(map(str, files))}
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            watchdog = threading.Timer(timeout, os.kill, (self._answer(), signal.SIGABRT))
            watchdog.start()
            try:
                status = self._answer()
            finally:
                watchdog.cancel()
                watchdog.join()
            output, errors = (file.read_text(encoding="utf-8") for file in files)
        return subprocess.CompletedProcess([], status, output, errors)

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def _close(self) -> None:
        self._process.communicate()  # closes its stdin


@functools.cache
def nursery(*modules: str) -> Nursery:
    """The one that has imported these modules."""
    return Nursery(modules)


def serve() -> dict[str, Any] | None:
    """In each program, what it is; None when no more come."""
    while line := os.read(0, 1 << 20):
        while not line.endswith(b"\n"):
            line += os.read(0, 1 << 20)
        pid = os.fork()
        if pid == 0:
            job: dict[str, Any] = json.loads(line)
            become(job)
            return job
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def become(job: dict[str, Any]) -> None:
    """Take over a program's arguments, environment and files."""
    sys.argv = ["-c", *job["args"]]
    os.environ.clear()
    os.environ.update(job["env"])
    for number, path in enumerate([os.devnull, *job["output"]]):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        with contextlib.suppress(ImportError):  # the program will say so
            importlib.import_module(module)
    program = serve()
    if program is not None:
        exec(compile(program["code"], "<string>", "exec"), vars(sys.modules["__main__"]))
