"""What handlers receive: facts about one event (https://dom.spec.whatwg.org/#event)."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from ._constant import Constant
from ._text import brief

if TYPE_CHECKING:
    from ._websocket import WebSocket

__all__ = ["CloseEvent", "DOMEvent", "MessageEvent"]

# The events that `dispatchEvent` is dispatching, by id, each in a list of its own. One that Ctrl-C has left in here is
# kept, so that no other gets its id.
DISPATCHING: dict[int, list[DOMEvent]] = {}


class DOMEvent:
    """One event, as a handler receives it; the ``open`` and ``error`` events are plain ones.

    Its attributes cannot be set, so that no handler changes what the next one sees; you may add others of your own.

    Args:
        type: What `dispatchEvent` calls the handlers of.
        bubbles: What `bubbles` says; there is no tree to bubble through.
        cancelable: Whether `preventDefault` has an effect.
        composed: What `composed` says; there is no shadow tree.
        error: *(bws extension)* What `error` says.
    """

    # What every message event sets has a slot; what is mostly the default is an attribute of the class.
    __slots__ = ("__dict__", "_target", "_time_stamp")

    #: `eventPhase` before and after.
    NONE = Constant(0)
    #: Never, as there is no tree.
    CAPTURING_PHASE = Constant(1)
    #: `eventPhase` while handlers are called.
    AT_TARGET = Constant(2)
    #: Never, as there is no tree.
    BUBBLING_PHASE = Constant(3)

    _type: str = ""
    _target: WebSocket | Any  # None until it is dispatched, which no handler has to ask for
    _time_stamp: float
    _error: BaseException | None = None
    _bubbles = _cancelable = _composed = False
    _canceled = False
    _stopped = False  # that no further handler is called,
    _stopped_before = False  # or none at all, as it was said before the dispatch; until that is over
    _by_program = False  # dispatched by `dispatchEvent`

    def __init__(
        self,
        type: str,
        *,
        bubbles: bool = False,
        cancelable: bool = False,
        composed: bool = False,
        error: BaseException | None = None,
    ) -> None:
        if not isinstance(type, str):
            raise TypeError(f"type must be a str such as 'message', not {brief(type)}")
        self._type = type
        self._target = None
        self._time_stamp = perf_counter() * 1000
        if bubbles:
            self._bubbles = True
        if cancelable:
            self._cancelable = True
        if composed:
            self._composed = True
        if error is not None:
            self._error = error

    @property
    def type(self) -> str:
        """``'open'``, ``'error'``, ``'message'``, ``'close'``, or a name of your own for ``dispatchEvent``."""
        return self._type

    @property
    def target(self) -> WebSocket | Any:
        """The ``WebSocket`` it happened to; None until it is dispatched."""
        return self._target

    @property
    def currentTarget(self) -> WebSocket | Any:
        """`target` while its handlers are called, as there is no tree to bubble through; None before and after."""
        return self._target if self._under_way() else None

    @property
    def timeStamp(self) -> float:
        """Milliseconds from an arbitrary start that does not jump."""
        return self._time_stamp

    @property
    def eventPhase(self) -> int:
        """2 (`AT_TARGET`) while its handlers are called, 0 (`NONE`) before and after."""
        return self.AT_TARGET if self._under_way() else self.NONE

    @property
    def bubbles(self) -> bool:
        """False, unless it was made otherwise."""
        return self._bubbles

    @property
    def cancelable(self) -> bool:
        """False, unless it was made otherwise; what comes from the network cannot be prevented."""
        return self._cancelable

    @property
    def composed(self) -> bool:
        """False, unless it was made otherwise."""
        return self._composed

    @property
    def defaultPrevented(self) -> bool:
        """Whether `preventDefault` had an effect."""
        return self._canceled

    @property
    def isTrusted(self) -> bool:
        """Whether the connection dispatched it, and not the program by ``dispatchEvent``."""
        return self._target is not None and not self._by_program

    def composedPath(self) -> list[WebSocket | Any]:
        """``[currentTarget]`` while its handlers are called, else ``[]``."""
        return [self._target] if self._under_way() else []

    def preventDefault(self) -> None:
        """Have ``dispatchEvent`` return False, if the event was made with ``cancelable=True``; else nothing happens."""
        if self._cancelable:
            self._canceled = True

    def stopPropagation(self) -> None:
        """Before the event is dispatched, have no handler called; in a handler nothing happens, as there is no tree."""
        if not self._under_way():
            self._stopped_before = True

    def stopImmediatePropagation(self) -> None:
        """Have no handler called any more in this dispatch of the event, or in the next one."""
        self.stopPropagation()
        self._stopped = True

    def _under_way(self) -> bool:
        """Whether its handlers are being called."""
        target = getattr(self, "_target", None)  # a program's class may have left out our __init__()
        return id(self) in DISPATCHING or (target is not None and target._now is self)

    @property
    def error(self) -> BaseException | None:
        """*(bws extension)* On ``error`` and on an unclean ``close``, the exception with the real cause; else None."""
        return self._error

    @property
    def message(self) -> str:
        """*(bws extension)* The `error` as one line, ``''`` without one."""
        return "" if self.error is None else str(self.error) or type(self.error).__name__

    def _facts(self) -> str:
        return "" if self.error is None else f" error={self.error!r}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.type!r}{self._facts()}>"


class MessageEvent(DOMEvent):
    """A message from the server (https://html.spec.whatwg.org/#messageevent).

    Args:
        type: As that of a `DOMEvent`, which has `bubbles`, `cancelable` and `composed` too.
        data: What `data` says.
        origin: What `origin` says; None for that of the target's URL.
        lastEventId: What `lastEventId` says.

    Attributes:
        data: ``str`` for a text message, ``bytes`` for a binary one. It alone can be set, as guarding it would take
            a tenth of a small message's time.
    """

    __slots__ = ("data",)

    _type: str = "message"
    data: Any
    _last_event_id: str = ""
    _given_origin: str | None = None

    def __init__(
        self,
        type: str = "message",
        data: Any = None,
        origin: str | None = None,
        lastEventId: str = "",
        *,
        bubbles: bool = False,
        cancelable: bool = False,
        composed: bool = False,
    ) -> None:
        super().__init__(type, bubbles=bubbles, cancelable=cancelable, composed=composed)
        self.data = data
        if origin is not None:
            self._given_origin = origin
        if lastEventId:
            self._last_event_id = lastEventId

    @property
    def origin(self) -> str:
        """That of the target's URL, such as ``'wss://example.com'``, unless the event was made with another."""
        return self._given_origin or ("" if self._target is None else self._target._origin())

    @property
    def lastEventId(self) -> str:
        """Always ``''`` on a WebSocket."""
        return self._last_event_id

    @property
    def source(self) -> None:
        """None on a WebSocket."""

    @property
    def ports(self) -> tuple[()]:
        """Empty on a WebSocket."""
        return ()

    def _facts(self) -> str:
        return f" data={brief(self.data)}"


class CloseEvent(DOMEvent):
    """The end of the connection (https://websockets.spec.whatwg.org/#the-closeevent-interface).

    Args:
        type: As that of a `DOMEvent`, which has `bubbles`, `cancelable`, `composed` and `error` too.
        code: What `code` says.
        reason: What `reason` says.
        wasClean: What `wasClean` says.
    """

    __slots__ = ("_code", "_reason", "_was_clean")

    _type: str = "close"
    _code: int
    _reason: str
    _was_clean: bool

    def __init__(
        self,
        type: str = "close",
        code: int = 0,
        reason: str = "",
        wasClean: bool = False,
        *,
        bubbles: bool = False,
        cancelable: bool = False,
        composed: bool = False,
        error: BaseException | None = None,
    ) -> None:
        super().__init__(type, bubbles=bubbles, cancelable=cancelable, composed=composed, error=error)
        self._code = code
        self._reason = reason
        self._was_clean = wasClean

    @property
    def code(self) -> int:
        """The peer's close code; 1005 when its close frame was empty, 1006 when there was none."""
        return self._code

    @property
    def reason(self) -> str:
        """The peer's reason, at most 123 bytes of UTF-8."""
        return self._reason

    @property
    def wasClean(self) -> bool:
        """Whether the closing handshake was done."""
        return self._was_clean

    def _facts(self) -> str:
        return f" code={self.code} reason={self.reason!r} wasClean={self.wasClean}{super()._facts()}"
