"""One connection of the program: what was sent, what came, and when it is done."""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import bws

from ._format import without_password
from ._options import Options
from ._output import Output, describe

CLEAN, NOT_CONNECTED, USAGE, ABNORMAL, UNMET, INTERRUPTED = 0, 1, 2, 3, 4, 130

HIGH_WATER = 1 << 20  # bytes that may wait to be sent before the next message is read
LOOK_AFTER = 1 << 16  # characters, or bytes of a binary message, after which that is looked at
SILENCE = 1.0  # s after which nothing more is expected of a server of unknown ways
PATIENCE = 10.0  # s for what has to come
GOOD_ENDS = (1000, 1001, 1005)  # close codes of a server that has just finished
_LOOK = 0.2  # s between two looks at what nobody tells us; on Windows, Ctrl-C is one
_LONGEST = 1.0  # s of one wait: where Ctrl-C comes just when one begins, CPython hears of it only afterwards


class Bell:
    """Wakes those who wait for a change.

    As `threading.Condition`, but in C where it counts: in that one, Ctrl-C may leave a lock held, or not held.
    """

    def __init__(self) -> None:
        self._waiting: list[SimpleQueue[None]] = []

    def ring(self) -> None:
        """Have all that wait look again."""
        for waiter in self._waiting.copy():
            if waiter.empty():
                waiter.put(None)

    def wait_for(self, predicate: Callable[[], bool], look: Callable[[], float]) -> None:
        """Wait until `predicate` is true: it is looked at when the bell rings, and after at most `look()` seconds."""
        waiter: SimpleQueue[None] = SimpleQueue()
        self._waiting.append(waiter)
        try:
            while not predicate():
                with suppress(Empty):
                    waiter.get(timeout=min(look(), _LONGEST))
        finally:
            self._waiting.remove(waiter)


class Session:
    """One connection.

    Its methods may be called from any thread.

    Args:
        url: The server.
        options: The command line.
        output: Where messages and events are told.
        answers: Whether the server is known to answer each message with one.
        interactive: Whether a person says when it is over.

    Raises:
        ValueError: The URL or an option is refused by ``bws.WebSocket``; TypeError likewise.
        NotImplementedError: websocket-client is not installed.
    """

    def __init__(self, url: str, options: Options, output: Output, *, answers: bool, interactive: bool) -> None:
        self.output = output
        self.options = options
        self._answers = answers and not interactive
        must_come = self._answers or options.has_goal or options.latency
        self._patience = options.wait or (PATIENCE if must_come else SILENCE)

        self._changed = Bell()  # rung after each change that somebody may wait for
        self._lock = threading.Lock()  # guards all that follows
        self._expected = deque(options.format.read(text) for text in options.expect)
        self._sent = 0
        self._received = 0
        self._news = time.monotonic()  # when something last happened that brings the end nearer
        self._unsent = 0  # bufferedAmount at the last look
        self._input_over = False
        self._stopped = False  # a person has had enough
        self._fault = False  # the input is wrong
        self._dropped = False  # something could not be sent any more
        self._done = False  # nothing more is shown
        self._close_called = False
        self._failure = ""
        self._closed: bws.CloseEvent | None = None
        self._sent_at: deque[float] = deque()
        self._latencies = array("d")

        # Characters or bytes sent since bufferedAmount was looked at; only the thread that sends has it.
        self._unchecked = 0

        def at_once(deliver: Callable[[], None]) -> None:
            """Show what has arrived together in one piece."""
            deliver()
            output.flush()
            if output.failure is not None:
                self.stop()

        self.ws = bws.WebSocket(url, options.subprotocols or None, dispatch=at_once, **options.websocket)
        self.ws.bind("open", lambda: output.opened(self.ws))
        self.ws.bind("message", self._on_message)
        self.ws.bind("error", self._on_error)
        self.ws.bind("close", self._on_close)

    # --- events ---

    def _on_message(self, evt: Any) -> None:
        now = time.perf_counter() if self.options.latency else 0.0
        if self._done:
            return
        self.output.message(evt.data)  # a slow reader of it holds up the server, and no memory
        with self._lock:
            self._received += 1
            if self._sent_at:
                self._latencies.append(now - self._sent_at.popleft())
            if self._expected and self.options.format.same(evt.data, self._expected[0]):
                self._expected.popleft()
                self._news = time.monotonic()
            elif not self._expected or self.options.count is not None:
                self._news = time.monotonic()
            self._done = self._enough() or self.output.failure is not None
            # Whoever waits is not woken for every message; silence it looks for itself.
            rings = self._done or self.options.latency or (self._input_over and self._received >= self._sent)
        if rings:
            self._changed.ring()

    def _on_error(self, evt: Any) -> None:
        self._failure = evt.message
        self.output.failed(evt)

    def _on_close(self, evt: Any) -> None:
        self.output.closed(evt)
        with self._lock:
            self._closed = evt
        self._changed.ring()

    # --- for the thread that reads the input ---

    def feed(self, texts: Iterable[str]) -> None:
        """Send the messages that lines of input stand for, as fast as they are taken; then the input is over."""
        for number, text in enumerate(texts, 1):
            try:
                message = self.options.format.read(text)
            except ValueError as error:
                self.output.note(f"input line {number}: {error}")
                with self._lock:
                    self._fault = True
                break
            if not self.send(message):
                break
        with self._lock:
            self._input_over = True
            self._news = time.monotonic()
        self._changed.ring()

    def send(self, message: str | bytes) -> bool:
        """Send one message, and wait while much is unsent; with ``--latency`` until its reply is there.

        Returns:
            False when it is no use to go on.
        """
        with self._lock:
            if self._done or self._stopped:
                return False
            if self.ws.readyState != self.ws.OPEN:
                self._dropped = True
                return False
            self._sent += 1
            number = self._sent
            self._news = time.monotonic()
            if self.options.latency:
                self._sent_at.append(time.perf_counter())
        self.ws.send(message)
        self._unchecked += len(message)
        if self._unchecked >= LOOK_AFTER:
            self._unchecked = 0
            self._wait_for_the_peer()
        return not self.options.latency or self._replied_to(number)

    def _wait_for_the_peer(self) -> None:
        while self.ws.bufferedAmount > HIGH_WATER and self.ws.readyState == self.ws.OPEN:
            self.ws.flush(_LOOK)

    def _replied_to(self, number: int) -> bool:
        end = time.monotonic() + self._patience

        def over() -> bool:
            with self._lock:
                return self._received >= number or self._ended() or time.monotonic() >= end

        self._changed.wait_for(over, lambda: max(0.0, end - time.monotonic()))
        with self._lock:
            return self._received >= number and not self._done

    # --- for the main thread ---

    def connect(self) -> bool:
        """Wait for the connection; tells why when there is none."""
        if self.ws.wait_open():
            return True
        self.ws.wait_closed(PATIENCE)  # its handlers have something to say
        self.output.note(f"cannot connect to {without_password(self.ws.url)}: {self._failure or 'closed'}")
        return False

    def stop(self) -> None:
        """A person has had enough."""
        with self._lock:
            self._stopped = self._input_over = True
        self._changed.ring()

    def wait(self) -> None:
        """Wait until it is over: closed, done, nothing more to come, or no use."""
        self._changed.wait_for(self._over, self._next_look)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin to close.

        Raises:
            ValueError: The code or the reason is not allowed.
        """
        with self._lock:
            self._close_called = self._closed is None  # before the close event of this very close can come
        try:
            self.ws.close(code, reason)
        except ValueError:
            self._close_called = False
            raise
        with self._lock:
            self._done = True
        self._changed.ring()

    def finish(self, reader: threading.Thread | None) -> int:
        """Close, and judge.

        Args:
            reader: The thread that feeds; what it has at hand counts as unsent when the server has closed.

        Returns:
            The exit status.
        """
        if self._closed is None:
            self.close()
            self.ws.wait_closed()
        elif reader is not None:
            reader.join(_LOOK)
        if self.options.latency:
            self.output.note(statistics(self._latencies))
        return self._verdict()

    def _over(self) -> bool:
        with self._lock:
            if self._ended() or self.output.failure is not None:
                return True
            if not self._input_over:
                return False
            in_turn = self._answers or self.options.latency
            if in_turn and not self.options.has_goal and self._received >= self._sent:
                return True
            unsent = self.ws.bufferedAmount
            if unsent < self._unsent:
                self._news = time.monotonic()
            self._unsent = unsent
            return time.monotonic() >= self._news + self._patience

    def _next_look(self) -> float:
        look = _LOOK if os.name == "nt" or self._unsent else math.inf
        with self._lock:
            return min(look, max(0.0, self._news + self._patience - time.monotonic())) if self._input_over else look

    # --- below, the lock is held, or nothing changes any more ---

    def _counted(self) -> bool:
        """Whether as many messages have come as ``--count`` says."""
        return self.options.count is not None and self._received >= self.options.count

    def _enough(self) -> bool:
        """Whether ``--count`` ends it, or ``--expect`` where there is no ``--count``."""
        if self.options.count is not None:
            return self._counted()
        return bool(self.options.expect) and not self._expected

    def _ended(self) -> bool:
        return self._closed is not None or self._done or self._stopped or self._fault

    def _verdict(self) -> int:
        closed, failure = self._closed, self.output.failure
        if self._fault:
            return USAGE
        if failure is not None:
            if isinstance(failure, BrokenPipeError) or (os.name == "nt" and failure.errno == errno.EINVAL):
                return CLEAN  # whoever read the output has enough
            self.output.note(f"cannot write the output: {failure.strerror or failure}")
            return NOT_CONNECTED
        unmet = self._unmet()
        ended_here = self._close_called or self._enough()
        if closed is None or not closed.wasClean or not (ended_here or closed.code in GOOD_ENDS):
            if unmet and ended_here:
                self.output.note(unmet)
                return UNMET
            if not self.output.told_end:
                self.output.note(f"closed abnormally: {describe(closed)}")
            return ABNORMAL
        if unmet:
            self.output.note(
                unmet if ended_here or self.output.told_end else f"{unmet}; the server closed: {describe(closed)}"
            )
            return UNMET
        if not self._close_called and (self._dropped or self.ws.bufferedAmount):
            self.output.note(f"the server closed before all was sent: {describe(closed)}")
            return ABNORMAL
        return CLEAN

    def _unmet(self) -> str:
        """What was to come and did not."""
        if self._expected:
            missing = f"{self.options.format.line(self._expected[0])!r} did not come"
            return f"{missing} within --count {self.options.count}" if self._counted() else f"timed out: {missing}"
        if self._enough():
            return ""
        if self.options.count is not None:
            return f"timed out: {self._received} of {self.options.count} messages came"
        if (self._answers or self.options.latency) and self._received < self._sent:
            return f"timed out: {self._received} replies to {self._sent} messages came"
        return ""


def start(thread: threading.Thread) -> None:
    """Start it; where Ctrl-C cuts that in two, Python may say that a lock is missing, which it has let go of."""
    try:
        thread.start()
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def statistics(seconds: array[float]) -> str:
    """Count, min, median, p95, p99 and max of round-trip times."""
    if not seconds:
        return "latency: no replies"
    ordered = sorted(seconds)

    def rank(share: float) -> str:
        return f"{ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000:.3f}"

    names = {"min": 0.0, "median": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return f"latency: count {len(ordered)}, " + ", ".join(f"{name} {rank(at)} ms" for name, at in names.items())
