"""Says at the end how many examples there were."""

from __future__ import annotations

import pytest

from tests.fuzz import budget


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if budget.TOTAL:
        terminalreporter.write_line(f"{budget.run:,} examples")
