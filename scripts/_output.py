"""What the program prints: messages to stdout, notes to stderr, from any thread."""

from __future__ import annotations

import base64
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import bws

from ._format import Format, escaped, without_password

LONGEST = 20_000  # characters of one message on a terminal
_PIECE = 64 * 1024  # bytes that are written at a time
_GREEN, _DIM, _PLAIN = "\x1b[32m", "\x1b[2m", "\x1b[0m"
_TO_LINE_START = "\r\x1b[K"  # and forget what stood on the line


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def release_stdout() -> None:
    """Flush stdout; when nobody reads it, keep the interpreter from complaining about that at its exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def describe(evt: bws.CloseEvent | None) -> str:
    """A close event in words."""
    if evt is None:
        return "no answer"
    cause = f" ({evt.error})" if evt.error is not None else ""
    return f"{evt.code} {evt.reason}".rstrip() + cause


class Output:
    """The two output streams.

    Args:
        format: How messages are shown.
        jsonl: Whether events are printed as lines of JSON, and messages only so.
        interactive: Whether a person types at a prompt; then lines have a time and colour.

    Attributes:
        failure: Why nothing can be written to stdout any more.
        told_end: Whether a person has been told how the connection ended.
        prompt: What a plain prompt has printed at the start of the last line.
        pace: Called with the size of what has been written to a terminal that takes it later.
    """

    def __init__(self, format: Format, *, jsonl: bool = False, interactive: bool = False) -> None:
        self.failure: OSError | None = None
        self.told_end = False
        self.prompt = ""
        self._format = format
        self._jsonl = jsonl
        self._interactive = interactive
        self._terminal = is_terminal(sys.stdout)
        # A bare Windows console shows escape sequences instead of obeying them.
        dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        self._obeys = interactive and not dumb and os.name != "nt"
        self._colour = self._obeys and not os.environ.get("NO_COLOR")
        self._was_open = False
        self.pace: Callable[[int], None] | None = None
        self._lock = threading.Lock()  # a line is written whole
        self._bytes = bytearray()  # for a pipe; see flush()

    def message(self, message: str | bytes) -> None:
        """Show a message of the peer."""
        if self._jsonl:
            if isinstance(message, str):
                self._json("message", data=message)
            else:
                name = "hex" if self._format.name == "hex" else "base64"
                self._json("message", **{name: message.hex() if name == "hex" else _base64(message)})
            return
        if not self._terminal:
            self._write(self._format.line(message) + "\n")
            return
        shown = "\n".join(map(escaped, self._format.lines(message)))
        if self._interactive:
            if len(shown) > LONGEST:
                shown = f"{shown[:LONGEST]}... ({len(shown):,} characters)"
            size = "" if isinstance(message, str) else f"<{len(message):,} bytes> "
            shown = f"{self._now()} {self._painted('<', _GREEN)} {size}{shown}"
        self._write(shown + "\n")

    def flush(self) -> None:
        """What went into a pipe so far is to be read at its other end now."""
        with self._lock:
            self._flush()

    def opened(self, ws: bws.WebSocket) -> None:
        """Tell that the connection is open."""
        self._was_open = True
        if self._jsonl:
            self._json("open", url=without_password(ws.url), protocol=ws.protocol, extensions=ws.extensions)
        elif self._interactive:
            protocol = f", subprotocol {ws.protocol}" if ws.protocol else ""
            self.note(f"connected to {without_password(ws.url)}{protocol}; /help lists the commands")

    def failed(self, evt: bws.DOMEvent) -> None:
        """Tell of an ``error`` event."""
        if self._jsonl:
            self._json("error", message=evt.message)

    def closed(self, evt: bws.CloseEvent) -> None:
        """Tell of the end; of one without a beginning only as JSON."""
        if self._jsonl:
            self._json("close", code=evt.code, reason=evt.reason, wasClean=evt.wasClean)
        elif self._interactive and self._was_open:
            self.note(f"closed{'' if evt.wasClean else ' abnormally'}: {describe(evt)}")
            self.told_end = True

    def note(self, text: str) -> None:
        """Say something that is no message; the peer's words in it are escaped."""
        if self._interactive and not self._jsonl:
            self._write(f"{self._now()} {self._painted(f'* {escaped(text)}', _DIM)}\n")
        elif sys.stderr is not None:
            with suppress(OSError, ValueError):  # there is nowhere else to say it
                print(f"bws: {escaped(text)}", file=sys.stderr, flush=True)

    def start_prompt(self, prompt: str) -> None:
        """Print a plain prompt, now and after everything that comes between."""
        self.prompt = prompt
        self._write("")

    def end(self, *, wait: bool = True) -> None:
        """Leave a clean line after a plain prompt, and write what is not written yet.

        Args:
            wait: Whether to wait for another thread that is writing.
        """
        if self.prompt:
            self.prompt = ""
            self._write(_TO_LINE_START if self._obeys else "\n")
        while not (locked := self._lock.acquire(timeout=0.1)) and wait:
            pass  # in slices, so that Ctrl-C is heard on Windows, too
        if locked:
            try:
                self._flush()
            finally:
                self._lock.release()
        release_stdout()

    # --- below, one line of output ---

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text

    def _now(self) -> str:
        return self._painted(time.strftime("%H:%M:%S"), _DIM)

    def _json(self, type: str, **facts: Any) -> None:
        # Everything but ASCII is escaped, so that it is safe on a terminal too.
        self._write(json.dumps({"type": type, "time": round(time.time(), 6), **facts}) + "\n")

    def _write(self, text: str) -> None:
        with self._lock:
            if self.failure is not None or sys.stdout is None:
                return
            if self.prompt:
                text = f"{_TO_LINE_START if self._obeys else text and chr(10)}{text}{self.prompt}"
            if not self._terminal and _raw(sys.stdout) is not None:
                # Binary, because a pipe is UTF-8 with bare line feeds wherever the program runs.
                self._bytes += text.encode("utf-8", "replace")
                if len(self._bytes) >= _PIECE:
                    self._flush()
                return
            try:
                encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
                sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
                sys.stdout.flush()
            except OSError as error:
                self.failure = error
        if self.pace is not None:
            self.pace(len(text))

    def _flush(self) -> None:
        """Write what waits, below Python's buffer: a thread that waits inside it keeps the interpreter from ending."""
        waiting, self._bytes = self._bytes, bytearray()
        if not waiting or self.failure is not None or sys.stdout is None:
            return
        raw = _raw(sys.stdout)
        rest = memoryview(waiting)
        try:
            while rest:
                taken = raw.write(rest[:_PIECE])
                if taken is None:
                    select.select([], [raw], [])  # somebody has made it non-blocking
                else:
                    rest = rest[taken:]
        except OSError as error:
            self.failure = error


def _raw(stream: Any) -> Any:
    """What is below the buffer of a text stream; None when there is nothing."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _base64(message: bytes) -> str:
    return base64.b64encode(message).decode("ascii")
