"""The other end of tests/examples/host.py: an example program in a process of its own, and what its window shows."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.examples.display import active

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 40.0  # s for one thing to happen; only a test that fails waits so long
PYTHON = [sys.executable, "-X", "dev", "-W", "error"]


@dataclass(frozen=True)
class Look:
    """What a window shows."""

    done: int  # commands that were carried out before
    title: str
    url: str
    message: str
    state: str
    log: list[str]
    last_is_seen: bool  # whether the end of the log is
    enabled: list[str]  # the buttons that can be pressed
    focus: str
    log_size: list[int]
    box: list[int]  # where it is on the screen: left, top, width, height, without the frame
    at: dict[str, list[int]]  # where its buttons are

    @property
    def lines(self) -> list[str]:
        """The log without the times."""
        return [re.sub(r"^\d\d:\d\d:\d\d\s+", "", line) for line in self.log]


class Window:
    """An example program that runs; leaving the block ends it."""

    def __init__(
        self, toolkit: str, *arguments: str, env: dict[str, str], at_the_end: Callable[[], object] | None = None
    ) -> None:
        self._at_the_end = at_the_end  # called before the window goes
        self._env = env
        self._sent = 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*PYTHON, "-m", "tests.examples.host", toolkit, *arguments],
            cwd=ROOT,
            env={**env, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
        )
        self._changed = threading.Condition()  # guards the two below
        self._look: Look | None = None
        self._reading = True
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._look = Look(**json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._reading = False
            self._changed.notify_all()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):  # a command that was never read
                pipe.close()

    def _do(self, *command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        self._sent += 1

    def click(self, button: str) -> None:
        """Press a button, by its text; nothing happens when it is disabled."""
        self._do("click", button)

    def type(self, text: str) -> None:
        """Type where the focus is."""
        self._do("type", text)

    def press(self, key: str) -> None:
        """Press a key where the focus is: Return, KP_Enter, Escape."""
        self._do("press", key)

    def set_url(self, url: str) -> None:
        """Put another address into its entry."""
        self._do("set_url", url)

    def resize(self, width: int, height: int) -> None:
        """Make the window another size, in pixels."""
        self._do("resize", width, height)

    def until(self, fits: Callable[[Look], object]) -> Look:
        """What the window shows once it shows what fits, all commands so far being carried out.

        Raises:
            AssertionError: It never did; with what it shows.
        """
        found: list[Look] = []

        def seen() -> bool:
            if self._look is not None and self._look.done >= self._sent and fits(self._look):
                found.append(self._look)
            return bool(found) or not self._reading

        with self._changed:
            self._changed.wait_for(seen, TIMEOUT)
            assert found, f"{self._look}\n{self._errors()}\n{active(self._env)}"
        return found[0]

    def open(self) -> Look:
        """Press Open connection and see the connection open."""
        self.click("Open connection")
        return self.until(lambda look: look.state == "● Open")

    def drawn(self) -> Look:
        """What the window shows, once the screen shows it too."""
        for _ in range(2):  # the second is taken up when the first has gone out to the screen
            self._do("draw")
            self.until(lambda look: True)
        return self.until(lambda look: True)

    def close(self) -> tuple[int, str]:
        """Close the window; what `ended` says then."""
        self._end()
        self._do("close")
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait for the end of the program; its exit status, and what it wrote to stderr."""
        status = self._process.wait(TIMEOUT)
        return status, self._errors()

    def _end(self) -> None:
        call, self._at_the_end = self._at_the_end, None
        if call:
            call()

    def _errors(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode("utf-8", "replace")
