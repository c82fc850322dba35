"""The figures as a table: for a terminal, and as Markdown for docs/performance.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .jobs import GROUPS
from .peers import REFERENCE
from .results import Line, Results

TIMES = "\N{MULTIPLICATION SIGN}"


def amount(value: float, unit: str) -> str:
    """A figure with its unit, three digits long."""
    if unit == "s":
        value, unit = next((value * by, name) for by, name in _UNITS if value * by < 1000 or name == "s")
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:,.{digits}f}" if unit else f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".strip()


_UNITS = ((1e6, "µs"), (1e3, "ms"), (1.0, "s"))


def ratio(line: Line, peer: str) -> float | None:
    """How many times as much as bws a peer takes."""
    ours = line.clients.get(REFERENCE)
    if peer not in line.clients or ours is None or ours.median <= 0:
        return None
    if line.unit not in ("s", "KiB"):  # small counts speak for themselves, and idle CPU time is all but nothing
        return None
    return line.clients[peer].median / ours.median


def times(value: float) -> str:
    """A ratio as it is shown."""
    return f"{value:,.{0 if value >= 99.5 else 1 if value >= 9.95 else 2}f}{TIMES}"


def cell(line: Line, peer: str) -> tuple[str, str]:
    """The figure and the ratio of a client; empty where there is none."""
    if peer not in line.clients:
        return "", ""
    shown = None if peer == REFERENCE else ratio(line, peer)
    return amount(line.clients[peer].median, line.unit), "" if shown is None else times(shown)


def groups(results: Results) -> Iterator[tuple[str, list[Line], dict[str, str]]]:
    """The headings, the rows under each, and the labels of the clients that have figures there."""
    for group, found in itertools.groupby(results.rows.values(), key=lambda line: line.group):
        lines = list(found)
        shown = {peer: label for peer, label in results.labels.items() if any(peer in line.clients for line in lines)}
        yield GROUPS[group], lines, shown


def as_text(results: Results) -> str:
    """For a terminal."""
    first = max([0, *(len(line.title) for line in results.rows.values())]) + 2
    out = []
    for heading, lines, labels in groups(results):
        out += ["", heading.ljust(first + 2) + "".join(f"{label:>21}" for label in labels.values())]
        for line in lines:
            cells = [cell(line, peer) for peer in labels]
            text = "".join(f"{shown:>12}{by:>9}" for shown, by in cells)
            out.append(f"  {line.title.ljust(first)}{text}".rstrip())
    out += ["", f"4.00{TIMES}: takes four times as much as bws. {results.where}"]
    out += [f"Note: {note}" for note in results.notes]
    return "\n".join(out[1:])


def as_markdown(results: Results) -> str:
    """For docs/performance.md."""
    out = []
    for heading, lines, labels in groups(results):
        out += ["", f"| {heading} | " + " | ".join(labels.values()) + " |", "|---|" + "--:|" * len(labels)]
        for line in lines:
            out.append(f"| {line.title} | " + " | ".join(_markdown_cell(line, peer) for peer in labels) + " |")
    versions = ", ".join(f"{results.labels[peer]} {version}" for peer, version in results.versions.items())
    out += ["", f"{results.where}. Versions: {versions}."]
    out += [f"\nNote: {note}." for note in results.notes]
    return "\n".join(out[1:])


def _markdown_cell(line: Line, peer: str) -> str:
    shown, by = cell(line, peer)
    if peer == REFERENCE and shown:
        return f"**{shown}**"
    return " ".join(filter(None, (shown, by and f"({by})"))) or "\u2013"
