"""Runs an example program as it is, and beside it a hand and an eye in its window.

`python -m tests.examples.host tk|PySide6|PyQt6 [URL]`. Commands come on stdin, one JSON list a line: the name of a
method of the hand, and its arguments. What the window shows goes to stdout, as JSON, whenever it has changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from examples.qt_echo import EchoWindow as QtWindow
    from examples.tk_echo import EchoWindow as TkWindow

LOOK_EVERY = 10  # ms


class Hand(Protocol):
    """What a person does at a window, and sees there; all of it in the window's thread."""

    def is_ready(self) -> bool: ...
    def click(self, button: str) -> None: ...
    def type(self, text: str) -> None: ...
    def press(self, key: str) -> None: ...
    def set_url(self, url: str) -> None: ...
    def resize(self, width: int, height: int) -> None: ...
    def draw(self) -> None: ...
    def close(self) -> None: ...
    def look(self) -> dict[str, Any]: ...


class TkHand:
    def __init__(self, window: TkWindow) -> None:
        self._window = window

    def _entry(self) -> Any:
        focused = self._window.focus_lastfor()
        assert focused is not None
        return focused

    def is_ready(self) -> bool:
        return self._window.focus_lastfor() is not None

    def click(self, button: str) -> None:
        (found,) = (b for b in self._buttons() if b["text"] == button)
        found.invoke()

    def _buttons(self) -> tuple[Any, ...]:
        return self._window.open_button, self._window.send_button, self._window.close_button

    def type(self, text: str) -> None:
        self._entry().insert("insert", text)

    def press(self, key: str) -> None:
        self._entry().event_generate(f"<{key}>")

    def set_url(self, url: str) -> None:
        self._window.url_entry.delete(0, "end")
        self._window.url_entry.insert(0, url)

    def resize(self, width: int, height: int) -> None:
        self._window.geometry(f"{width}x{height}")

    def draw(self) -> None:
        self._window.update()

    def close(self) -> None:
        self._window.destroy()  # what Tk does when the window manager asks for it

    def look(self) -> dict[str, Any]:
        window, focused = self._window, self._window.focus_lastfor()
        return {
            "title": window.title(),
            "url": window.url_entry.get(),
            "message": window.message_entry.get(),
            "state": window.state_label["text"],
            "log": window.log.get("1.0", "end").splitlines()[:-1],
            "last_is_seen": window.log.bbox("end - 2 chars") is not None,
            "enabled": [b["text"] for b in self._buttons() if not b.instate(["disabled"])],
            "focus": "url" if focused is window.url_entry else "message" if focused is window.message_entry else "",
            "log_size": [window.log.winfo_width(), window.log.winfo_height()],
            "box": [window.winfo_rootx(), window.winfo_rooty(), window.winfo_width(), window.winfo_height()],
            "at": {
                b["text"]: [b.winfo_rootx() + b.winfo_width() // 2, b.winfo_rooty() + b.winfo_height() // 2]
                for b in self._buttons()
            },
        }


class QtHand:
    def __init__(self, window: QtWindow, binding: str) -> None:
        self._window = window
        self._test: Any = importlib.import_module(f"{binding}.QtTest").QTest
        self._names: Any = importlib.import_module(f"{binding}.QtCore").Qt

    def _entry(self) -> Any:
        focused = self._window.focusWidget()
        assert focused is not None
        return focused

    def is_ready(self) -> bool:
        return self._window.focusWidget() is not None

    def click(self, button: str) -> None:
        (found,) = (b for b in self._buttons() if b.text() == button)
        self._test.mouseClick(found, self._names.MouseButton.LeftButton)

    def _buttons(self) -> tuple[Any, ...]:
        return self._window.open_button, self._window.send_button, self._window.close_button

    def type(self, text: str) -> None:
        if text.isascii():
            self._test.keyClicks(self._entry(), text)
        else:  # which keyClicks cannot; an input method inserts as well
            self._entry().insert(text)

    def press(self, key: str) -> None:
        keys = self._names.Key
        codes = {"Return": keys.Key_Return, "KP_Enter": keys.Key_Enter, "Escape": keys.Key_Escape}
        self._test.keyClick(self._entry(), codes[key])

    def set_url(self, url: str) -> None:
        self._window.url_entry.setText(url)

    def resize(self, width: int, height: int) -> None:
        self._window.resize(width, height)

    def draw(self) -> None:
        self._window.repaint()

    def close(self) -> None:
        self._window.close()

    def look(self) -> dict[str, Any]:
        window, focused, bar = self._window, self._window.focusWidget(), self._window.log.verticalScrollBar()
        return {
            "title": window.windowTitle(),
            "url": window.url_entry.text(),
            "message": window.message_entry.text(),
            "state": window.state_label.text(),
            "log": window.log.toPlainText().splitlines(),
            "last_is_seen": bar.value() == bar.maximum(),
            "enabled": [b.text() for b in self._buttons() if b.isEnabled()],
            "focus": "url" if focused is window.url_entry else "message" if focused is window.message_entry else "",
            "log_size": [window.log.width(), window.log.height()],
            "box": self._on_screen(window, window.rect().topLeft()) + self._pixels(window.width(), window.height()),
            "at": {b.text(): self._on_screen(b, b.rect().center()) for b in self._buttons()},
        }

    def _on_screen(self, widget: Any, point: Any) -> list[int]:
        place = widget.mapToGlobal(point)
        return self._pixels(place.x(), place.y())

    def _pixels(self, *lengths: int) -> list[int]:
        """Qt counts in units of a 96th of an inch."""
        return [round(length * self._window.devicePixelRatio()) for length in lengths]


class Remote:
    """Carries out what stdin says, and tells stdout what is seen."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._commands: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._done = 0
        self._told = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(0, 65536):  # sys.stdin has a lock, which a daemon thread holds to the end
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._commands.put(json.loads(line))

    def turn(self) -> bool:
        """One turn of the window's loop; False when the window is closed."""
        while self._hand.is_ready() and not self._commands.empty():
            name, *arguments = self._commands.get()
            getattr(self._hand, name)(*arguments)
            self._done += 1
            if name == "close":
                return False
        now = json.dumps({**self._hand.look(), "done": self._done})
        if now != self._told:
            print(now, flush=True)
            self._told = now
        return True


def run_tk() -> None:
    from examples import tk_echo

    class Watched(tk_echo.EchoWindow):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            self.update()  # put it on the screen, where it can take keys
            self.url_entry.focus_force()
            self.remote = Remote(TkHand(self))
            self.turn()

        def turn(self) -> None:
            if self.remote.turn():
                self.after(LOOK_EVERY, self.turn)

    run(tk_echo, Watched)


def qt_example(binding: str) -> Any:
    """The example, with the name of the binding in its import lines replaced."""
    spec = importlib.util.find_spec("examples.qt_echo")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8").replace("from PySide6.", f"from {binding}.")
    module = importlib.util.module_from_spec(spec)
    exec(compile(source, spec.origin, "exec"), module.__dict__)
    return module


def run_qt(binding: str) -> None:
    example = qt_example(binding)
    QTimer: Any = importlib.import_module(f"{binding}.QtCore").QTimer

    class Watched(example.EchoWindow):  # type: ignore[misc, name-defined]
        def __init__(self, url: str) -> None:
            super().__init__(url)
            self.remote = Remote(QtHand(cast("QtWindow", self), binding))
            self.timer = QTimer(self)
            self.timer.timeout.connect(self.turn)
            self.timer.start(LOOK_EVERY)

        def turn(self) -> None:
            if not self.remote.turn():
                self.timer.stop()

    run(example, Watched)


def run(example: Any, window: Callable[[str], object]) -> None:
    example.EchoWindow = window
    example.main()


if __name__ == "__main__":
    toolkit = sys.argv.pop(1)
    if toolkit == "tk":
        run_tk()
    else:
        run_qt(toolkit)
