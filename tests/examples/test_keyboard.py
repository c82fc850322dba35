"""The examples under the keys and the mouse of a real screen, by way of its window manager."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from bws.testing import EchoServer
from tests.examples import display
from tests.examples.conftest import Show
from tests.examples.window import PYTHON, ROOT, TIMEOUT, Window


class Xdotool:
    """Keys go where the screen has its focus, as from a keyboard."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env

    def __call__(self, *arguments: object) -> str:
        command = ["xdotool", *map(str, arguments)]
        done = subprocess.run(command, env=self._env, stdout=subprocess.PIPE, timeout=TIMEOUT, check=True)
        return done.stdout.decode()

    def click(self, at: list[int]) -> None:
        self("mousemove", "--sync", *at, "click", 1)

    def activate(self) -> None:
        """Wait for the window, and give it the focus."""
        end = time.monotonic() + TIMEOUT
        while True:
            # A window that goes away meanwhile, as toolkits make some, ends the search (BadWindow). And the window
            # manager may not have ours in hand yet: "--sync" then waits for nothing that will come.
            with contextlib.suppress(subprocess.CalledProcessError):
                window = self("search", "--sync", "--onlyvisible", "--name", "^WebSocket echo$").split()[0]
                self("windowactivate", window)
                if self("getactivewindow").strip() == window:
                    return
            assert time.monotonic() < end, "the window manager does not activate the window"
            time.sleep(0.05)


@pytest.fixture
def xdotool(screen: dict[str, str]) -> Xdotool:
    return Xdotool(screen)


def test_a_whole_conversation_by_keyboard(show: Show, echo_server: EchoServer, xdotool: Xdotool) -> None:
    window = show(echo_server.url)
    xdotool.activate()
    xdotool("key", "Return")
    window.until(lambda look: look.state == "● Open" and look.focus == "message")
    xdotool("type", "Hello, world")
    xdotool("key", "Return")
    window.until(lambda look: look.lines == ["→ Hello, world", "← Hello, world"])
    xdotool("key", "Escape")
    window.until(lambda look: look.state == "● Closed" and look.focus == "url")
    xdotool("key", "End")
    xdotool("type", "/elsewhere")
    xdotool("key", "KP_Enter")
    look = window.until(lambda look: look.state == "● Open" and look.focus == "message")
    assert look.url == f"{echo_server.url}/elsewhere"
    xdotool("key", "alt+F4")
    assert window.ended() == (0, "")
    assert [echo_server.next_close()[0] for _ in range(2)] == [1005, 1001]


def test_a_whole_conversation_by_mouse(show: Show, echo_server: EchoServer, xdotool: Xdotool) -> None:
    window = show(echo_server.url)
    xdotool.activate()
    at = window.until(lambda look: look.at["Send"][0] > 100).at
    xdotool.click(at["Open connection"])
    window.until(lambda look: look.state == "● Open" and look.focus == "message")
    xdotool("type", "clicked")
    xdotool.click(at["Send"])
    window.until(lambda look: look.lines == ["→ clicked", "← clicked"])
    xdotool.click(at["Close connection"])
    assert window.until(lambda look: look.state == "● Closed").enabled == ["Open connection"]


@pytest.mark.parametrize("name", ["tk_echo.py", "qt_echo.py"])
def test_the_program_itself_starts_anywhere_and_ends_with_its_window(
    name: str, screen: dict[str, str], xdotool: Xdotool, tmp_path: Path
) -> None:
    command = [*PYTHON, str(ROOT / "examples" / name)]
    with subprocess.Popen(command, cwd=tmp_path, env=screen, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        try:
            xdotool.activate()
            xdotool("key", "Return")
            xdotool("key", "alt+F4")
            assert program.communicate(timeout=TIMEOUT) == (b"", b"")
            assert program.returncode == 0
        finally:
            program.kill()


@pytest.mark.parametrize("toolkit", ["tk", "PySide6"])
def test_on_a_screen_with_twice_the_dots_everything_is_twice_as_large(toolkit: str, echo_server: EchoServer) -> None:
    sizes = []
    for dots in ("96", "192"):
        with (
            display.screen("-dpi", dots, size="1800x1200") as env,
            Window(toolkit, echo_server.url, env={**env, "QT_FONT_DPI": dots}) as window,
        ):
            look = window.until(lambda look: min(look.log_size) > 100)
            sizes.append((look.box[2], look.box[3], look.at["Send"][0] - look.box[0]))
    for small, large in zip(*sizes, strict=True):
        assert 1.8 < large / small < 2.2
