"""A screen of its own for windows, where the system has X: Xvfb, with a window manager."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HAS_X = sys.platform.startswith("linux")
SIZE = "1000x700"
WANTED = ("Xvfb", "openbox", "xdotool")


@contextmanager
def screen(*options: str, size: str = SIZE) -> Iterator[dict[str, str]]:
    """The environment for programs that shall show their windows there; elsewhere than on X, that of the system.

    Raises:
        RuntimeError: A program is missing; it says what to install.
    """
    if not HAS_X:
        yield {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
        return
    missing = [name for name in WANTED if shutil.which(name) is None]
    if missing:
        raise RuntimeError(f"{' and '.join(missing)} missing: apt-get install xvfb openbox xdotool")
    ready, said = os.pipe()
    server = ["Xvfb", "-displayfd", str(said), "-screen", "0", f"{size}x24", "-nolisten", "tcp", *options]
    with open(ready) as answer, subprocess.Popen(server, pass_fds=[said], stderr=subprocess.DEVNULL) as xvfb:
        os.close(said)
        try:
            env = {**os.environ, "DISPLAY": f":{answer.readline().strip()}", "QT_QPA_PLATFORM": "xcb"}
            env.pop("WAYLAND_DISPLAY", None)
            with window_manager(env):
                yield env
        finally:
            xvfb.terminate()


@contextmanager
def window_manager(env: dict[str, str]) -> Iterator[None]:
    """Openbox, once it manages the screen.

    Raises:
        RuntimeError: It has ended by itself; then no window has had the focus since.
    """
    command = ["openbox", "--sm-disable", "--startup", "sh -c 'echo ready'"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as openbox:
        assert openbox.stdout is not None
        said: deque[bytes] = deque(maxlen=20)  # the last lines
        for line in openbox.stdout:  # and what it misses of a desktop
            if line == b"ready\n":
                break
            said.append(line)
        else:
            raise RuntimeError(f"openbox has ended before it was ready: {b''.join(said)!r}")
        # It would stand still when nobody reads what it says.
        reader = threading.Thread(target=said.extend, args=(openbox.stdout,))
        reader.start()
        try:
            yield
            ended = openbox.poll()
        finally:
            openbox.terminate()
            reader.join()
        if ended is not None:
            raise RuntimeError(f"openbox has ended with status {ended}: {b''.join(said)!r}")


def active(env: dict[str, str]) -> str:
    """What the window manager says of the window that has the focus, for who wonders why another one has not."""
    if not HAS_X:
        return ""
    command = ["xdotool", "getactivewindow", "getwindowname", "getwindowpid"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return f"the active window: {done.stdout.decode(errors='replace')}"


def picture(env: dict[str, str], file: Path) -> None:
    """Write what the screen shows as PNG."""
    from PIL import ImageGrab

    file.parent.mkdir(parents=True, exist_ok=True)
    ImageGrab.grab(xdisplay=env["DISPLAY"]).save(file)
