"""All that differs between operating systems and between versions of Python, and what a fork has to know."""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import select
import socket
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from itertools import starmap
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import inspect

__all__ = [
    "KEEPALIVE",
    "LONG_TEXT",
    "Condition",
    "Lock",
    "Poller",
    "Waker",
    "acknowledge_now",
    "acknowledged",
    "ascii_bytes",
    "capped",
    "close_descriptor",
    "forget_at_fork",
    "held_here",
    "importing",
    "keep_freed_memory",
    "processors",
    "proxy_asks_dns",
    "proxy_possible",
    "runs_later",
    "signature_of",
    "socket_error",
    "stop_pacing",
]

WINDOWS = sys.platform == "win32"
_LONGEST = 3600.0  # s: one wait; a longer one is a loop of these, so that no OS limit is reached
_LONGEST_SLICE = 60.0  # s: see Condition.wait_for
_SLICE = 0.05  # s: how long Ctrl-C may take where waiting for a lock cannot be interrupted, or just begins


def _keepalive() -> list[tuple[int, int, int]]:
    """Socket options that end a half-open connection in about a minute and a half (30 s + 6 x 10 s)."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # macOS calls the first one TCP_KEEPALIVE; Windows has all three since Windows 10 1709.
    for names, value in (
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 30),
        (("TCP_KEEPINTVL",), 10),
        (("TCP_KEEPCNT",), 6),
    ):
        for name in names:
            if hasattr(socket, name):
                options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
                break
    return options


KEEPALIVE = _keepalive()


def stop_pacing(sock: socket.socket) -> bool:
    """Have Linux send at once what goes to a server on this machine.

    BBR, where that is the system's congestion control, spreads what is sent over time. Between two ends of one machine
    that takes a timer for each write, several times as long as the write itself, and there is no network to spare.

    Returns:
        Whether it was so, and what the server sends is spread, too, as far as one can tell.
    """
    option = getattr(socket, "TCP_CONGESTION", None)
    here, there = sock.getsockname()[0], sock.getpeername()[0]
    if option is None or not (here == there or (here.startswith("127.") and there.startswith("127."))):
        return False
    paced = sock.getsockopt(socket.IPPROTO_TCP, option, 16).startswith(b"bbr")
    if paced:
        sock.setsockopt(socket.IPPROTO_TCP, option, b"reno")  # every Linux has it
    return paced


def acknowledge_now(sock: socket.socket) -> None:
    """Have Linux acknowledge what was read at once, and not with the next segment.

    On the loopback interface a segment has up to 64 KiB, so every other read would wait for that; and BBR at the other
    end paces what it sends by what it hears. The option does not last: it is for what was read just now.
    """
    with contextlib.suppress(AttributeError, OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def capped(seconds: float) -> float:
    """`seconds` as every OS takes them in one wait; who waits looks again afterwards."""
    return max(0.0, min(seconds, _LONGEST))


def socket_error(code: int) -> OSError:
    """The exception for what SO_ERROR says."""
    if sys.platform == "win32":
        import ctypes

        return ctypes.WinError(code)
    return OSError(code, os.strerror(code))


def processors() -> int:
    """How many this thread may use, and those that it starts; 1 where the system does not tell."""
    with contextlib.suppress(OSError):
        if sys.version_info >= (3, 13):
            return os.process_cpu_count() or 1
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1


class Waker:
    """Something to poll that another thread, or this one, can make readable."""

    __slots__ = ("_lock", "_read", "_set", "_write", "error")

    def __init__(self) -> None:
        # Guards the descriptors against being closed, and given to somebody else, while they are written to.
        # A signal handler may come in while its own thread holds it, and do no harm: hence an RLock.
        self._lock = threading.RLock()
        self._set = False
        self._read: int | socket.socket = -1
        self._write: int | socket.socket = -1
        self.error: OSError | None = None  # why there is none: no descriptor was left
        try:
            self._open()
        except OSError as exc:
            self.error = exc

    def _open(self) -> None:
        if hasattr(os, "eventfd"):  # Linux: one descriptor instead of two
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = socket.socketpair()
            self._read.setblocking(False)
            self._write.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to poll, -1 when closed."""
        return self._read if isinstance(self._read, int) else self._read.fileno()

    def wake(self) -> None:
        """Make it readable. May be called from any thread, also after `close`."""
        with self._lock:
            if self._set or self.fileno() < 0:
                return
            if isinstance(self._write, int):
                os.eventfd_write(self._write, 1)
            else:
                self._write.send(b"\0")
            self._set = True  # last: what interrupts this must not leave it set, and nothing to read

    def clear(self) -> None:
        """Make it unreadable again; also what a wake() has left that was interrupted before it noted it."""
        with self._lock:
            self._set = False
            with contextlib.suppress(BlockingIOError):  # there is nothing
                if isinstance(self._read, socket.socket):
                    self._read.recv(16)
                elif self._read >= 0:
                    os.eventfd_read(self._read)
            self._set = False  # again: a signal handler's wake() in between was made unreadable, too

    def interrupted(self) -> bool:
        """Whether the caller is a signal handler that came while its own thread was in here."""
        return held_here(self._lock)

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            # First: an interruption may leave one open, and not have somebody else's closed by the next call.
            ends, self._read, self._write = {self._read, self._write}, -1, -1
            for end in ends:
                if not isinstance(end, int):
                    end.close()
                elif end >= 0:
                    os.close(end)

    def forget(self) -> None:
        """As `close`, in the child of a fork, where another thread may have held the lock."""
        self._lock = threading.RLock()
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # Ctrl-C came while it was made
            self.close()


_READABLE = (True, False, False)

_T = TypeVar("_T")


class Waiting(Protocol):
    """How a poller waits for what can be read: by calling `poll` once, or more often."""

    def __call__(self, poll: Callable[[float | None], _T], timeout: float | None, /) -> _T:
        """What `poll(timeout)` returns; ``poll(0)`` looks what there is. It is true when there is something."""


def _wait(poll: Callable[[float | None], _T], timeout: float | None, /) -> _T:
    return poll(timeout)


if hasattr(select, "poll"):

    class Poller:
        """Waits for one socket and one waker."""

        __slots__ = ("_events", "_poll", "_quiet", "_sock", "_wait", "_waker")

        def __init__(self, waker: Waker, wait: Waiting = _wait) -> None:
            self._poll = select.poll()
            self._wait = wait
            self._quiet = [(-1, 0)]  # what poll() tells when the socket can be read and nothing else is
            self._waker = waker.fileno()
            self._sock = -1
            self._events = 0
            self._poll.register(self._waker, select.POLLIN)

        def wait(self, fd: int, read: bool, write: bool, timeout: float | None) -> tuple[bool, bool, bool]:
            """Wait until `fd` is readable or writable or the waker is set: (readable, writable, woken).

            An error or hang-up counts as what was asked for. `timeout` is in seconds, None for ever.
            """
            events = (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
            if not events:
                fd = -1  # an empty mask would still report hang-ups, for ever
            if fd != self._sock or events != self._events:
                if self._sock >= 0 and self._sock != fd:
                    self._poll.unregister(self._sock)
                if fd >= 0:
                    self._poll.register(fd, events)
                self._sock, self._events = fd, events
                self._quiet = [(fd, select.POLLIN)]
            limit = None if timeout is None else capped(timeout) * 1000
            polled = (self._wait if read and not write else _wait)(self._poll.poll, limit)
            if polled == self._quiet:
                return _READABLE  # nearly always
            readable = writable = woken = False
            for ready, got in polled:
                if ready == self._waker:
                    woken = True
                else:
                    trouble = got & ~(select.POLLIN | select.POLLOUT)
                    readable = bool(read and (got & select.POLLIN or trouble))
                    writable = bool(write and (got & select.POLLOUT or trouble))
            return readable, writable, woken

        def readable(self) -> bool:
            """As the last `wait`, which was for reading, and for ever; False: ask `wait` what there is."""
            return bool(self._wait(self._poll.poll, None) == self._quiet)

else:  # Windows

    class Poller:  # type: ignore[no-redef]
        """Waits for one socket and one waker."""

        __slots__ = ("_wait", "_waker")

        def __init__(self, waker: Waker, wait: Waiting = _wait) -> None:
            self._waker = waker.fileno()
            self._wait = wait

        def wait(self, fd: int, read: bool, write: bool, timeout: float | None) -> tuple[bool, bool, bool]:
            """Wait until `fd` is readable or writable or the waker is set: (readable, writable, woken)."""
            reading = [self._waker, fd] if read and fd >= 0 else [self._waker]
            writing = [fd] if write and fd >= 0 else []
            # A failed connect() shows in the third set only.
            limit = None if timeout is None else capped(timeout)

            def poll(timeout: float | None) -> tuple[list[int], list[int], list[int]] | None:
                ready = select.select(reading, writing, writing, timeout)
                return ready if any(ready) else None

            r, w, x = (self._wait if read and not write else _wait)(poll, limit) or ([], [], [])
            return fd in r, fd in w or fd in x, self._waker in r

        def readable(self) -> bool:
            """Never: `wait` has to be asked each time."""
            return False


class Lock(_thread.RLock):  # type: ignore[misc]  # which typeshed calls final; CPython does not
    """An RLock that is also taken by ``-lock`` and given back by ``~lock``.

    Like that it takes half the time of a ``with`` statement. And between ``-lock`` and a ``try`` behind it no signal
    handler can come in, which would leave it locked: CPython 3.10 to 3.14 looks for signals in calls, at the beginning
    of functions and in jumps; an operator goes to the method of C without any of these.
    """

    __slots__ = ()
    __neg__ = _thread.RLock.acquire
    __invert__ = _thread.RLock.release


class Condition:
    """Waits for what is said under a lock; as `threading.Condition`, but it is noted who waits before he looks.

    The lock does not keep out a signal handler that comes in on the waiting thread, between the look and the wait.
    What that says would be heard by nobody.

    Args:
        lock: Held by whoever calls a method.
    """

    __slots__ = ("_hold_again", "_let_go", "_waiting")

    def __init__(self, lock: Any) -> None:
        # A signal handler may have come in while its own thread holds an RLock: it is released wholly.
        self._let_go, self._hold_again = lock._release_save, lock._acquire_restore
        self._waiting: list[threading.Lock] = []

    def notify_all(self) -> None:
        """Have all that wait look again."""
        while self._waiting:
            # A signal handler may say it first, or raise in between: then this is done again.
            with contextlib.suppress(IndexError, ValueError):
                waiter = self._waiting[-1]
                with contextlib.suppress(RuntimeError):
                    waiter.release()
                self._waiting.remove(waiter)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `predicate` is true; False when `timeout` seconds are over.

        Ctrl-C interrupts it on every OS. On Windows a thread that waits for a lock does not see it, so there the
        wait is cut into slices. Elsewhere CPython misses a signal that comes after its last look and before the wait
        has begun, or that the system gives to another thread: there each slice is as long as all before it together,
        at most a minute, so that this takes no longer than it has so far, and who waits long is hardly ever woken.
        """
        start = time.monotonic()
        end = None if timeout is None else start + timeout
        while True:
            waiter = threading.Lock()
            waiter.acquire()
            self._waiting.append(waiter)
            held: list[Any] = []
            try:
                if predicate():
                    return True
                now = time.monotonic()
                left = _LONGEST if end is None else min(_LONGEST, end - now)
                if left <= 0:
                    return False
                try:
                    held.extend(starmap(self._let_go, ((),)))  # nothing comes between letting go and noting it
                    longest = _SLICE if WINDOWS else max(_SLICE, min(now - start, _LONGEST_SLICE))
                    waiter.acquire(timeout=min(left, longest))
                finally:
                    if held:
                        self._hold_again(held[0])
            finally:
                with contextlib.suppress(ValueError):  # whoever said something has removed it
                    self._waiting.remove(waiter)


def held_here(lock: Any) -> bool:
    """Whether the calling thread holds this RLock; `threading.Condition` asks in the same way."""
    return bool(lock._is_owned())


def signature_of(fn: Callable[..., object], *, follow_wrapped: bool = False) -> inspect.Signature:
    """What a call of `fn` takes; with `follow_wrapped`, of the function that it decorates.

    Raises:
        ValueError, TypeError: It does not say.
    """
    import inspect

    if sys.version_info >= (3, 14):
        # Annotations are evaluated when they are asked for, and may name what only a type checker imports.
        from annotationlib import Format

        return inspect.signature(fn, follow_wrapped=follow_wrapped, annotation_format=Format.STRING)
    return inspect.signature(fn, follow_wrapped=follow_wrapped)


_FUNCTIONS = (types.FunctionType, types.MethodType)
_COROUTINE = 0x80 | 0x100  # inspect.CO_COROUTINE, CO_ITERABLE_COROUTINE
_GENERATOR = 0x20 | 0x200  # inspect.CO_GENERATOR, CO_ASYNC_GENERATOR


def runs_later(fn: Callable[..., object]) -> str:
    """``'coroutine'`` or ``'generator'`` if a call only makes one of these, otherwise ``''``."""
    import inspect  # loads slowly

    while isinstance(fn, functools.partial):
        fn = fn.func
    # Of an object, what its class calls. A mock may have a mock of each.
    calls = (fn, None if type(fn) in _FUNCTIONS else getattr(type(fn), "__call__", None))  # noqa: B004
    flags = [getattr(getattr(call, "__code__", None), "co_flags", 0) for call in calls]
    flags = [each for each in flags if isinstance(each, int)]
    if any(each & _COROUTINE for each in flags) or (type(fn) in _FUNCTIONS and inspect.iscoroutinefunction(fn)):
        return "coroutine"
    return "generator" if any(each & _GENERATOR for each in flags) else ""


def proxy_possible() -> bool:
    """Whether a proxy may be configured; macOS and Windows have settings beside the environment's."""
    return sys.platform in ("darwin", "win32") or any(name.lower().endswith("_proxy") for name in os.environ)


def proxy_asks_dns() -> bool:
    """Whether `urllib.request.proxy_bypass` may look hosts up, which blocks: until 3.13, and only for these systems."""
    return sys.platform in ("darwin", "win32") and sys.version_info < (3, 13)


@functools.cache
def keep_freed_memory() -> None:
    """Have malloc keep the memory of a large message for the next one, once for the process.

    glibc gives freed blocks of over 128 KiB back to the system, until it has seen larger ones come and go
    (mallopt(3), M_MMAP_THRESHOLD, "dynamic"). Messages of 1 MiB would then cost 256 page faults each, which takes
    six times as long as receiving them. This block is never touched, so it costs nothing.
    """
    with contextlib.suppress(MemoryError):
        bytes(8 * 1024 * 1024)


LONG_TEXT = 96 * 1024  # bytes of text under which a copy is made in less time than it takes to look at it where it lies


def _text_viewer() -> Callable[[str], memoryview] | None:
    """How to look at a text of ASCII where it lies; None where Python has no way, or is told to have none."""
    try:
        from ctypes import PYFUNCTYPE, c_char, c_void_p, py_object, pythonapi

        # A function of CPython's stable ABI.
        address_of = PYFUNCTYPE(c_void_p, py_object, c_void_p)(("PyUnicode_AsUTF8AndSize", pythonapi))
    except Exception:  # built without; or an audit hook of the program, which may raise anything
        return None

    class Memory(c_char * sys.maxsize):  # type: ignore[misc] # mypy takes a product for no class
        """All that begins at an address. It keeps the text that lies there, and is kept by each view of it."""

        __slots__ = ("text",)

    def view_of(text: str) -> memoryview:
        memory = Memory.from_address(address_of(text, None))
        memory.text = text
        return memoryview(memory).toreadonly()[: len(text)]

    return view_of


_view_of = _text_viewer()


def ascii_bytes(text: str, start: int = 0, stop: int | None = None) -> bytes | memoryview:
    """The bytes of ``text[start:stop]``, where `text` has ASCII only; of a long one without a copy."""
    if _view_of is None or len(text) < LONG_TEXT:
        return text[start:stop].encode()
    try:
        view = _view_of(text)
    except Exception as exc:
        # A signal handler's comes once. There may be no memory; or an audit hook that the program has by now allows no
        # ctypes: that comes again.
        try:
            _view_of(text)
        except Exception:
            return text[start:stop].encode()
        raise exc
    return view[start:stop] if start or stop is not None else view


# Of Linux' struct tcp_info (linux/tcp.h): tcpi_last_ack_recv, and tcpi_bytes_acked, which is there since 4.1.
_TCP_INFO = Struct("=56xI60xQ")


def acknowledged(sock: socket.socket) -> tuple[int, int, float]:
    """Bytes of what the operating system took that the peer's has acknowledged, and those that it has not.

    And how many seconds ago it said so last. All are zero where the system does not tell: only Linux does.
    """
    if sys.platform != "linux":
        return 0, 0, 0.0
    import fcntl
    import termios

    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        left = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        ago, acked = _TCP_INFO.unpack(info)
    except (OSError, ValueError, struct_error):  # the connection is over, or the system an older one
        return 0, 0, 0.0
    return acked, int.from_bytes(left, sys.byteorder), ago / 1000


# An import on a socket's thread must not be cut in two by a fork: the child would be left with half a module.
importing = threading.RLock()


class Forkable(Protocol):
    """Something with a lock, which another thread may hold at a fork."""

    def _forget(self) -> None:
        """Be as new, in the child of a fork, where there is no other thread."""


_forkable: weakref.WeakValueDictionary[int, Forkable] = weakref.WeakValueDictionary()


def forget_at_fork(owner: Forkable) -> None:
    """Have `owner._forget()` called in the child of a fork; it is not kept alive."""
    _forkable[id(owner)] = owner


def _after_fork() -> None:
    for owner in list(_forkable.values()):
        owner._forget()
    with contextlib.suppress(RuntimeError):  # Ctrl-C came when it was waited for, and the fork went on
        importing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=importing.acquire, after_in_parent=importing.release, after_in_child=_after_fork)


def close_descriptor(sock: socket.socket) -> None:
    """Close this process's copy of a socket without a word on the wire (after a fork)."""
    with contextlib.suppress(OSError):
        socket.close(sock.detach())
