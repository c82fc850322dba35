"""Makes the pictures of the command bws in a terminal: `make screenshots`.

A shell runs on a pseudo-terminal, pyte keeps its screen, and the screen is written as SVG.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import pyte

from bws.testing import EchoServer

assert sys.platform != "win32", "there are no pseudo-terminals"

COLUMNS = 72
TIMEOUT = 30.0  # s
PORT = 8765
CELL, LINE, SIZE, EDGE = 8.4, 19, 14, 14  # px
INK, PAPER = "#d7dde5", "#14181d"
COLOURS = {
    "black": "#6e7681", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff",
    "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": INK, "brightblack": "#8b949e", "default": INK,
}  # fmt: skip


class Terminal:
    """A shell on a pseudo-terminal, with somebody who types."""

    def __init__(self, master: int, rows: int) -> None:
        self._master = master
        self.screen = pyte.Screen(COLUMNS, rows)
        self._stream = pyte.ByteStream(self.screen)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def until(self, pattern: str) -> None:
        """Read until the text of the screen matches."""
        end = time.monotonic() + TIMEOUT
        while not re.search(pattern, "\n".join(self.screen.display), re.MULTILINE):
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no {pattern!r} on the screen:\n" + "\n".join(self.screen.display))
            data = os.read(self._master, 65536)
            self._stream.feed(data)
            if b"\x1b[6n" in data:  # prompt_toolkit asks where the cursor is
                cursor = self.screen.cursor
                os.write(self._master, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())


@contextmanager
def shell(rows: int) -> Iterator[Terminal]:
    """A shell in an empty home."""
    with tempfile.TemporaryDirectory() as home:
        pid, master = pty.fork()
        if pid == 0:
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            env = {"PATH": path, "HOME": home, "TERM": "xterm-256color", "PS1": "$ ", "LANG": "C.UTF-8", "TZ": "UTC"}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting"], env)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))
        try:
            terminal = Terminal(master, rows)
            terminal.until(r"^\$ ")
            yield terminal
        finally:
            os.close(master)
            os.waitpid(pid, 0)


def svg(screen: pyte.Screen, title: str) -> str:
    """The lines of a screen up to the last one that is not empty."""
    rows = max(number for number, line in enumerate(screen.display, 1) if line.strip())
    width, height = round(COLUMNS * CELL + 2 * EDGE), rows * LINE + 2 * EDGE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{SIZE}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
    ]
    for row in range(rows):
        for start, words, colour, bold in runs(screen.buffer[row]):
            weight = ' font-weight="700"' if bold else ""
            lines.append(
                f'<text x="{EDGE + start * CELL:.1f}" y="{EDGE + row * LINE + SIZE}" fill="{colour}"{weight} '
                f'textLength="{len(words) * CELL:.1f}" xml:space="preserve">{escape(words)}</text>'
            )
    return "\n".join([*lines, "</svg>", ""])


def runs(line: dict[int, pyte.screens.Char]) -> Iterator[tuple[int, str, str, bool]]:
    """Column, letters, colour and weight of what looks the same in a line."""
    start, words, look = 0, "", (INK, False)
    for column in range(COLUMNS + 1):
        char = line[column] if column < COLUMNS else None
        new = look if char is None else (COLOURS.get(char.fg, f"#{char.fg}"), char.bold)
        if char is None or new != look:
            if words.strip():
                yield start, words.rstrip(), *look
            start, words, look = column, "", new
        if char is not None:
            words += char.data


def prompt() -> Iterator[tuple[str, str]]:
    """What is typed at the prompt, and what is waited for."""
    yield f"bws ws://127.0.0.1:{PORT}/\n", r"^> *$"
    yield "Hello, is anybody there?\n", r"there\?(.|\n)*there\?(.|\n)*^> *$"
    yield '{"price": 12.5, "currency": "EUR"}\n', r"EUR(.|\n)*EUR(.|\n)*^> *$"
    yield "/ping\n", r"ms(.|\n)*^> *$"
    yield "/close 4000 enough\n", r"4000(.|\n)*^\$ *$"


def pipe() -> Iterator[tuple[str, str]]:
    """Commands without a prompt."""
    yield "echo hello | bws\n", r"^hello *$(.|\n)*^\$ *$"
    yield "bws -x one -x two --count 2\n", r"^two *$(.|\n)*^\$ *$"
    yield "bws -x ping --latency --count 1000 >/dev/null\n", r"max (.|\n)*^\$ *$"
    yield 'bws ws://127.0.0.1:9/; echo "exit code $?"\n', r"^exit code 1 *$(.|\n)*^\$ *$"


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = {
        "cli-prompt.svg": (prompt, "A conversation at the prompt of the command bws"),
        "cli-pipe.svg": (pipe, "The command bws in pipes"),
    }
    with EchoServer(port=PORT):
        for name, (scene, title) in scenes.items():
            with shell(24) as terminal:
                for keys, shows in scene():
                    terminal.type(keys)
                    terminal.until(shows)
                (folder / name).write_text(svg(terminal.screen, title), encoding="utf-8", newline="\n")
            print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
