"""Draws the parts of bws and their arrows for docs/design.md: `make screenshots`.

What is drawn is written down here; tests/test_docs_picture.py compares it with the imports.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 480, 640


@dataclass(frozen=True)
class Part:
    """A box: a few files that belong together, without `bws.` and in dots."""

    name: str
    title: str
    note: str
    files: tuple[str, ...]
    x: int
    y: int
    w: int
    h: int = 54


@dataclass(frozen=True)
class Arrow:
    """A line between two parts; `calls`: not an import, but what happens when the program runs."""

    tail: str
    head: str
    points: tuple[tuple[int, int], ...]
    label: str = ""
    label_at: tuple[int, int] = (0, 0)
    calls: bool = False


ENGINE = (
    "_engine.threaded", "_engine.wrap", "_engine.connect", "_engine.patience", "_engine.tcp", "_engine.proxies",
    "_engine.relay", "_engine.tls", "_engine.handshake", "_engine.frames", "_engine.outbox", "_engine.wire",
    "_engine.deflate", "_engine.relief", "_engine.trail", "_engine.buffers", "_engine.watch", "_engine.tls_stream",
)  # fmt: skip

PARTS = [
    Part("object", "class WebSocket", "__init__.py  _websocket.py", ("", "_websocket"), 10, 100, 320),
    Part("dispatch", "dispatch/", "GUI loops, queue", ("dispatch",), 362, 100, 108),
    Part("rules", "_rules.py", "arguments", ("_rules",), 10, 206, 104),
    Part("state", "_state.py", "the state table", ("_state",), 124, 206, 104),
    Part("handlers", "_target.py", "_handler, events", ("_target", "_handler", "events"), 252, 206, 104),
    Part("delivery", "_delivery.py", "and _lifetime.py", ("_delivery", "_lifetime"), 366, 206, 104),
    Part("seam", "_engine/interface.py", "what is asked of it, the facts it reports",
         ("_engine", "_engine.interface"), 98, 322, 284),
    Part("engine", "_engine/threaded.py", "one connection on a daemon thread", ENGINE, 24, 404, 432, 110),
    Part("shelf", "errors  _text  _constant  _settings  _proxy  _system  _version",
         "used by the parts above, know none of them",
         ("errors", "_text", "_constant", "_settings", "_proxy", "_system", "_version"), 10, 536, 460, 44),
    Part("testing", "testing/", "the other end of the wire", ("testing",), 290, 594, 180, 44),
]  # fmt: skip

# Boxes that are no files of the package.
FRAMES = [
    Part("program", "your program", "", (), 10, 10, 460, 34),
    Part("folder", "", "", (), 10, 310, 460, 216),
    Part("network", "websocket-client, sockets, TLS", "", (), 10, 594, 224, 44),
]

# Everything may use the shelf; these arrows are not drawn.
ARROWS = [
    Arrow("object", "dispatch", ((330, 127), (362, 127))),
    Arrow("object", "rules", ((62, 154), (62, 206))),
    Arrow("object", "state", ((176, 154), (176, 206))),
    Arrow("object", "handlers", ((290, 154), (290, 206))),
    Arrow("object", "delivery", ((322, 154), (322, 178), (394, 178), (394, 206))),
    Arrow("object", "seam", ((240, 154), (240, 322)), "send, close", (246, 296)),
    Arrow("delivery", "seam", ((376, 260), (376, 291), (340, 291), (340, 322))),
    Arrow("seam", "state", ((150, 322), (150, 260))),
    Arrow("seam", "engine", ((210, 376), (210, 404))),
    Arrow("engine", "seam", ((270, 404), (270, 376))),
    Arrow("engine", "state", ((60, 404), (60, 290), (134, 290), (134, 260))),
    Arrow("testing", "object", ((470, 616), (477, 616), (477, 78), (200, 78), (200, 100))),
    Arrow("program", "object", ((90, 44), (90, 100)), "bind, send, close", (98, 66), calls=True),
    Arrow("seam", "delivery", ((382, 349), (446, 349), (446, 260)), "facts", (392, 343), calls=True),
    Arrow("delivery", "dispatch", ((440, 206), (440, 154)), "", calls=True),
    Arrow("dispatch", "program", ((416, 100), (416, 44)), "handlers", (358, 66), calls=True),
    Arrow("engine", "network", ((40, 514), (40, 594)), "", calls=True),
    Arrow("network", "testing", ((234, 616), (290, 616)), "wire", (248, 609), calls=True),
]

INSIDE = [
    ("connect", "addresses, proxy, TLS"),
    ("handshake", "strict in the answer"),
    ("frames", "bytes to messages"),
    ("deflate", "permessage-deflate"),
    ("outbox", "what is not sent yet"),
    ("relief", "for slow handlers"),
    ("wrap", "drives WebSocketApp"),
    ("buffers", "for large frames"),
]

COLOURS = {
    "light": {
        "ink": "#1b1f24", "soft": "#57606a", "box": "#f3f6fa", "line": "#8c959f", "frame": "#ffffff", "call": "#0a62c9"
    },
    "dark": {
        "ink": "#e6edf3", "soft": "#9aa5b1", "box": "#22272e", "line": "#6e7681", "frame": "#181c20", "call": "#6cb0ff"
    },
}  # fmt: skip


def text(x: int, y: int, words: str, size: float, colour: str, **more: str) -> str:
    """One line of letters."""
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}"{attributes}>{escape(words)}</text>'


def box(part: Part, colours: dict[str, str], dashed: bool = False) -> list[str]:
    """A rectangle with its title and its note."""
    fill = colours["frame" if dashed else "box"]
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    middle = part.x + part.w // 2
    drawn = [
        f'<rect x="{part.x}" y="{part.y}" width="{part.w}" height="{part.h}" rx="6" fill="{fill}" '
        f'stroke="{colours["line"]}"{dash}/>'
    ]
    top = part.y + (22 if part.note else part.h // 2 + 5)
    if part.h == 44 and part.note:
        top = part.y + 18
    if part.title:
        size = 13 if len(part.title) < 30 else 12
        drawn.append(text(middle, top, part.title, size, colours["ink"], text_anchor="middle", font_weight="600"))
    if part.note:
        drawn.append(text(middle, top + 18, part.note, 11, colours["soft"], text_anchor="middle"))
    return drawn


def arrow(line: Arrow, colours: dict[str, str]) -> list[str]:
    """A line with a head; dashed and coloured when it is a call."""
    kind = "call" if line.calls else "ink"
    dash = ' stroke-dasharray="5 4"' if line.calls else ""
    points = " ".join(f"{x},{y}" for x, y in line.points)
    drawn = [
        f'<polyline points="{points}" fill="none" stroke="{colours[kind]}" stroke-width="1.4"{dash} '
        f'marker-end="url(#{kind})"/>'
    ]
    if line.label:
        drawn.append(text(*line.label_at, line.label, 11, colours[kind]))
    return drawn


def draw(theme: str) -> str:
    """The picture as SVG."""
    colours = COLOURS[theme]
    heads = [
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{colours[kind]}"/></marker>'
        for kind in ("ink", "call")
    ]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" role="img">',
        "<title>The parts of bws and who knows whom</title>",
        f"<defs>{''.join(heads)}</defs>",
    ]
    for part in FRAMES:
        lines += box(part, colours, dashed=True)
    for part in PARTS:
        lines += box(part, colours)
    for number, (name, note) in enumerate(INSIDE):
        x, y = 36 + number % 2 * 214, 462 + number // 2 * 15
        lines.append(text(x, y, name, 11, colours["ink"], font_weight="600"))
        lines.append(text(x + 72, y, note, 10, colours["soft"]))
    for line in ARROWS:
        lines += arrow(line, colours)
    return "\n".join([*lines, "</svg>", ""])


def main(folder: Path) -> None:
    """Write both pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for theme in COLOURS:
        (folder / f"parts-{theme}.svg").write_text(draw(theme), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
