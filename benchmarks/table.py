"""The figures as a table: for a terminal, and as Markdown for docs/performance.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from .jobs import GROUPS
from .peers import REFERENCE
from .results import Line, Results


def amount(value: float, unit: str) -> str:
    """A figure with its unit, three digits long."""
    if unit == "s":
        value, unit = next((value * by, name) for by, name in _TIMES if value * by < 1000 or name == "s")
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:,.{digits}f}" if unit else f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".strip()


_TIMES = ((1e6, "µs"), (1e3, "ms"), (1.0, "s"))


def ratio(line: Line, peer: str) -> float | None:
    """How many times as much as bws a peer takes."""
    ours = line.clients.get(REFERENCE)
    if peer not in line.clients or ours is None or ours.median <= 0:
        return None
    return line.clients[peer].median / ours.median


def times(value: float) -> str:
    """A ratio as it is shown."""
    return f"{value:,.0f}×" if value >= 99.5 else f"{value:.1f}×" if value >= 9.95 else f"{value:.2f}×"


def cell(line: Line, peer: str) -> tuple[str, str]:
    """The figure and the ratio of a client; empty where there is none."""
    if peer not in line.clients:
        return "", ""
    shown = None if peer == REFERENCE else ratio(line, peer)
    return amount(line.clients[peer].median, line.unit), "" if shown is None else times(shown)


def groups(results: Results) -> Iterator[tuple[str, list[Line]]]:
    """The rows by group; rate, a group's heading, comes first."""
    for group, lines in itertools.groupby(results.rows.values(), key=lambda line: line.group):
        yield GROUPS[group], list(lines)


def as_text(results: Results) -> str:
    """For a terminal."""
    labels = results.labels
    first = max([0, *(len(line.title) for line in results.rows.values())]) + 2
    out = []
    for heading, lines in groups(results):
        out += ["", heading.ljust(first + 2) + "".join(f"{label:>21}" for label in labels.values())]
        for line in lines:
            cells = [cell(line, peer) for peer in labels]
            out.append("  " + line.title.ljust(first) + "".join(f"{shown:>12}{by:>9}" for shown, by in cells))
    out += ["", "4.00×: takes 4 times as much as bws. " + results.where]
    out += [f"Note: {note}" for note in results.notes]
    return "\n".join(out[1:])


def as_markdown(results: Results) -> str:
    """For docs/performance.md."""
    labels = results.labels
    out = []
    for heading, lines in groups(results):
        out += ["", f"| {heading} | " + " | ".join(labels.values()) + " |", "|---|" + "--:|" * len(labels)]
        for line in lines:
            cells = [cell(line, peer) for peer in labels]
            bold = [
                f"**{shown}**" if peer == REFERENCE and shown else " ".join(filter(None, (shown, by and f"({by})")))
                for peer, (shown, by) in zip(labels, cells, strict=True)
            ]
            out.append(f"| {line.title} | " + " | ".join(text or "–" for text in bold) + " |")
    versions = ", ".join(f"{results.labels[peer]} {version}" for peer, version in results.versions.items())
    out += ["", f"{results.where}. Versions: {versions}."]
    return "\n".join(out[1:])
