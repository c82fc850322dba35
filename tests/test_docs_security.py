"""What docs/security.md promises is held by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_holds_a_promise_exists(file: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in functions(ROOT / file)


def test_every_promise_names_a_test() -> None:
    tables = re.findall(r"^\| Promise \| Test \|\n\|[-|]+\|\n((?:\|.+\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 7
    assert [row for row in rows if "`tests/" not in row.rsplit(" | ", 1)[1]] == []
    assert len(NAMED) > 30
