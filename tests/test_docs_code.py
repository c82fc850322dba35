"""The Python code in the README and in docs/ runs, and prints what the pages say."""

from __future__ import annotations

import inspect
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import websocket

import bws
from bws.testing import EchoServer
from tests.dispatch.conftest import display

__all__ = ["display"]  # the fixture

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What stands on the pages for the test server; the README has a reader start one on that port.
PLACEHOLDER = re.compile(r"(?:wss://echo\.example|ws://127\.0\.0\.1:8765)(?=/)")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NO_RUN = re.compile(r"<!-- no-run: (.+) -->\n\Z")
DISPLAY = re.compile(r"<!-- display: (.+) -->\n\Z")
TIMEOUT = 30.0  # seconds for one block; all take well under one


@dataclass(frozen=True)
class Block:
    """A block of Python on a page, and what the page says that it prints (None: it does not say)."""

    page: str
    line: int
    code: str
    prints: str | None
    no_run: str | None
    toolkit: str | None = None

    @property
    def is_tests(self) -> bool:
        """Whether it is a page of tests, for pytest to run."""
        return re.search(r"^ *def test_", self.code, re.MULTILINE) is not None


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    for fence, following in itertools.zip_longest(fences, fences[1:]):
        if fence[1] != "python":
            continue
        before = NO_RUN.search(text, 0, fence.start())
        window = DISPLAY.search(text, 0, fence.start())
        prints = None
        if following and following[1] == "text" and is_output(text[fence.end() : following.start()]):
            prints = following[2]
        yield Block(
            page=page.relative_to(ROOT).as_posix(),
            line=text.count("\n", 0, fence.start()) + 2,
            code=fence[2],
            prints=prints,
            no_run=before[1] if before else None,
            toolkit=window[1] if window else None,
        )


def is_output(between: str) -> bool:
    """Whether a text block is the output of the Python before it: nothing but "prints" stands between."""
    words = between.strip()
    return not words or ("\n" not in words and "print" in words)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUNNABLE = [block for block in BLOCKS if block.no_run is None]


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer(subprotocols=["chat"]) as server:
        yield server


def run(block: Block, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / ("test_block.py" if block.is_tests else "block.py")
    script.write_text(PLACEHOLDER.sub(url, block.code), encoding="utf-8")
    pytest_options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(folder)]
    return subprocess.run(
        [sys.executable, "-W", "error", *(pytest_options if block.is_tests else []), str(script)],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"{block.page}:{block.line}")
def test_code_on_a_page_runs_and_prints_what_the_page_says(
    block: Block, server: EchoServer, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.toolkit == "tkinter":
        request.getfixturevalue("display")
    elif block.toolkit:
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    done = run(block, server.url, tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    if block.prints is not None:
        assert done.stdout == block.prints


def test_only_code_for_a_toolkit_or_a_foreign_host_is_not_run() -> None:
    reasons = {block.no_run for block in BLOCKS} - {None}
    allowed = re.compile(r"needs (wxPython|PyGObject|PySide6|a display|.*\ba foreign host)$")
    assert [reason for reason in reasons if not allowed.match(str(reason))] == []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_code_on_a_page_compiles(block: Block) -> None:
    assert compile(block.code, f"{block.page}:{block.line}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("function", [websocket.WebSocketApp.__init__, websocket.WebSocketApp.run_forever])
def test_the_migration_page_names_every_argument_of_websocket_client(function: object) -> None:
    page = (ROOT / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")
    assert callable(function)
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    assert [name for name in names if f"\n| `{name}` |" not in page] == []


def test_the_migration_page_names_every_method_of_websocket_client() -> None:
    page = (ROOT / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")
    table = page.partition("\n### Methods and attributes\n")[2].partition("\n### ")[0]
    names = [name for name in vars(websocket.WebSocketApp) if not name.startswith("_")]
    assert len(names) >= 7
    assert [name for name in names if not re.search(rf"^\| `{name}\b", table, re.MULTILINE)] == []


def test_the_migration_page_names_every_exception_of_websocket_client() -> None:
    page = (ROOT / "docs" / "howto" / "migrating.md").read_text(encoding="utf-8")
    base = websocket.WebSocketException
    names = [name for name, found in vars(websocket).items() if isinstance(found, type) and issubclass(found, base)]
    assert len(names) >= 8
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. (?:autoclass|autoexception|autofunction):: bws\.(\w+)$", page, re.MULTILINE))
    shown |= set(re.findall(r"^\.\. data:: (\w+)$", page, re.MULTILINE))
    shown |= set(re.findall(r"^\.\. module:: bws\.(\w+)$", page, re.MULTILINE))
    assert set(bws.__all__) - shown == set()


def test_the_design_page_names_every_file_of_the_package_and_no_other() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = "\n".join(re.findall(r"^\| (`.+?) \|", page, re.MULTILINE))
    folder = ROOT / "bws"
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*.py")}
    told = {name for name in files if name.startswith("testing/") or name in ("_version.py", "_engine/__init__.py")}
    assert set(re.findall(r"`([\w/]+\.py)`", table)) == files - told


# -- the page about the command -----------------------------------------------------------------------


def bws_command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "echo_cli.py"), *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )


def test_the_page_about_the_command_has_the_options_of_its_help_and_no_other() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    table = page.partition("\n## Options\n")[2].partition("\n## ")[0]
    first_column = "\n".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    documented = re.findall(r"`(--?\w+)", first_column)
    offered = re.findall(r"^  (-\w|--\w+)(?:, (--\w+))?", bws_command("--help").stdout, re.MULTILINE)
    assert sorted(documented) == sorted(filter(None, itertools.chain(*offered)))


def shell_examples() -> list[tuple[str, str]]:
    """The commands in the section about pipes, each with what it prints."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("\n## In a pipe\n")[2].partition("\n## ")[0]
    return re.findall(r"^\$ (.+)\n((?:[^$`\n].*\n)+)", section, re.MULTILINE)


@pytest.mark.parametrize(("command", "prints"), shell_examples())
def test_a_command_on_the_page_prints_what_the_page_says(command: str, prints: str) -> None:
    words = shlex.split(command)
    stdin = ""
    if words[0] == "echo":
        stdin, words = words[1] + "\n", words[3:]
    assert words[0] == "bws"
    done = bws_command(*words[1:], stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (0, prints, "")
