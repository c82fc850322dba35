"""A recorder of a socket's events, for tests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ._checks import SHOWN_ITEMS, brief, check_timeout

if TYPE_CHECKING:
    from bws import CloseEvent, DOMEvent, WebSocket

__all__ = ["Record", "record"]

DEFAULT_TIMEOUT = 5.0  # s
_TYPES = ("open", "message", "error", "close")


class Record:
    """The events of one socket in the order in which its handlers were called; made by ``record(ws)``.

    May be read from any thread.
    """

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._changed = threading.Condition()  # guards the list; notified after each event
        self._events: list[tuple[str, DOMEvent]] = []

    def __repr__(self) -> str:
        return f"<Record {self._story()}>"

    @property
    def events(self) -> list[tuple[str, DOMEvent]]:
        """All events so far, as ``(type, event)``."""
        with self._changed:
            return list(self._events)

    @property
    def types(self) -> list[str]:
        """The types of all events so far, such as ``['open', 'message', 'close']``."""
        return [type_ for type_, _ in self.events]

    @property
    def messages(self) -> list[Any]:
        """The data of all messages so far."""
        return [_data(event) for event in self._of("message")]

    @property
    def close_event(self) -> CloseEvent | None:
        """The close event, or None while there was none."""
        closes: list[Any] = self._of("close")
        return closes[0] if closes else None

    def wait_for(self, type: str, n: int = 1, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Wait until there have been ``n`` events of a type.

        It does not wait on when the close event has come, since nothing follows that one. Call it from another
        thread than the one the handlers run on; with a ``bws.dispatch.Queue`` use its ``run_until`` first.

        Args:
            type: ``'open'``, ``'message'``, ``'error'`` or ``'close'``.
            n: How many of them, counted from the first one of the socket; at least 1.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The event: the n-th one of its type.

        Raises:
            AssertionError: They did not come in time; it says what came instead.
            RuntimeError: They have not come yet, and this is the thread that runs the handlers: while it waits none
                can come.
            ValueError: There is no such type, or ``n`` or the time is none.
        """
        if type not in _TYPES:
            raise ValueError(f"type must be one of {', '.join(_TYPES)}, not {type!r}")
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"n must be an int, not {n!r}")
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n!r}: events are counted from the first one")
        limit = check_timeout(timeout)
        if len(self._of(type)) < n:
            self._refuse_on_handler_thread()
        with self._changed:
            self._changed.wait_for(lambda: len(self._of(type)) >= n or self._of("close"), limit)
            found = self._of(type)
            if len(found) >= n:
                return found[n - 1]
            when = "before the socket closed" if self._of("close") else f"within {limit:g} s"
        missing = f"{len(found)} of {n} {type!r} events" if n != 1 else f"no {type!r} event"
        raise AssertionError(f"{missing} {when}; what came: {self._story()}")

    def _refuse_on_handler_thread(self) -> None:
        try:
            self._ws.wait_closed(0)  # which only looks
        except RuntimeError as error:
            raise RuntimeError(
                "wait_for() would wait for ever on the thread that runs the handlers; what came: "
                f"{self._story()}. With bws.dispatch.Queue call its run_until(lambda: seen.messages, timeout) here"
            ) from error

    def _of(self, type: str) -> list[DOMEvent]:
        with self._changed:
            return [event for type_, event in self._events if type_ == type]

    def _add(self, event: DOMEvent) -> None:
        with self._changed:
            self._events.append((event.type, event))
            self._changed.notify_all()

    def _story(self) -> str:
        events = self.events
        shown = [_brief(event, after_error="error" in self.types) for _, event in events[-SHOWN_ITEMS:]]
        if len(events) > len(shown):
            shown.insert(0, f"{len(events) - len(shown)} more")
        return ", ".join(shown) or "nothing"


def record(ws: WebSocket) -> Record:
    """Attach a recorder to the four events of a socket.

    ::

        seen = record(ws)
        ws.send("hello")
        assert seen.wait_for("message").data == "hello"

    It uses ``ws.bind``, so events that were held since the constructor are recorded too.

    Args:
        ws: The socket.

    Returns:
        What it has recorded, and goes on to record.

    Raises:
        TypeError: It is no socket.
    """
    if not callable(getattr(ws, "bind", None)):
        raise TypeError(f"ws must be a bws.WebSocket, not {brief(repr(ws))}")
    seen = Record(ws)
    for type_ in _TYPES:
        ws.bind(type_, seen._add)
    return seen


def _data(event: Any) -> Any:
    return event.data


def _brief(event: Any, *, after_error: bool) -> str:
    """``message('hello')``, ``close(1006, '')``; why a connection failed is told once, and whole."""
    if event.type == "message":
        return brief(f"message({event.data!r})")
    if event.type == "error":
        return f"error({getattr(event, 'message', '') or ''})"
    if event.type == "close":
        cause = "" if after_error or event.error is None else f", {event.error}"
        return f"close({event.code}, {event.reason!r}{cause})"
    return str(event.type)
