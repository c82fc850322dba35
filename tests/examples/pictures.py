"""Makes the pictures of the documentation: `make screenshots`."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageGrab, ImageOps

from bws.testing import EchoServer
from tests.examples.display import screen
from tests.examples.window import Look, Window

PICTURES = {"tk": "tk_echo.png", "PySide6": "qt_echo.png"}
SAID = ["Hello, is anybody there?", "Grüße aus dem Fenster", '{"price": 12.5, "currency": "EUR"}']
NEXT = "The next message"
PORT = 8765
EDGE = "#b8c0cc"


def main(folder: Path) -> None:
    """Write the pictures of both examples into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with screen() as env, EchoServer(port=PORT) as server:
        for toolkit, name in PICTURES.items():
            with Window(toolkit, server.url, env={**env, "QT_FONT_DPI": "106"}) as window:
                left, top, width, height = talk(window, server).box
                image = ImageGrab.grab((left, top, left + width, top + height), xdisplay=env["DISPLAY"])
            image = ImageOps.expand(image.convert("RGB"), border=1, fill=EDGE)
            image.quantize(128, dither=Image.Dither.NONE).save(folder / name, optimize=True)
            print(f"{folder / name}: {image.width} x {image.height}, {(folder / name).stat().st_size} bytes")


def talk(window: Window, server: EchoServer) -> Look:
    """A short conversation, to have something to see."""
    window.open()
    for number, text in enumerate(SAID, 1):
        window.until(lambda look: look.focus == "message")
        window.type(text)
        window.press("Return")
        window.until(lambda look, lines=2 * number: len(look.log) == lines)  # type: ignore[misc]
    server.close(4000, "maintenance")
    window.until(lambda look: look.state == "● Closed")
    window.open()
    window.type(NEXT)
    window.until(lambda look: look.message == NEXT)
    return window.drawn()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
