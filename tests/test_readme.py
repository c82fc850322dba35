"""What the README and CONTRIBUTING promise at a glance; their code is run by test_docs_code.py."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^(\w+):.*## ", makefile, re.MULTILINE))


def test_make_has_the_targets_that_every_checkout_has() -> None:
    assert make_targets() == {
        "run", "test", "check", "format", "types", "coverage", "bench", "docs", "screenshots", "clean",
        "fuzz", "faults", "browser", "autobahn", "soak", "load", "audit",
    }  # fmt: skip


def test_the_readme_says_what_it_is_and_gives_the_two_commands_before_anything_else() -> None:
    opening = README.partition("\n## ")[0]
    assert opening.startswith("# bws\n\nThe browser's WebSocket for Python programs")
    assert "$ make run " in opening
    assert "$ make test " in opening
    assert "pip install" in opening


def test_the_readme_has_a_script_of_ten_lines() -> None:
    section = README.partition("\n## Ten lines\n")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) == 10


def test_the_readme_compares_with_the_other_clients() -> None:
    table = README.partition("\n## Which client should I use?\n")[2].partition("\n## ")[0]
    for client in ("bws", "websocket-client", "websockets", "picows", "QWebSocket"):
        assert client in table


def test_commands_named_in_the_texts_exist() -> None:
    named = re.findall(r"(?:`|\$ )make (\w+)\b", README + CONTRIBUTING)
    assert set(named) <= make_targets()
    assert set(re.findall(r"^\| `make (\w+)`", CONTRIBUTING, re.MULTILINE)) == make_targets()
