"""The table of intended differences: each names a scenario, and a row of the documentation."""

from __future__ import annotations

import pathlib

import pytest

from tests.browser import scenarios
from tests.browser.differences import DIFFERENCES

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "browser-differences.md"


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_from_the_browser_is_documented(name: str) -> None:
    assert name in scenarios.SCENARIOS
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [row for row in rows if row.startswith(f"| {DIFFERENCES[name].row}")], DIFFERENCES[name].row


def test_a_difference_shows_the_browsers_line_or_that_of_bws() -> None:
    lines = [line for difference in DIFFERENCES.values() for line in difference.lines]
    assert {line[:2] for line in lines} == {"- ", "+ "}
