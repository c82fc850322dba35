"""Handlers and the events that wait for them (https://dom.spec.whatwg.org/#interface-eventtarget)."""

from __future__ import annotations

import functools
import logging
import threading
import types
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast, overload

from ._handler import Handler, one_argument
from ._text import brief
from .errors import InvalidStateError
from .events import DISPATCHING, CloseEvent, DOMEvent, MessageEvent

__all__ = ["EVENTS", "EventTarget", "Handler"]

EVENTS = ("open", "error", "message", "close")
HELD_MESSAGES = 1_000
HELD_BYTES = 16 * 1024 * 1024


class _Missing:
    def __repr__(self) -> str:
        return "..."


_MISSING: Any = _Missing()

_H = TypeVar("_H", bound=Handler)
_Plain = TypeVar("_Plain", bound=Callable[[DOMEvent], object] | Callable[[], object])
_Message = TypeVar("_Message", bound=Callable[[MessageEvent], object] | Callable[[], object])
_Close = TypeVar("_Close", bound=Callable[[CloseEvent], object] | Callable[[], object])

log = logging.getLogger("bws")


class Listener:
    """One registration of one handler."""

    __slots__ = ("added", "call", "fn", "once", "removed")

    def __init__(self, fn: Handler, *, once: bool = False, added: bool = False) -> None:
        self.fn = fn
        self.call = one_argument(fn)
        self.once = once
        self.added = added  # by addEventListener, which adds the same function only once
        self.removed = False


class _On:
    """The attribute ``on<type>`` (https://html.spec.whatwg.org/#event-handler-idl-attributes)."""

    def __init__(self, type: str) -> None:
        self.type = type
        self.__doc__ = f"The handler set as ``on{type}``, or None; it runs beside the bound ones."

    @overload
    def __get__(self, target: None, owner: type) -> _On: ...
    @overload
    def __get__(self, target: EventTarget, owner: type) -> Handler | None: ...

    def __get__(self, target: EventTarget | None, owner: type) -> _On | Handler | None:
        if target is None:
            return self
        listener = target._attributes.get(self.type)
        return None if listener is None else listener.fn

    def __set__(self, target: EventTarget, fn: Handler | None) -> None:
        target._set_attribute(self.type, fn)

    def __delete__(self, target: EventTarget) -> None:
        raise AttributeError(f"on{self.type} cannot be deleted; set ws.on{self.type} = None to remove the handler")


def _once_is_a_keyword(add: _H) -> _H:
    """Have `addEventListener` refuse the options object of JavaScript with the fix; its signature stays."""

    @functools.wraps(add)
    def checked(self: EventTarget, *args: Any, **options: Any) -> object:
        if len(args) > 2:
            raise TypeError(
                "addEventListener() takes a type, a listener and the keyword once=True; not options such as "
                f"{brief(args[2])}"
            )
        return add(self, *args, **options)

    return cast("_H", checked)


def _dispatched(key: int, mine: list[DOMEvent]) -> None:
    """Note that the event is not being dispatched any more, if it was I who did."""
    if DISPATCHING.get(key) is mine:
        del DISPATCHING[key]


class EventTarget:
    """Binding and unbinding of handlers, delivery, and the events that are held for a first handler."""

    __slots__ = (
        "_attributes",
        "_flush",
        "_flushes",
        "_held",
        "_held_bytes",
        "_listeners",
        "_lock",
        "_now",
        "_only",
        "_warned",
    )

    onopen = _On("open")
    onerror = _On("error")
    onmessage = _On("message")
    onclose = _On("close")

    def __init__(self) -> None:
        # Guards the handlers, what is held, and (in the subclass) the state. Never held while a handler runs.
        # Reentrant, as a signal handler may come in while its own thread holds it.
        self._lock = threading.RLock()
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._attributes: dict[str, Listener] = {}
        # Events of a type are held until its first handler; a type that is missing here has had one.
        self._held: dict[str, list[DOMEvent]] = {type: [] for type in EVENTS}
        self._held_bytes = 0
        self._flushes: list[str] = []  # types whose held events are to be delivered, in order of binding
        self._flush = False  # whether there are any: one look instead of a lock
        # The single handler of messages, when a message needs nothing but to be handed to it: one look per message.
        self._only: Callable[[Any], object] | None = None
        self._now: DOMEvent | None = None  # the event of the network that handlers are being called with
        self._warned = False

    # -- binding ----------------------------------------------------------------------------------

    @overload
    def bind(self, event: Literal["open", "error"], fn: _Plain) -> None: ...
    @overload
    def bind(self, event: Literal["message"], fn: _Message) -> None: ...
    @overload
    def bind(self, event: Literal["close"], fn: _Close) -> None: ...
    @overload
    def bind(self, event: str, fn: _Plain) -> None: ...
    @overload
    def bind(self, event: Literal["open", "error"]) -> Callable[[_Plain], _Plain]: ...
    @overload
    def bind(self, event: Literal["message"]) -> Callable[[_Message], _Message]: ...
    @overload
    def bind(self, event: Literal["close"]) -> Callable[[_Close], _Close]: ...
    @overload
    def bind(self, event: str) -> Callable[[_Plain], _Plain]: ...

    def bind(self, event: str, fn: Any = _MISSING) -> Any:
        """Call `fn` at each event of this type; ``@ws.bind(event)`` works as a decorator *(bws extension)*.

        Handlers are called in the order in which they were bound, the same one twice if bound twice. `fn`
        gets the event if it accepts one positional argument, otherwise it is called without *(bws extension)*.
        Events that happened before the first handler of their type was bound are delivered to it
        *(bws extension)*. May be called from any thread.

        Args:
            event: ``'open'``, ``'error'``, ``'message'`` or ``'close'``.
            fn: The handler; without it, a decorator is returned.

        Returns:
            None, or the decorator, which returns the function it is given.

        Raises:
            ValueError: There is no such event.
            TypeError: `fn` is not callable, or needs more than one argument.
        """
        self._known(event, '@ws.bind("message")' if fn is _MISSING else 'ws.bind("message", handler)')
        if fn is not _MISSING:
            self._add(event, Listener(fn))
            return None

        def decorator(function: _H) -> _H:
            self._add(event, Listener(function))
            return function

        return decorator

    def unbind(self, event: str, *fns: Handler) -> None:
        """Remove handlers, however they were bound. May be called from any thread.

        Args:
            event: ``'open'``, ``'error'``, ``'message'`` or ``'close'``.
            fns: The functions to remove, each as often as it is bound; without any, all of the event's
                handlers are removed. One that is not bound is no error.

        Raises:
            ValueError: There is no such event.
        """
        self._known(event, 'ws.unbind("message", handler)')
        self._remove(event, lambda listener: not fns or any(same(listener.fn, fn) for fn in fns))

    @_once_is_a_keyword
    def addEventListener(self, type: str, listener: Handler, *, once: bool = False) -> None:
        """Call `listener` at each event of this type (https://dom.spec.whatwg.org/#dom-eventtarget-addeventlistener).

        The same function is added only once. May be called from any thread.

        Args:
            type: Any event type, also one of your own for `dispatchEvent`.
            listener: The handler; it may take the event or nothing *(bws extension)*.
            once: Whether it is removed when it is called.

        Raises:
            TypeError: `type` is not a str, `listener` cannot be called with the event or nothing, or `once` is not a
                bool.
        """
        _check_type(type)
        if not isinstance(once, bool):
            raise TypeError(f"once must be True or False, not {brief(once)}")
        self._add(type, Listener(listener, once=once, added=True))

    def removeEventListener(self, type: str, listener: Handler) -> None:
        """Remove one registration of `listener`; one that is not there is no error.

        What was set as ``on<type>`` stays, as in the browser.
        See https://dom.spec.whatwg.org/#dom-eventtarget-removeeventlistener. May be called from any thread.

        Args:
            type: The event type.
            listener: The function given to `addEventListener` or `bind`.

        Raises:
            TypeError: `type` is not a str.
        """
        _check_type(type)
        found: list[Listener] = []

        def first(candidate: Listener) -> bool:
            if not found and same(candidate.fn, listener) and candidate is not self._attributes.get(type):
                found.append(candidate)
            return candidate in found

        self._remove(type, first)

    def dispatchEvent(self, event: DOMEvent) -> bool:
        """Call the handlers of `event` now, on the calling thread; the connection and its state stay as they are.

        See https://dom.spec.whatwg.org/#dom-eventtarget-dispatchevent.

        Args:
            event: A `DOMEvent` (or subclass) of any type.

        Returns:
            False when a handler has called ``preventDefault()`` of an event that was made with ``cancelable=True``.

        Raises:
            TypeError: It is not a `DOMEvent`.
            InvalidStateError: It is being dispatched: its handlers have not all returned.
        """
        if not isinstance(event, DOMEvent):
            raise TypeError(f"event must be a bws.DOMEvent such as DOMEvent('ready'), not {brief(event)}")
        key, mine = id(event), [event]
        try:
            if event._under_way() or DISPATCHING.setdefault(key, mine) is not mine:
                raise InvalidStateError(f"the {event.type!r} event is being dispatched already; make a new one")
            event._by_program = True
            listeners = () if event._stopped_before else self._listeners.get(event.type, ())
            event._stopped_before = event._stopped = False
            self._call(listeners, event)
        finally:
            try:
                _dispatched(key, mine)
            finally:
                _dispatched(key, mine)  # Ctrl-C may have come in the first
        return not event.defaultPrevented

    def _known(self, event: str, usage: str) -> None:
        if event in EVENTS:
            return
        fix = ""
        if isinstance(event, str):
            # as in the browser's attributes, and as other clients call their handlers
            meant = event.strip().lower().removeprefix("on").lstrip("_")
            if meant in EVENTS:
                fix = f"; did you mean {meant!r}?"
        elif callable(event):
            fix = f", as in {usage}"
        raise ValueError(f"event {brief(event)} is unknown; expected 'open', 'error', 'message' or 'close'{fix}")

    def _set_attribute(self, type: str, fn: Handler | None) -> None:
        new = None if fn is None else Listener(fn)
        with self._lock:
            old = self._attributes.get(type)
            listeners = self._listeners.get(type, ())
            if new is None:
                # "Deactivate an event handler": the next function that is set comes last.
                self._attributes.pop(type, None)
                listeners = tuple(listener for listener in listeners if listener is not old)
                if old is not None:
                    old.removed = True
            elif old is None:
                self._attributes[type] = new
                listeners = (*listeners, new)
            else:
                # It keeps its place, and an event that is being delivered gets to the function of that moment.
                old.fn, old.call = new.fn, new.call
            wake = new is not None and self._flag_held(type)
            self._publish(type, listeners, first=new is not None)
        if wake:
            self._wake_handlers()

    def _add(self, type: str, new: Listener) -> None:
        with self._lock:
            listeners = self._listeners.get(type, ())
            if new.added and any(old.added and same(old.fn, new.fn) for old in listeners):
                return
            # The flag goes up before the handler shows: who sees the handler also sees the flag, and
            # delivers what is held before anything newer.
            wake = self._flag_held(type)
            self._publish(type, (*listeners, new), first=True)
        if wake:
            self._wake_handlers()

    def _remove(self, type: str, which: Callable[[Listener], bool]) -> None:
        with self._lock:
            kept = []
            for listener in self._listeners.get(type, ()):
                if which(listener):
                    listener.removed = True
                    if self._attributes.get(type) is listener:
                        del self._attributes[type]
                else:
                    kept.append(listener)
            self._publish(type, tuple(kept))

    def _take_away(self, type: str, listener: Listener) -> bool:
        """Remove this one; False if another thread has done so."""
        with self._lock:
            there = not listener.removed
            self._remove(type, lambda other: other is listener)
        return there

    def _publish(self, type: str, listeners: tuple[Listener, ...], first: bool = False) -> None:
        """With the lock held: these are the handlers from now on; `first`: one of them may be the first ever."""
        self._listeners[type] = listeners
        if first and not self._held.get(type, True):
            # Nothing is held, and from now on nothing needs to be: who sees that also sees the handler.
            del self._held[type]
        self._look_for_only()

    def _look_for_only(self) -> None:
        """With the lock held: see `_only`."""
        listeners = self._listeners.get("message", ())
        plain = len(listeners) == 1 and not listeners[0].once and not self._flush and "message" not in self._held
        self._only = listeners[0].call if plain and self._takes_messages() else None

    # -- delivery ---------------------------------------------------------------------------------

    def _call(self, listeners: tuple[Listener, ...], event: DOMEvent) -> None:
        """Call each of `listeners` that has not been removed meanwhile."""
        event._target = self
        leaving: BaseException | None = None
        for listener in listeners:
            if listener.removed:
                continue
            if event._stopped:
                break
            if listener.once and not self._take_away(event.type, listener):
                continue
            try:
                listener.call(event)
            except BaseException as exc:
                if self._handler_raised(exc):
                    if leaving is not None:
                        self._report(leaving)  # one can go on its way
                    leaving = exc
        if event._stopped:
            event._stopped = False
        if leaving is not None:
            raise leaving

    def _fire(self, event: DOMEvent) -> None:
        """Deliver `event` to its handlers, or hold it for the first one. Runs where handlers run."""
        while event.type in self._held:
            with self._lock:
                held = self._held.get(event.type)
                if held is not None and not self._flush:
                    held.append(event)
                    if self._held.get(event.type) is held:
                        overflow = self._held_one_more(held, event)
                        break
                    continue  # this thread's signal handler has come in before that, and bound the first handler
            self._deliver_held()
        else:
            listeners = self._listeners.get(event.type, ())
            if self._flush:
                self._deliver_held()
            self._deliver(listeners, event)
            return
        if overflow:  # said without the lock: a logging handler may do anything
            log.warning(
                "messages came before a 'message' handler was bound; the newest %d (at most %d MiB) are held",
                HELD_MESSAGES,
                HELD_BYTES >> 20,
            )

    def _deliver(self, listeners: tuple[Listener, ...], event: DOMEvent) -> None:
        """Deliver an event of the network, unless a handler before it has destroyed the window, say."""
        if self._wanted(event):
            self._now = event
            try:
                self._call(listeners, event)
            finally:
                self._now = None

    def _held_one_more(self, held: list[DOMEvent], event: DOMEvent) -> bool:
        """With the lock held: keep the bounds; whether messages had to go for the first time."""
        overflow = False
        if isinstance(event, MessageEvent):
            self._held_bytes += _size(event.data)
            while len(held) > HELD_MESSAGES or self._held_bytes > HELD_BYTES:
                self._held_bytes -= _size(held.pop(0).data)  # type: ignore[attr-defined]
                overflow = True
        first, self._warned = overflow and not self._warned, self._warned or overflow
        return first

    def _flag_held(self, type: str) -> bool:
        """With the lock held: `type` gets a handler; whether something is held that has to be delivered to it."""
        if not self._held.get(type):
            return False
        if type not in self._flushes:
            self._flushes.append(type)
            self._flush = True
            self._only = None
        return True

    def _deliver_held(self) -> None:
        """Deliver what was held for handlers that are bound now. Runs where handlers run."""
        while True:
            with self._lock:
                if not self._flushes:
                    self._flush = False
                    self._look_for_only()
                    self._notify()
                    return
                type = self._flushes[0]
                held = self._held.get(type)
                listeners = self._listeners.get(type, ())
                if held is None or not held or not listeners:
                    # All is delivered, or its handler is gone again before it ran: then the rest stays held.
                    if held is not None and not held:
                        del self._held[type]
                    self._flushes.pop(0)
                    self._notify()
                    continue
                event = held.pop(0)
                if isinstance(event, MessageEvent):
                    self._held_bytes -= _size(event.data)
            self._deliver(listeners, event)

    def _holds_messages(self) -> bool:
        """Whether messages are held that may yet get a handler; a look without the lock."""
        return bool(self._held.get("message"))

    def _drop_held_messages(self) -> None:
        """With the lock held: the program called close()."""
        held = self._held.get("message")
        if held is not None:
            held.clear()
        self._held_bytes = 0

    def _origin(self) -> str:
        """What message events carry."""
        raise NotImplementedError

    def _notify(self) -> None:
        """With the lock held: of some type nothing that was held is to be delivered any more."""
        raise NotImplementedError

    def _takes_messages(self) -> bool:
        """Whether messages are delivered."""
        raise NotImplementedError

    def _wanted(self, event: DOMEvent) -> bool:
        """Whether `event` is still to be delivered, after handlers have run that were owed others."""
        raise NotImplementedError

    def _wake_handlers(self) -> None:
        """Have `_deliver_held` called where handlers run."""
        raise NotImplementedError

    def _report(self, exc: BaseException) -> None:
        """Report what a handler let out."""
        raise NotImplementedError

    def _handler_raised(self, exc: BaseException) -> bool:
        """Report what a handler let out, or say that it must be raised when all handlers have been called."""
        raise NotImplementedError


_METHODS = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)


def same(a: Handler, b: Handler) -> bool:
    """Whether two handlers are one: by identity, but for methods, which are made anew at each access."""
    return a is b or (isinstance(a, _METHODS) and isinstance(b, _METHODS) and bool(a == b))


def _size(data: str | bytes) -> int:
    """Bytes of a message as it came."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())


def _check_type(type: str) -> None:
    if not isinstance(type, str):
        raise TypeError(f"type must be a str such as 'message', not {brief(type)}")
