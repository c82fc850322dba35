"""A display for the windows of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def display() -> Iterator[None]:
    """A screen for Tk: that of the machine, else an Xvfb for the time of the tests."""
    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY"):
        yield
        return
    program = shutil.which("Xvfb")
    if program is None:
        pytest.fail("the tests of windows need a display, or Xvfb: apt install xvfb")
    read, write = os.pipe()
    command = [program, "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with open(read, encoding="ascii") as answer:
            number = answer.readline().strip()  # it writes this when clients can connect
        try:
            assert number, f"Xvfb did not start: exit status {server.wait()}"
            os.environ["DISPLAY"] = f":{number}"
            yield
        finally:
            os.environ.pop("DISPLAY", None)
            server.terminate()
