"""The browser's object (https://websockets.spec.whatwg.org/#the-websocket-interface)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from ssl import SSLContext
from time import monotonic, perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _lifetime, _rules
from ._constant import Constant
from ._delivery import Direct, Dispatch, Dispatched
from ._engine import supported, threaded_engine
from ._engine.interface import CloseFrame, Item, Opened, Pong
from ._handler import one_argument
from ._rules import TEXT, payload_of
from ._settings import CLOSE_TIMEOUT, MAX_SIZE, OPEN_TIMEOUT, check_wait
from ._state import CLOSED, CLOSING, CONNECTING, OPEN, Ending, Fact, Verdict, judge, step
from ._system import Condition
from ._target import EventTarget
from ._text import brief, without_password
from .errors import InvalidStateError
from .events import CloseEvent, DOMEvent, MessageEvent

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["WebSocket"]

BINARY_TYPES = ("blob", "arraybuffer")
MAX_PING = 125  # bytes: the payload of a control frame, RFC 6455 section 5.5
_TIDY = 0.1  # s
_NAMES = {CONNECTING: "CONNECTING", OPEN: "OPEN", CLOSING: "CLOSING", CLOSED: "CLOSED"}

_W = TypeVar("_W", bound="WebSocket")

log = logging.getLogger("bws")
_new = object.__new__


class WebSocket(EventTarget):
    """The browser's WebSocket: connects at once, and calls handlers on its own daemon thread, or by `dispatch`.

    Every method may be called from any thread, handlers included.

    Args:
        url: ``ws://`` or ``wss://`` (``http(s)://`` becomes ``ws(s)://``), without a fragment. A user and password
            in it become Basic authorization *(bws extension)*.
        protocols: The subprotocols to ask for, in order of preference.
        dispatch: *(bws extension)* Where handlers run: a callable that takes a zero-argument callable and has it
            run, first in first out, on a thread of your choice; `bws.dispatch` has some, such as
            ``bws.dispatch.tk(root)``.
        headers: *(bws extension)* More header fields of the request; values are Latin-1.
        origin: *(bws extension)* The Origin header; the server's own origin by default, ``''`` leaves it out.
        cookie: *(bws extension)* The Cookie header, such as ``'a=1; b=2'``.
        ssl: *(bws extension)* The TLS context; by default certificates are verified against the system's store.
        proxy: *(bws extension)* True for the environment's proxy, None for no proxy, or a URL
            (``http://user:password@host:port``, ``https://...``, ``socks5h://...``).
        open_timeout: *(bws extension)* Seconds from here to ``open``, or None.
        close_timeout: *(bws extension)* Seconds that the peer has to answer `close`, or None.
        ping_interval: *(bws extension)* Seconds between pings that keep the connection alive, or None.
        ping_timeout: *(bws extension)* Seconds after a ping in which something must arrive, or None.
        max_size: *(bws extension)* Bytes of one message, after decompression, or None.
        compression: *(bws extension)* Whether to offer permessage-deflate.
        user_agent: *(bws extension)* The User-Agent header; ``''`` leaves it out.

    Raises:
        DOMSyntaxError: The URL or a subprotocol is not acceptable.
        TypeError: An argument has the wrong type.
        ValueError: An option has a wrong value.
        NotImplementedError: websocket-client is not installed (`bws.supported` is False).

    A failure of the network is never raised here: it is an ``error`` and a ``close`` event (code 1006).
    """

    __slots__ = (
        "__dict__", "__weakref__", "_aborted", "_binary_type", "_changed", "_close_done", "_delivery", "_dropped",
        "_engine", "_extensions", "_farewell", "_fired", "_muted", "_open_done", "_open_fired", "_over", "_protocol",
        "_quiet", "_refused", "_settings", "_state", "_verdict",
    )  # fmt: skip

    CONNECTING = Constant(CONNECTING)
    OPEN = Constant(OPEN)
    CLOSING = Constant(CLOSING)
    CLOSED = Constant(CLOSED)

    def __init__(
        self,
        url: str,
        protocols: str | Iterable[str] | None = None,
        *,
        # where handlers run
        dispatch: Dispatch | None = None,
        # the request
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        origin: str | None = None,
        cookie: str | None = None,
        user_agent: str | None = None,
        # the way there
        ssl: SSLContext | None = None,
        proxy: bool | str | None = True,
        # times, in seconds
        open_timeout: float | None = OPEN_TIMEOUT,
        close_timeout: float | None = CLOSE_TIMEOUT,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        # messages
        max_size: int | None = MAX_SIZE,
        compression: bool = True,
    ) -> None:
        if not supported:
            raise NotImplementedError(
                "bws needs the package websocket-client, which is missing or hidden by another module named "
                "'websocket'; run: pip install 'websocket-client>=1.9.1'"
            )
        settings = _rules.check_settings(
            url, protocols, headers=headers, origin=origin, cookie=cookie, user_agent=user_agent, ssl=ssl, proxy=proxy,
            open_timeout=open_timeout, close_timeout=close_timeout, ping_interval=ping_interval,
            ping_timeout=ping_timeout, max_size=max_size, compression=compression,
        )  # fmt: skip
        run = _rules.check_dispatch(dispatch)
        super().__init__()
        self._settings = settings
        self._changed: Condition | None = None  # said of _open_done and _close_done, once somebody waits
        self._open_done = self._close_done = False
        self._state = CONNECTING
        self._aborted = False  # close() was called while CONNECTING
        self._quiet = False  # close() was called: no message is delivered any more
        self._muted = False  # no handler is called any more: the interpreter exits, or the loop is gone
        self._over = False  # the engine delivers nothing more
        self._verdict: Verdict | None = None
        # What has been fired: Ctrl-C may come in between, and what is left is done again.
        self._open_fired = False
        self._fired = 0  # of the last events
        self._protocol = self._extensions = ""
        self._binary_type = BINARY_TYPES[0]
        self._farewell: tuple[int | None, bytes] | None = None  # what close() was called with first
        self._refused = False  # a message was sent while OPEN, and yet too late
        self._dropped = 0  # payload bytes that came too late to be sent
        self._delivery = Direct(self) if run is None else Dispatched(self, run)
        self._engine = threaded_engine(settings, self._delivery)
        try:
            self._delivery.attach()
            _lifetime.add(self)
            self._engine.start()
        except BaseException:
            _lifetime.discard(self)
            self._engine.give_up()
            raise

    # -- attributes -------------------------------------------------------------------------------

    @property
    def readyState(self) -> int:
        """0 CONNECTING, 1 OPEN, 2 CLOSING or 3 CLOSED; it changes where handlers run, and in `close`."""
        return self._state

    @property
    def url(self) -> str:
        """The serialized URL."""
        return self._settings.address.href

    @property
    def protocol(self) -> str:
        """The subprotocol that the server chose, or ''."""
        return self._protocol

    @property
    def extensions(self) -> str:
        """The extensions that were agreed, or ''."""
        return self._extensions

    @property
    def bufferedAmount(self) -> int:
        """Payload bytes that `send` took and the operating system has not; dropped ones stay in it."""
        return self._engine.buffered() + self._dropped

    @property
    def binaryType(self) -> str:
        """``'blob'`` or ``'arraybuffer'``, for code from the browser; binary messages are ``bytes`` with both."""
        return self._binary_type

    @binaryType.setter
    def binaryType(self, value: str) -> None:
        # An unknown value of an enumeration is ignored (Web IDL).
        if isinstance(value, str) and value in BINARY_TYPES:
            self._binary_type = value

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError("a WebSocket cannot be copied or pickled: there is one connection")

    def _log(self, message: str, *args: object) -> None:
        if log.isEnabledFor(logging.INFO):
            log.info("%s: " + message, repr(self), *args)  # the repr of now: a record may be formatted later

    def __repr__(self) -> str:
        return f"<WebSocket {without_password(self.url)} {_NAMES[self._state]}>"

    # -- methods ----------------------------------------------------------------------------------

    def send(self, data: str | ReadableBuffer) -> None:
        """Send one message; never blocks (https://websockets.spec.whatwg.org/#dom-websocket-send).

        What the operating system does not take at once is queued, and counted in `bufferedAmount`.

        Args:
            data: ``str`` for a text message (lone surrogates become U+FFFD), any C-contiguous buffer for a binary
                one. It may be changed when this returns.

        Raises:
            InvalidStateError: It is still CONNECTING.
            TypeError: `data` is something else; nothing is converted to text.
        """
        payload: bytes | memoryview | str
        if type(data) is str and data.isascii():  # payload_of() in short
            opcode, payload = TEXT, data
        else:
            opcode, payload = payload_of(data)
        state = self._state
        if state == OPEN:
            send = self._engine.send  # an attribute: Python looks for a method first where it is called in one go
            if not send(opcode, payload):
                if self._quiet or self._state != OPEN:
                    # Another thread, or a signal handler, has called close() in between; or it ended.
                    self._drop(payload)
                else:
                    # The network is ahead of the handlers: the peer's close frame is in, or the connection lost, and
                    # `close` on its way. As in Chromium this does not show in bufferedAmount; flush() tells.
                    self._refused = True
        elif state == CONNECTING:
            raise InvalidStateError("send() before open: wait for the 'open' event, or call wait_open() first")
        else:
            self._drop(payload)

    def _drop(self, payload: bytes | memoryview | str) -> None:
        # "Increase the bufferedAmount attribute by the size": nothing is sent once the closing has begun.
        with self._lock:
            self._dropped += len(payload)

    def ping(
        self, payload: bytes | bytearray | memoryview = b"", callback: Callable[[float], object] | None = None
    ) -> None:
        """Send a ping frame (RFC 6455 section 5.5.2) *(bws extension)*; never blocks.

        Args:
            payload: At most 125 bytes.
            callback: Gets the round-trip time in seconds when the pong is in, where handlers run.

        Raises:
            InvalidStateError: It is still CONNECTING.
            TypeError: `payload` is not bytes-like, or `callback` cannot be called with the seconds or nothing.
            ValueError: `payload` is too long.
        """
        if isinstance(payload, str):
            raise TypeError(f"payload must be bytes-like, not str {brief(payload)}; use payload.encode()")
        data = bytes(_rules.buffer_of("payload", payload))
        if len(data) > MAX_PING:
            raise ValueError(f"payload {brief(data)} has {len(data)} bytes; a ping takes at most {MAX_PING}")
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a callable that takes seconds, or None; not {brief(callback)}")
        call = None if callback is None else one_argument(callback, "callback", "seconds")
        if self._state == CONNECTING:
            raise InvalidStateError("ping() before open: wait for the 'open' event, or call wait_open() first")
        if self._state == OPEN:
            self._engine.ping(data, call)

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Begin to close; never blocks (https://websockets.spec.whatwg.org/#dom-websocket-close).

        Queued messages go out first; no message is delivered any more. While CONNECTING the attempt is given up.
        A second call changes nothing.

        Args:
            code: 1000 or 3000-4999; None for an empty close frame.
            reason: At most 123 bytes of UTF-8; needs a code.

        Raises:
            InvalidAccessError: The code is out of range or no int, or missing before a reason.
            DOMSyntaxError: The reason is too long.
            TypeError: An argument has the wrong type; a code that is no int is both this and an InvalidAccessError.
        """
        self._close(*_rules.check_close(code, reason))

    def _close(self, code: int | None, reason: bytes) -> None:
        try:
            self._begin_closing(code, reason)
        except BaseException:
            # A signal handler raised, as Ctrl-C does. It is not left half done; the engine does it once only.
            self._begin_closing(code, reason)
            raise

    def _begin_closing(self, code: int | None, reason: bytes) -> None:
        with self._lock:
            before = self._step(Fact.CLOSE_CALLED)
            if before != CLOSED:
                self._quiet = True
                self._only = None
                self._aborted = self._aborted or before == CONNECTING
                if self._farewell is None:
                    self._farewell = code, reason  # also when another thread comes to the engine first
                self._drop_held_messages()
        if before < CLOSING:
            self._log("close() was called")
        # While CLOSING as well: a signal handler that raised (Ctrl-C) may have ended the first call before it came to
        # this, and the engine does it once only.
        if self._aborted:
            # 3.2 "Fail the WebSocket connection and set this's ready state to CLOSING."
            self._engine.abort()
        elif before != CLOSED:
            # 3.3 "Start the WebSocket closing handshake and set this's ready state to CLOSING."
            self._engine.close(*(self._farewell or (code, reason)))

    def _step(self, fact: Fact) -> int:
        """With the lock held: go on to the next state; the one before."""
        while True:
            before = self._state
            after = step(before, fact)
            # A signal handler of this very thread may have come in during that call, and closed.
            if self._state == before:
                self._state = after
                return before

    # -- waiting (bws extensions) -----------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until `bufferedAmount` is 0 *(bws extension)*; Ctrl-C interrupts it.

        Args:
            timeout: Seconds, 0 to only look, or None to wait for as long as the connection lasts.

        Returns:
            False when the time is up, or the connection ended with something unsent; also at once in a signal
            handler that has interrupted `send`, which has to go on first.

        Raises:
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not finite.
        """
        limit = check_wait("timeout", timeout)
        return self._engine.flush(limit) and self.bufferedAmount == 0 and not self._refused

    def wait_open(self, timeout: float | None = None) -> bool:
        """Wait until the ``open`` handlers have been called *(bws extension)*; Ctrl-C interrupts it.

        Args:
            timeout: Seconds, 0 to only look, or None for no limit: with `dispatch` it waits for as long as nobody
                runs the loop behind that, whatever `open_timeout` says of the connection.

        Returns:
            False when the time is up, or the connection could not be made.

        Raises:
            RuntimeError: Called on the thread that runs the handlers, where it would wait for ever.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not finite.
        """
        limit = check_wait("timeout", timeout)
        self._refuse_on_handler_thread("wait_open")
        return self._wait(self._open_paid, limit) and self._open_done

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the ``close`` handlers have returned *(bws extension)*; Ctrl-C interrupts it.

        Args:
            timeout: Seconds, 0 to only look, or None for no limit.

        Returns:
            False when the time is up, or at once in a signal handler that has interrupted `send`, or another method
            that was using the connection: that has to go on first.

        Raises:
            RuntimeError: Called on the thread that runs the handlers, where it would wait for ever.
            TypeError: `timeout` is not a number.
            ValueError: `timeout` is negative or not finite.
        """
        limit = check_wait("timeout", timeout)
        self._refuse_on_handler_thread("wait_closed")
        closed = self._wait(lambda: self._close_done and self._paid(), limit)
        if closed and limit != 0:
            self._engine.tidy(_TIDY)  # who has waited finds no thread any more
        return closed

    def __enter__(self: _W) -> _W:
        """Wait for ``open``.

        Raises:
            ConnectionError: The connection could not be made; its ``__cause__`` is the real one.
        """
        try:
            limit = self._settings.open_timeout
            opened = self.wait_open(None if limit is None else limit + 1)
            if self._open_fired and not opened:
                # Its handlers take long, whatever the connection needed.
                opened = self.wait_open() if self._verdict is None else self._open_done
        except BaseException:
            self.close()  # Ctrl-C, or the wrong thread: nothing is left behind
            raise
        if not opened:
            self.close()
            if self._verdict is None:
                raise ConnectionError(
                    f"no connection to {without_password(self.url)}: the 'open' event was not delivered in time; "
                    "does the loop behind dispatch run, and on another thread than this one?"
                )
            cause = self._verdict.error
            if (failure := self._delivery.failure) is not None:
                raise ConnectionError(f"no connection to {without_password(self.url)}: dispatch raised") from failure
            raise ConnectionError(f"no connection to {without_password(self.url)}: {cause}") from cause
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close, and wait until it is closed, unless handlers run on this thread.

        At most `close_timeout` and a second: where much is queued and goes out slowly, it may go on behind the block.
        """
        self.close()
        if not self._delivery.on_thread():
            limit = self._settings.close_timeout
            self.wait_closed(None if limit is None else limit + 1)

    def _wait(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        end = None if timeout is None else monotonic() + timeout
        while True:
            look = self._delivery.look()
            with self._lock:
                if self._engine.interrupted():
                    return predicate()  # the connection goes on when the signal handler has returned
                if self._changed is None:
                    self._changed = Condition(self._lock)
                left = None if end is None else max(0.0, end - monotonic())
                limit = min((each for each in (left, look) if each is not None), default=None)
                if self._changed.wait_for(predicate, limit):
                    return True
            if end is not None and monotonic() >= end:
                return False

    def _paid(self) -> bool:
        """Whether handlers that were bound late have got what was held for them; a look without the lock."""
        return not self._flush or self._muted

    def _open_paid(self) -> bool:
        """Whether the ``open`` handlers have been called, also one that was bound late, or none will be."""
        if self._open_done:
            return self._muted or "open" not in self._flushes
        return self._close_done and self._paid()

    def _notify(self) -> None:
        """With the lock held."""
        if self._changed is not None:
            self._changed.notify_all()

    def _refuse_on_handler_thread(self, method: str) -> None:
        if not (self._close_done and self._paid()) and self._delivery.on_thread():
            raise RuntimeError(
                f"{method}() was called on the thread that runs this socket's handlers, so what it waits for "
                "could not happen; bind an 'open' or 'close' handler instead"
            )

    # -- facts become events (runs where handlers run) --------------------------------------------

    def _take(self, items: Iterable[Item]) -> None:
        """Deliver what the engine reported, in wire order.

        Raises:
            BaseException: A handler let out SystemExit or the like, and runs on a thread that is not ours; all of
                `items` are delivered before.
        """
        if self._state == CLOSED:
            return  # in the child of a fork
        stamp = perf_counter() * 1000  # the messages up to the next slow step arrived together
        leaving: BaseException | None = None
        for item in items:
            kind = item.__class__
            try:
                if kind is str or kind is bytes:
                    only = self._only
                    if only is not None:
                        event = _new(MessageEvent)
                        event.data = item
                        event._target = self
                        event._time_stamp = stamp
                        self._now = event
                        only(event)
                    elif not self._quiet:
                        self._fire(MessageEvent("message", item))
                        stamp = perf_counter() * 1000
                else:
                    self._now = None
                    self._note(item)
                    stamp = perf_counter() * 1000
            except BaseException as exc:
                # Of a message's only handler, or to be raised where the program's own loop is.
                if self._handler_raised(exc):
                    if leaving is not None:
                        self._report(leaving)  # one can go on its way
                    leaving = exc
                if (isinstance(item, Ending) and not self._close_done) or (
                    isinstance(item, Opened) and not self._open_done
                ):
                    self._note(item)  # Ctrl-C came in between: what is left of it
        self._now = None
        if self._flush and not self._over:  # from then on another thread may be delivering
            self._deliver_held()
        if leaving is not None:
            raise leaving

    def _note(self, fact: Opened | CloseFrame | Ending | Pong) -> None:
        """Deliver what is not a message."""
        if self._state == CLOSED and self._close_done:
            return  # a handler has forked, and this is the child
        if isinstance(fact, Opened):
            self._opened(fact)
        elif isinstance(fact, Ending):
            self._ended(fact)
        elif isinstance(fact, CloseFrame):
            # "When the WebSocket closing handshake is started ... set ready state to CLOSING."
            with self._lock:
                before = self._step(Fact.CLOSE_FRAME)
            if before == OPEN:
                self._log("the server's close frame is in")
        elif not self._muted:
            fact.callback(fact.seconds)

    def _opened(self, fact: Opened) -> None:
        """https://websockets.spec.whatwg.org/#feedback-from-the-protocol, "established"."""
        with self._lock:
            # OPEN: it has come as far as that before
            before = CONNECTING if self._state == OPEN else self._step(Fact.OPENED)
            if before == CONNECTING:
                self._extensions, self._protocol = fact.extensions, fact.protocol
        if before == CONNECTING:
            self._log("protocol %r, extensions %r", fact.protocol, fact.extensions)
            event = DOMEvent("open")
            try:
                first, self._open_fired = not self._open_fired, True
                if first:
                    self._fire(event)
            finally:
                with self._lock:
                    self._open_done = True
                    self._notify()

    def _ended(self, ending: Ending) -> None:
        """https://websockets.spec.whatwg.org/#feedback-from-the-protocol, "closed"."""
        with self._lock:
            verdict = judge(ending, aborted=self._aborted)
            if self._state != CLOSED:
                self._step(Fact.ENDED)
            self._verdict = verdict
        events: list[DOMEvent] = []
        if verdict.fires_error:
            events.append(DOMEvent("error", error=verdict.error))
        events.append(CloseEvent("close", verdict.code, verdict.reason, verdict.was_clean, error=verdict.error))
        try:
            self._log("code %d, reason %r, %s", verdict.code, verdict.reason, verdict.error or "clean")
            self._fire_last(events)
        finally:  # Ctrl-C may come anywhere, and other threads wait for this
            try:
                self._fire_last(events)
            finally:
                try:
                    self._settle()
                except BaseException:
                    if not self._over:
                        self._settle()
                    raise

    def _fire_last(self, events: list[DOMEvent]) -> None:
        """Fire those of `events` that have not been before, whatever a handler lets out."""
        while self._fired < len(events):
            event = events[self._fired]
            self._fired += 1
            try:
                self._fire(event)
            except BaseException:
                self._fire_last(events)
                raise

    def _settle(self) -> None:
        """The last event is delivered; what a handler bound later is owed is delivered by somebody else."""
        leaving: BaseException | None = None
        while True:
            try:
                if self._flush:
                    self._deliver_held()
            except BaseException as exc:
                leaving = exc  # the next ones come all the same
            with self._lock:
                if not self._flush or self._muted:
                    self._over = self._close_done = True
                    self._notify()
                    break
        _lifetime.discard(self)
        if leaving is not None:
            raise leaving

    def _fire(self, event: DOMEvent) -> None:
        if not self._muted:
            super()._fire(event)

    def _deliver_held(self) -> None:
        if not self._muted:
            super()._deliver_held()

    def _takes_messages(self) -> bool:
        return not (self._quiet or self._muted)

    def _origin(self) -> str:
        return self._settings.address.origin

    def _wanted(self, event: DOMEvent) -> bool:
        return not self._muted and not (self._quiet and isinstance(event, MessageEvent))

    def _wake_handlers(self) -> None:
        self._delivery.wake_handlers(self._over)

    def _report(self, exc: BaseException) -> None:
        self._delivery.raised(exc)

    def _handler_raised(self, exc: BaseException) -> bool:
        direct = isinstance(self._delivery, Direct) and self._delivery.on_thread()
        if not isinstance(exc, Exception) and not direct:
            return True  # SystemExit and the like go where the program's own loop sends them
        if isinstance(exc, SystemExit):
            self._leave()  # a handler ends its socket as it would end a thread of its own
        else:
            self._delivery.raised(exc)
        return False

    # -- endings that the browser has when a page goes away ---------------------------------------

    def _leave(self) -> None:
        """Close with 1001, "going away"."""
        self._close(1001, b"")

    def _abandon(self) -> None:
        """No handler is called any more."""
        with self._lock:
            self._muted = True
            self._only = None
            self._notify()
            self._flushes.clear()
            self._flush = False  # what waits for this to become false, to deliver something else, would wait for ever
        self._leave()

    def _leave_at_exit(self) -> None:
        self._abandon()

    def _join_at_exit(self, timeout: float) -> None:
        if not self._engine.join(timeout):
            self._engine.abort()

    def _forget_after_fork(self) -> None:
        # Another thread of the parent may have held the locks when it forked; here there is no other thread.
        self._lock = threading.RLock()
        self._changed = None
        self._delivery.forget()
        self._muted = self._over = self._close_done = True
        self._only = None
        self._state = CLOSED
        self._engine.forget()
