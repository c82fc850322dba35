"""The table of faults that were tried and survived, and a check that nothing of them is left."""

from __future__ import annotations

import gc
import os
import pathlib
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import TIMEOUT, settle

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
PAGE = os.environ.get("BWS_FAULTS_PAGE")  # `make faults` writes the table into it


class Ledger:
    """Counts, for each fault, the connections that had it and those that came through as the contract says."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[int]] = {}

    def add(self, fault: str, where: str, tried: int, wrong: list[str]) -> None:
        """So many connections had this fault.

        Raises:
            AssertionError: Some went wrong.
        """
        row = self.rows.setdefault((fault, where), [0, 0])
        row[0] += tried
        row[1] += tried - min(tried, len(wrong))
        assert tried
        assert not wrong, f"{len(wrong)} of {tried} connections:\n" + "\n".join(wrong[:5])

    def table(self) -> str:
        """As Markdown."""
        lines = ["| fault | where | tried | survived |", "|---|---|--:|--:|"]
        lines += [f"| {fault} | {where} | {n:,} | {good:,} |" for (fault, where), (n, good) in self.rows.items()]
        total = [sum(row[i] for row in self.rows.values()) for i in (0, 1)]
        return "\n".join([*lines, f"| **all** | | **{total[0]:,}** | **{total[1]:,}** |"])


_ledger = Ledger()


@pytest.fixture
def ledger() -> Ledger:
    """Where a test notes what it tried."""
    return _ledger


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, if asked to; also when something did not survive."""
    if PAGE and _ledger.rows:
        page = pathlib.Path(PAGE)
        head, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, tail = rest.partition(END)
        page.write_text(f"{head}{BEGIN}\n{_ledger.table()}\n{END}{tail}", encoding="utf-8")


def descriptors() -> list[str]:
    """The open files of this process, where the system tells."""
    found = pathlib.Path("/proc/self/fd")
    return sorted(os.listdir(found)) if found.exists() else []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread and no descriptor is left by what had faults."""
    settle()
    gc.collect()
    threads, before = set(threading.enumerate()), descriptors()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(TIMEOUT)
    assert set(threading.enumerate()) <= threads
    gc.collect()
    assert descriptors() == before
