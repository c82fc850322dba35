"""What handlers receive: facts about one event (https://dom.spec.whatwg.org/#event)."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from ._text import brief

if TYPE_CHECKING:
    from ._websocket import WebSocket

__all__ = ["CloseEvent", "DOMEvent", "MessageEvent"]


class DOMEvent:
    """One event, as a handler receives it; the ``open`` and ``error`` events are plain ones.

    Attributes:
        type: ``'open'``, ``'error'``, ``'message'``, ``'close'``, or a name of your own for ``dispatchEvent``.
        target: The ``WebSocket`` it happened to (None until it is dispatched).
        currentTarget: The same object: there is no tree to bubble through.
        timeStamp: Milliseconds, as a float, from an arbitrary start that does not jump.
        error: *(bws extension)* on ``error`` events and on an unclean ``close``, the exception with the real cause,
            otherwise None.
        message: *(bws extension)* the `error` as one line, '' without one.
    """

    # What every message event sets has a slot; what is mostly the default is an attribute of the class.
    __slots__ = ("__dict__", "target", "timeStamp")

    type: str = ""
    target: WebSocket | Any  # None until it is dispatched, which no handler has to ask for
    timeStamp: float
    error: BaseException | None = None

    def __init__(self, type: str, *, error: BaseException | None = None) -> None:
        if not isinstance(type, str):
            raise TypeError(f"type must be a str such as 'message', not {brief(type)}")
        self.type = type
        self.target = None
        self.timeStamp = perf_counter() * 1000
        if error is not None:
            self.error = error

    @property
    def currentTarget(self) -> WebSocket | None:
        """The same object as `target`."""
        return self.target

    @property
    def message(self) -> str:
        """The cause as one line."""
        return "" if self.error is None else str(self.error) or type(self.error).__name__

    def _facts(self) -> str:
        return "" if self.error is None else f" error={self.error!r}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.type!r}{self._facts()}>"


class MessageEvent(DOMEvent):
    """A message from the server (https://html.spec.whatwg.org/#messageevent).

    Attributes:
        data: ``str`` for a text message, ``bytes`` for a binary one.
        origin: Scheme, host and port of the server, such as ``'wss://example.com'``.
        lastEventId: Always ``''`` on a WebSocket.
    """

    __slots__ = ("data",)

    type: str = "message"
    data: Any
    lastEventId: str = ""

    def __init__(
        self, type: str = "message", data: Any = None, origin: str | None = None, lastEventId: str = ""
    ) -> None:
        super().__init__(type)
        self.data = data
        if origin is not None:
            self.origin = origin
        if lastEventId:
            self.lastEventId = lastEventId

    @property
    def origin(self) -> str:
        """That of the target's URL, unless the event was made with another."""
        own: str = self.__dict__.get("_origin", "")
        return own or ("" if self.target is None else self.target._origin())

    @origin.setter
    def origin(self, value: str) -> None:
        self._origin = value

    def _facts(self) -> str:
        return f" data={brief(self.data)}"


class CloseEvent(DOMEvent):
    """The end of the connection (https://websockets.spec.whatwg.org/#the-closeevent-interface).

    Attributes:
        code: The peer's close code; 1005 when its close frame was empty, 1006 when there was none.
        reason: The peer's reason, at most 123 bytes of UTF-8.
        wasClean: Whether the closing handshake was done.
        error: *(bws extension)* the exception with the real cause of an unclean close, otherwise None.
    """

    __slots__ = ("code", "reason", "wasClean")

    type: str = "close"
    code: int
    reason: str
    wasClean: bool

    def __init__(
        self,
        type: str = "close",
        code: int = 0,
        reason: str = "",
        wasClean: bool = False,
        *,
        error: BaseException | None = None,
    ) -> None:
        super().__init__(type, error=error)
        self.code = code
        self.reason = reason
        self.wasClean = wasClean

    def _facts(self) -> str:
        return f" code={self.code} reason={self.reason!r} wasClean={self.wasClean}{super()._facts()}"
