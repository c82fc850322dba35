"""What the fuzzing server reported: which of it is a defect, the table, and the page in the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ALL_CASES", "GROUPS", "Result", "Run", "page", "table"]

ALL_CASES = 517
COLUMNS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")
HEAD = ("", "strict", "non-strict", "informational", "unimplemented", "failed", "closed badly")
CLOSED_WELL = ("OK", "INFORMATIONAL")
GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits, large messages",
    "10": "fragments of all sizes",
    "12": "compression",
    "13": "compression parameters",
}
# With handlers on another thread the echo of a message that came just before a violation may be late for it.
LATE_ECHO = ("3", "4")


@dataclass(frozen=True)
class Result:
    """One case.

    Attributes:
        case: Such as ``'7.1.1'``.
        behavior: As the server reports it; ``'MISSING'`` when it did not.
        behavior_close: The same of the closing handshake.
        seconds: As the server measured them.
        hung: Whether the client was not done within the deadline.
    """

    case: str
    behavior: str
    behavior_close: str
    seconds: float
    hung: bool = False

    @property
    def group(self) -> str:
        return self.case.partition(".")[0]

    @property
    def column(self) -> str:
        return "FAILED" if self.hung or self.behavior not in COLUMNS else self.behavior

    def defect(self, asynchronous: bool) -> str | None:
        """What is wrong, or None.

        Args:
            asynchronous: Whether handlers run on another thread than the one that reads.
        """
        if self.hung:
            return f"{self.case}: not over at its deadline"
        if self.behavior not in ("OK", "INFORMATIONAL") and not (
            self.behavior == "NON-STRICT" and asynchronous and self.group in LATE_ECHO
        ):
            return f"{self.case}: {self.behavior}"
        if self.behavior_close not in CLOSED_WELL:
            return f"{self.case}: closing is {self.behavior_close}"
        return None


@dataclass
class Run:
    """All cases of one client, with what the figures depend on."""

    client: str  # as the table shows it
    version: str
    asynchronous: bool
    suite: str
    date: str
    machine: str
    results: list[Result] = field(default_factory=list)

    def defects(self) -> list[str]:
        return [found for result in self.results if (found := result.defect(self.asynchronous))]

    def counts(self, group: str | None = None) -> Counter[str]:
        return Counter(result.column for result in self.results if group in (None, result.group))

    def bad_closings(self, group: str | None = None) -> int:
        return sum(result.behavior_close not in CLOSED_WELL for result in self.results if group in (None, result.group))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Run:
        return cls(**{**data, "results": [Result(**result) for result in data["results"]]})


def order(case: str) -> tuple[int, ...]:
    """For sorting cases by number."""
    return tuple(int(part) for part in case.split("."))


def groups(run: Run) -> list[str]:
    return sorted({result.group for result in run.results}, key=order)


def table(run: Run) -> str:
    """For a terminal."""
    rows: list[tuple[str, ...]] = [HEAD]
    for group in [*groups(run), None]:
        counts = run.counts(group)
        name = "all" if group is None else f"{group}.* {GROUPS.get(group, '')}"
        rows.append((name, *(str(counts[column]) for column in COLUMNS), str(run.bad_closings(group))))
    width = max(len(row[0]) for row in rows)
    lines = [f"{run.client}, {len(run.results)} cases"]
    for row in rows:
        cells = (f"  {cell:>{len(title)}}" for cell, title in zip(row[1:], HEAD[1:], strict=True))
        lines.append(row[0].ljust(width) + "".join(cells))
    return "\n".join(lines)


def page(runs: Iterable[Run]) -> str:
    """For the documentation, in Markdown."""
    chosen = list(runs)
    lines = [
        "| client | strict | non-strict | informational | unimplemented | failed | closed badly |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for run in chosen:
        counts = run.counts()
        cells = [f"{run.client} {run.version}", *(str(counts[column]) for column in COLUMNS), str(run.bad_closings())]
        lines.append("| " + " | ".join(cells) + " |")
    own = [run for run in chosen if run.client.startswith("bws")]
    lines += ["", "bws by group of cases; strict + non-strict + informational, of all:", ""]
    lines += ["| cases | " + " | ".join(run.client for run in own) + " |", "|---|" + "--:|" * len(own)]
    for group in groups(own[0]) if own else []:
        cells = []
        for run in own:
            counts = run.counts(group)
            good = " + ".join(str(counts[column]) for column in COLUMNS[:3])
            cells.append(f"{good}, of {counts.total()}")
        lines.append(f"| {group}.\\* {GROUPS.get(group, '')} | " + " | ".join(cells) + " |")
    lines += ["", "Measured:", ""]
    lines += [
        f"- {run.client} {run.version}: {run.date}, AutobahnTestSuite {run.suite}, {run.machine}" for run in chosen
    ]
    return "\n".join(lines)


def write(path: Path, marks: tuple[str, str], text: str) -> None:
    """Put `text` between the marks.

    Raises:
        ValueError: The page has not both marks, once each.
    """
    old = path.read_text(encoding="utf-8")
    if [old.count(mark) for mark in marks] != [1, 1]:
        raise ValueError(f"{path} must have the lines {marks[0]!r} and {marks[1]!r} once each")
    before, rest = old.split(marks[0])
    after = rest.split(marks[1])[1]
    path.write_text(f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}", encoding="utf-8", newline="\n")
