"""Who may know whom: the arrows between the files, read from their imports."""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import bws
from tests.conftest import run_python

PACKAGE = pathlib.Path(bws.__file__).parent
ROOT = PACKAGE.parent
ENGINE = "bws._engine"
GUI = {"tkinter", "_tkinter", "PyQt5", "PyQt6", "PySide2", "PySide6", "wx", "gi"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name."""

    name: str
    typing_only: bool  # under TYPE_CHECKING
    names: tuple[str, ...] = ()  # what `from` takes of it

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


class Reader(ast.NodeVisitor):
    """Collects the imports of a file, those inside functions too."""

    def __init__(self, module: str, is_package: bool) -> None:
        self.found: list[Import] = []
        self._package = module if is_package else module.rpartition(".")[0]
        self._typing_only = False

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._typing_only = True
            for child in node.body:
                self.visit(child)
            self._typing_only = False
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [Import(alias.name, self._typing_only) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self._package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        names = tuple(alias.name for alias in node.names)
        self.found.append(Import(base, self._typing_only, names))
        # "from . import frames" takes a module
        self.found += [Import(f"{base}.{name}", self._typing_only) for name in names if _is_module(f"{base}.{name}")]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def read(path: pathlib.Path, module: str) -> list[Import]:
    """The imports of a file."""
    reader = Reader(module, path.name == "__init__.py")
    reader.visit(ast.parse(path.read_text(encoding="utf-8")))
    return reader.found


def modules() -> Iterator[tuple[str, pathlib.Path]]:
    """Every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


IMPORTS = {module: read(path, module) for module, path in modules()}
CORE = [module for module in IMPORTS if not module.startswith("bws.testing")]


def own(module: str, *, typing: bool = False) -> set[str]:
    """What a module takes of the package; with `typing` also what only a type checker sees."""
    return {i.name for i in IMPORTS[module] if i.top == "bws" and (typing or not i.typing_only)}


def test_the_reader_finds_what_is_there() -> None:
    assert len(CORE) > 15
    assert own("bws._state") == set()
    assert {"bws.errors", "bws._engine.interface", "bws._engine.connect"} <= own("bws._engine.threaded")
    assert "bws._websocket" in own("bws.events", typing=True) - own("bws.events")


BOTTOM = ["bws._constant", "bws.errors", "bws._state", "bws._system", "bws._text", "bws._version"]


@pytest.mark.parametrize("module", BOTTOM)
def test_what_is_at_the_bottom_knows_nothing_of_the_package(module: str) -> None:
    assert own(module, typing=True) == set()


# module: what it may know beside itself; a new file needs a line here
ARROWS = {
    "bws.events": {"bws._constant", "bws._text"},  # and its target, for a type checker only
    "bws._settings": {"bws._text", "bws._version"},
    "bws._proxy": {"bws._text"},
    "bws._rules": {"bws.errors", "bws._proxy", "bws._settings", "bws._system", "bws._text"},
    "bws._handler": {"bws._system", "bws._text"},
    # bws._websocket for types only
    "bws._target": {"bws.errors", "bws.events", "bws._handler", "bws._text", "bws._websocket"},
    "bws._lifetime": set[str](),
    "bws._delivery": {"bws._engine.interface", "bws._lifetime", "bws._settings"},
}


@pytest.mark.parametrize("module", ARROWS)
def test_a_module_knows_only_what_is_below_it(module: str) -> None:
    assert own(module) <= ARROWS[module]


def test_every_file_at_the_top_has_its_place() -> None:
    folders = {ENGINE, "bws.dispatch", "bws.testing"}
    top = {module for module in IMPORTS if module.count(".") == 1}
    assert top - folders == set(BOTTOM) | set(ARROWS) | {"bws._websocket"}


@pytest.mark.parametrize("module", [module for module in IMPORTS if module.startswith(ENGINE)])
def test_the_engine_knows_nothing_of_the_object_and_of_delivery(module: str) -> None:
    below = {"bws.errors", "bws._text", "bws._state", "bws._settings", "bws._system", "bws._proxy"}
    assert {name for name in own(module, typing=True) if not name.startswith(ENGINE)} <= below


def test_the_seam_between_engine_and_object_knows_only_the_state_machine() -> None:
    assert own("bws._engine.interface", typing=True) <= {"bws._state"}


def test_only_the_object_and_delivery_know_the_engine_and_only_by_its_seam() -> None:
    users = {
        module: {name for name in own(module) if name.startswith(ENGINE)}
        for module in IMPORTS
        if not module.startswith(ENGINE)
    }
    seam = {ENGINE, "bws._engine.interface"}
    assert {module: names for module, names in users.items() if names - seam} == {}
    assert {module for module, names in users.items() if names} <= {"bws", "bws._websocket", "bws._delivery"}


@pytest.mark.parametrize("module", CORE)
def test_only_the_engine_knows_the_network(module: str) -> None:
    network = {"websocket", "socket", "ssl", "selectors", "select", "http", "urllib.request", "python_socks", "zlib"}
    allowed: set[str] = set()
    if module.startswith(ENGINE):
        allowed = network - {"http"}
    elif module == "bws._system":  # what differs between operating systems
        allowed = {"socket", "select"}
    elif module in ("bws._settings", "bws._rules", "bws._websocket"):
        allowed = {"ssl"}  # the type of an option
    used = {name for i in IMPORTS[module] for name in (i.name, i.top) if name in network}
    assert used <= allowed


@pytest.mark.parametrize("module", ["bws._settings", "bws._rules", "bws._websocket"])
def test_outside_the_engine_ssl_is_a_type_only(module: str) -> None:
    source = (PACKAGE / f"{module.removeprefix('bws.')}.py").read_text(encoding="utf-8")
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("ssl", "_ssl")
    }
    assert used <= {"SSLContext"}


def test_websocket_client_is_known_in_the_wrap_only() -> None:
    users = {module for module in IMPORTS if any(i.top == "websocket" for i in IMPORTS[module])}
    assert users == {"bws._engine.wrap"}


def test_no_file_of_the_client_knows_a_toolkit_or_an_event_loop() -> None:
    loops = {*GUI, "asyncio", "trio", "anyio"}
    assert {m for m in CORE if m.count(".") == 1 and any(i.top in loops for i in IMPORTS[m])} == set()


@pytest.mark.parametrize("module", [module for module in IMPORTS if module.startswith("bws.dispatch.")])
def test_what_runs_handlers_knows_what_all_may_use_only(module: str) -> None:
    allowed = {"bws._system", "bws._settings", "bws._text"}
    assert {name for name in own(module) if not name.startswith("bws.dispatch.")} <= allowed


@pytest.mark.parametrize("module", [module for module in IMPORTS if module.startswith("bws.testing")])
def test_the_test_server_shares_no_code_with_the_client(module: str) -> None:
    others = {i.name: i.names for i in IMPORTS[module] if i.top == "bws" and not i.name.startswith("bws.testing")}
    # The fixtures and the recorder work with the public object; the server does not know it.
    assert set(others) <= ({"bws"} if module in ("bws.testing.pytest_plugin", "bws.testing.record") else set())
    assert {name for names in others.values() for name in names} <= set(bws.__all__)


OUTSIDE = [*sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.name)
def test_a_script_and_an_example_use_the_public_names_only(path: pathlib.Path) -> None:
    for found in read(path, f"bws_cli.{path.stem}"):
        if found.top == "bws":
            assert found.name in ("bws", "bws.testing", "bws.errors", "bws.dispatch"), found
            assert not any(name.startswith("_") and name not in bws.__all__ for name in found.names), found


def imported(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running `code`, beyond what it starts with."""
    done = run_python(f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))")
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.split())


def test_importing_bws_imports_no_toolkit_and_nothing_of_its_extras() -> None:
    found = imported("import bws; bws.WebSocket")
    assert "bws._websocket" in found
    # websocket-client itself imports python_socks when that is installed.
    unwanted = {*GUI, "asyncio", "pytest", "websockets", "trustme", "prompt_toolkit", "bws.testing"}
    assert found & unwanted == set()


def test_importing_bws_testing_needs_nothing_of_its_extra() -> None:
    found = imported("import bws.testing; bws.testing.EchoServer, bws.testing.record")
    assert "bws.testing.echo_server" in found
    assert found & {*GUI, "pytest", "websockets", "trustme"} == set()


def test_every_import_is_of_the_package_the_standard_library_or_declared() -> None:
    # The extras of setup.cfg: websockets (speed, testing), trustme (testing), python_socks (socks). _typeshed is what
    # type checkers bring along; imported at run time, it would fail.
    declared = {"websocket", "ada_url"}
    extras = {"websockets", "trustme", "python_socks", "pytest"}
    library = set(sys.stdlib_module_names) | {"annotationlib"}  # that is new in 3.14
    for module, found in IMPORTS.items():
        tops = {i.top for i in found} - {"_typeshed"} - library - {"bws"}
        assert tops <= declared | extras, module
        if module in CORE:
            assert tops <= declared | {"python_socks"}, module
