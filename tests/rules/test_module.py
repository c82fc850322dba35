"""The module: its names, and what it says when websocket-client is missing."""

from __future__ import annotations

import pathlib
import re

import pytest

import bws
from tests.conftest import run_python

NAMES = {
    "supported",
    "WebSocket",
    "DOMEvent",
    "MessageEvent",
    "CloseEvent",
    "DOMException",
    "DOMSyntaxError",
    "InvalidStateError",
    "InvalidAccessError",
    "__version__",
}


def test_the_public_names_are_those_of_the_documentation() -> None:
    assert set(bws.__all__) >= NAMES
    assert all(hasattr(bws, name) for name in bws.__all__)
    assert bws.supported is True
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", bws.__version__)


MISSING = """
import bws
print(bws.supported)
try:
    bws.WebSocket("ws://127.0.0.1/")
except NotImplementedError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    "module", ["raise ImportError('not installed')", "", "def connect(): pass", "from . import nothing"]
)
def test_without_websocket_client_the_module_is_imported_and_says_what_to_install(
    tmp_path: pathlib.Path, module: str
) -> None:
    (tmp_path / "websocket.py").write_text(module)
    done = run_python(MISSING, paths=[tmp_path])
    assert (done.returncode, done.stderr) == (0, "")
    supported, message = done.stdout.splitlines()
    assert supported == "False"
    assert "websocket-client" in message
    assert "pip install" in message


def test_importing_it_imports_no_toolkit_and_no_event_loop() -> None:
    done = run_python("import sys, bws; print(*sorted(sys.modules))")
    assert done.returncode == 0
    assert not {"tkinter", "asyncio", "PyQt5", "PyQt6", "PySide6", "websockets"} & set(done.stdout.split())


def test_it_can_stand_for_brythons_module() -> None:
    import bws as websocket

    assert websocket.supported
    assert websocket.WebSocket is bws.WebSocket
