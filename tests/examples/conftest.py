"""The screen that the windows of these tests are on, and pictures of them for those who want to look."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bws.testing import EchoServer
from tests.examples import display
from tests.examples.window import Window

if not display.HAS_X:
    collect_ignore = ["test_keyboard.py"]

Show = Callable[..., Window]

PICTURES = os.environ.get("BWS_SCREENSHOTS")  # a folder


@pytest.fixture(scope="session")
def screen() -> Iterator[dict[str, str]]:
    """The environment of programs that show windows."""
    with display.screen() as env:
        yield env


@pytest.fixture
def start(request: pytest.FixtureRequest, screen: dict[str, str], echo_server: EchoServer) -> Iterator[Show]:
    """`start(toolkit, *arguments)` starts an example; it is ended with the test, and before the server."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")

    def take_picture() -> None:
        if PICTURES and display.HAS_X:
            display.picture(screen, Path(PICTURES) / f"{name}.png")

    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Window(*arguments, env=screen, at_the_end=take_picture))


@pytest.fixture(params=["tk", "PySide6"])
def show(request: pytest.FixtureRequest, start: Show) -> Show:
    """`show(*arguments)` starts an example, once with Tk and once with Qt."""
    return lambda *arguments: start(request.param, *arguments)
