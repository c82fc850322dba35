"""The figures as bar charts: SVG from the few templates below, which is less than a library would have to be told."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from .jobs import GROUPS
from .peers import FLOOR, REFERENCE
from .results import Line, Results
from .table import amount, ratio, times

# What the README shows: a row of each kind.
OVERVIEW = ("rtt", "recv_100B_text", "recv_1M_utf8", "send_64K_bin", "connect", "connection_memory")

# Pixels.
WIDTH, MARGIN, GAP = 880, 28, 32
PANEL = (WIDTH - 2 * MARGIN - GAP) / 2
NAMES, BARS = 136, 146  # of a panel: the names, and the longest bar
HEAD, PITCH, BAR, BETWEEN = 24, 21, 13, 22
TOP, FOOT = 66, 40
CUT = 4  # a bar is cut when it is this many times as long as that of bws: the rest of the panel stays readable

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Theme:
    """Colours."""

    paper: str
    line: str
    ink: str
    soft: str
    ours: str
    ours_soft: str
    theirs: str
    floor: str


THEMES = {
    "light": Theme("#ffffff", "#e1e5ea", "#1b2430", "#5c6875", "#1267d6", "#8fbcf2", "#b4bdc9", "#dde2e8"),
    "dark": Theme("#12171e", "#2b343f", "#e8edf3", "#97a3b1", "#58a6ff", "#2f5f99", "#566273", "#333d49"),
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write a chart for each group that has figures, and the overview, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        group: (title, [line for line in results.rows.values() if line.group == group])
        for group, title in GROUPS.items()
    }
    chosen = [results.rows[name] for name in OVERVIEW if name in results.rows]
    if len(chosen) == len(OVERVIEW):
        pictures["overview"] = ("bws beside other clients", chosen)
    written = []
    for name, (title, lines) in pictures.items():
        if not lines:
            continue
        for theme, colours in THEMES.items():
            path = folder / f"{name}-{theme}.svg"
            path.write_text(chart(title, lines, results, colours, name == "overview"), encoding="utf-8")
            written.append(path)
    return written


def chart(title: str, lines: list[Line], results: Results, theme: Theme, mixed: bool = False) -> str:
    """A picture with a panel for each line, two side by side."""
    y, panels = float(TOP), []
    for at in range(0, len(lines), 2):
        pair = lines[at : at + 2]
        for column, line in enumerate(pair):
            name = f"{_KINDS.get(line.group, '')}{line.title}" if mixed else line.title
            panels.append(panel(name, line, results.labels, MARGIN + column * (PANEL + GAP), y))
        y += HEAD + PITCH * max(len(_shown(line, results.labels)) for line in pair) + BETWEEN
    height = y - BETWEEN + FOOT
    spoken = "; ".join(f"{line.title}: {_spoken(line, results.labels)}" for line in lines)
    return _PICTURE.format(
        width=WIDTH,
        height=f"{height:g}",
        title=escape(title),
        spoken=escape(spoken),
        style=_STYLE.format(font=FONT, **vars(theme)),
        frame_width=WIDTH - 1,
        frame_height=f"{height - 1:g}",
        margin=MARGIN,
        right=WIDTH - MARGIN,
        foot=f"{height - 17:g}",
        where=escape(results.where),
        twice=times(2),
        panels="\n".join(panels),
    )


_KINDS = {"receive": "receive ", "send": "send "}


def panel(title: str, line: Line, labels: dict[str, str], x: float, y: float) -> str:
    """The bars of a line."""
    shown = _shown(line, labels)
    figures = {peer: line.clients[peer].median for peer in shown}
    longest = max(figures.values())
    if figures.get(REFERENCE, 0) > 0:
        longest = min(longest, CUT * figures[REFERENCE])
        if FLOOR in figures:
            longest = max(longest, min(figures[FLOOR], CUT * figures[REFERENCE]))
    out = [f'<text class="title" x="{x:g}" y="{y + 11:g}">{escape(title)}</text>']
    for row, peer in enumerate(shown):
        middle = y + HEAD + PITCH * row + PITCH / 2
        out.append(_bar(peer, labels[peer], line, figures[peer] / (longest or 1), x, middle))
    return "\n".join(out)


def _bar(peer: str, label: str, line: Line, length: float, x: float, middle: float) -> str:
    kind = "ours" if peer == REFERENCE else "ours-soft" if peer.startswith(REFERENCE) else "theirs"
    kind = "floor" if peer == FLOOR else kind
    start, cut = x + NAMES, length > 1.0001
    size = max(2.0, BARS * min(length, 1.0))
    by = None if peer == REFERENCE else ratio(line, peer)
    out = [
        f'<text class="name {kind}-name" x="{start - 9:g}" y="{middle + 4:g}">{escape(label)}</text>',
        f'<rect class="{kind}" x="{start:g}" y="{middle - BAR / 2:g}" width="{size:.1f}" height="{BAR}" rx="2"/>',
    ]
    if cut:
        left, bottom, rise = start + size - 22, middle + BAR / 2 + 2, BAR + 4
        strokes = " ".join(f"M{left + shift:g} {bottom:g} l5 {-rise:g}" for shift in (0, 6))
        out.append(f'<path class="cut" d="{strokes}"/>')
    value = f'<tspan class="value {kind}-name">{amount(line.clients[peer].median, line.unit)}</tspan>'
    if by is not None:
        value += f'<tspan class="times" dx="7">{times(by)}</tspan>'
    out.append(f'<text x="{start + size + 7:.1f}" y="{middle + 4:g}">{value}</text>')
    return "\n".join(out)


def _shown(line: Line, labels: dict[str, str]) -> list[str]:
    return [peer for peer in labels if peer in line.clients]


def _spoken(line: Line, labels: dict[str, str]) -> str:
    return ", ".join(f"{labels[peer]} {amount(line.clients[peer].median, line.unit)}" for peer in _shown(line, labels))


_STYLE = """
text {{ font: 12px {font}; fill: {ink}; }}
.heading {{ font-size: 18px; font-weight: 650; }}
.hint, .where {{ fill: {soft}; }}
.hint {{ font-size: 12px; text-anchor: end; }}
.where {{ font-size: 11px; }}
.title {{ font-size: 13px; font-weight: 600; }}
.name {{ text-anchor: end; fill: {soft}; }}
.ours-name {{ fill: {ink}; font-weight: 650; }}
.times {{ fill: {soft}; font-size: 11px; }}
.ours {{ fill: {ours}; }}
.ours-soft {{ fill: {ours_soft}; }}
.theirs {{ fill: {theirs}; }}
.floor {{ fill: {floor}; }}
.cut {{ stroke: {paper}; stroke-width: 2.5; fill: none; }}
.frame {{ fill: {paper}; stroke: {line}; }}
.rule {{ stroke: {line}; }}
"""

_PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<desc>{spoken}</desc>
<style>{style}</style>
<rect class="frame" x="0.5" y="0.5" width="{frame_width}" height="{frame_height}" rx="8"/>
<text class="heading" x="{margin}" y="37">{title}</text>
<text class="hint" x="{right}" y="36">shorter is better; {twice} is twice as much as bws</text>
{panels}
<text class="where" x="{margin}" y="{foot}">{where}</text>
</svg>
"""
