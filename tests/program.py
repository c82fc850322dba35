"""Runs of the program scripts/echo_cli.py for its tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "echo_cli.py"
TIMEOUT = 30.0  # s for one run of the program; only a test that fails needs them
COMMAND = [sys.executable, "-X", "dev", "-W", "error", str(SCRIPT)]


def run(*args: str, input: str | bytes = b"", env: dict[str, str] | None = None, **more: Any) -> tuple[int, str, str]:
    """Run the program to its end; exit status, stdout, stderr."""
    done = subprocess.run(
        [*COMMAND, *args],
        input=input.encode() if isinstance(input, str) else input,
        env={**os.environ, **(env or {})},
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        **more,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@contextmanager
def running(*args: str, stdin: int | IO[bytes] = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """The program with open pipes; it is ended when the test does not do it."""
    with subprocess.Popen([*COMMAND, *args], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        watchdog = threading.Timer(TIMEOUT, program.kill)
        watchdog.start()
        try:
            yield program
        finally:
            watchdog.cancel()
            program.kill()


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
