"""Sending: frames are written in the caller's thread when the socket takes them, and wait here when it does not."""

from __future__ import annotations

import logging
import ssl
import sys
from collections import deque
from collections.abc import Callable
from itertools import chain, islice
from types import FrameType
from typing import Any, NamedTuple, cast

from .._system import LONG_TEXT, Condition, Lock, ascii_bytes, held_here
from .._text import brief
from .deflate import Deflater, DeflateStream
from .frames import CLOSE, PING, PONG, SMALL_HEADS, Payload, frame, head, mask, masking_keys
from .tls_stream import TlsStream
from .watch import Watch
from .wire import NOWHERE, TlsWire, Wire

__all__ = ["WOULD_BLOCK", "Outbox"]

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError)
# bytes: SSL_write tells all or nothing, and must be called again with the same bytes; a frame of 64 KiB is one. OpenSSL
# keeps a buffer for as much.
TLS_PIECE = 65 * 1024
CHUNK = 1024 * 1024  # bytes masked and sent at a time, past the empty queue
PIECE = 256 * 1024  # and from the queue: of more, the first has left the processor's cache before it is sent
APART = 16 * 1024  # bytes of payload from which copying it behind its header costs more than a list of both
# Frames that wait, given to the operating system in one call: two buffers each at most. All that we run on take 1,024.
GATHER = 64
BURST = 16 * 1024 * 1024  # bytes of the queue that are written in one go: then others may send, and the thread goes on
COMPRESS_UNLOCKED = LONG_TEXT  # bytes of a message from which it is compressed by itself, while others may send
MAX_PONGS = 1_000  # that wait: a peer that pings and does not read must not fill the memory

DEBUG = logging.DEBUG
log = logging.getLogger("bws")


class _Frame(NamedTuple):
    """A frame, or the rest of one, in the queue."""

    end: int  # where it ends in the stream of all that was queued, in bytes
    header: bytes  # what is left of its header, when that is not in `data`
    data: Any  # memoryview; or, with a key, a str that has ASCII only
    payload: int  # bytes of the message that it carries, at its end; -1: it is a pong
    packed: int  # bytes of the whole masked payload, when the message is compressed
    total: int  # payload bytes from the beginning of the queue to here, as they were when it was queued
    later: object  # what it was in `Outbox._later`, if it was there
    key: bytes  # with which `data`, which nobody can change, is masked when it is sent; empty: it is masked


class PreparedMessage:
    """A large message of which it is known whether it goes compressed.

    Args:
        body: What goes out, unmasked; nobody can change it.
        size: Bytes of its payload.
        stream: What has compressed `body`, and nothing before; None when it is not compressed.
    """

    __slots__ = ("body", "size", "stream")

    def __init__(self, body: Payload, size: int, stream: DeflateStream | None) -> None:
        self.body, self.size, self.stream = body, size, stream

    def __len__(self) -> int:
        return self.size


_new = tuple.__new__  # in half the time that a NamedTuple's own takes


def _nothing(_: object) -> None: ...


class Outbox:
    """The sending half of a connection. Every method may be called from any thread; none waits but `wait`.

    A signal handler may come in the main thread wherever Python looks for one: where a function begins, where a call
    has returned, in loops, and in Python 3.10 where an `if` jumps. It may send or raise (Ctrl-C does). So what was
    given to the operating system is noted before Python looks, and each step can be done again: frames have absolute
    places in the stream, and are removed by comparing with how far the stream has gone.

    A large message is masked piece by piece as it goes out, when it cannot change meanwhile: so what waits costs no
    memory beside the program's own object.

    Args:
        name: For the log.
        watch: Told that an answer may come, before a message is sent.
        pinging: Called, with the lock held, with the payload of a ping that goes out next; perhaps again with the same.
        look: Called, without the lock, when something may be left of a frame that was sent: it waits, or writing has
            failed; or, with True, a signal handler raised, and nobody has brought to an end what that interrupted.

    Attributes:
        lock: Whoever holds it writes. With TLS whoever reads takes it too, for the single call: an SSL object
            allows one thread at a time. A signal handler may come in while its own thread holds it: what that
            sends goes out behind the frame that was interrupted.
        pongs: Pongs in the queue.
        waiting: Whether the socket is to be polled for writing.
        stalled: Whether TLS has to read something before it can write on.
        closed: Whether a close frame has been sent or queued: nothing is sent after it.
        progress: Counts the times that the socket took something of what it had refused before.
        failed: Why nothing more can be sent, when writing has failed: the connection cannot go on.
    """

    __slots__ = (
        "_at_most", "_at_once", "_begin", "_busy", "_deflater", "_drained", "_frames", "_kept", "_key", "_later",
        "_look", "_lost", "_most", "_moved", "_moving", "_name", "_over", "_piece", "_pinging", "_taken", "_tls",
        "_unsure", "_watch", "_wire", "closed", "failed", "lock", "pongs", "progress", "stalled", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        name: str = "",
        watch: Watch | None = None,
        pinging: Callable[[bytes], None] = _nothing,
        look: Callable[[bool], None] = _nothing,
    ) -> None:
        self._name, self._watch, self._pinging, self._look = name, watch or Watch(), pinging, look
        self.lock = Lock()
        self._drained: Condition | None = None  # said when nothing is pending, and when nothing more goes
        self._busy = False  # whether a frame is being made and sent: then a signal handler has to queue
        self._later: list[tuple[int, bytes | str | PreparedMessage, bool]] = []  # what signal handlers sent meanwhile
        self._moving: object = None  # the one of these that is being queued
        # The frame that is being sent past the empty queue: header, data, payload and packed as in _Frame; and how
        # many bytes of it the operating system took, as soon as it has told.
        self._at_once: tuple[bytes, bytes, int, int] | None = None
        self._taken = 0
        # Payload bytes of a message that can go out in one step: ever, and now, as nothing waits; -1: none can.
        self._most = self._at_most = -1
        self._frames: deque[_Frame] = deque()
        # The last write of the queue, of which the operating system may have taken some only: from where in the
        # stream, and what; so that nothing is masked twice.
        self._kept: tuple[int, list[bytes | memoryview]] = 0, []
        self._begin = self._moved = 0  # where the last write of the queue began in the stream, and how far it came
        self._lost = 0  # payload bytes that were never sent
        self._key = masking_keys().__next__
        self._wire: Wire = NOWHERE
        self._over = False  # the wire was there, and is gone
        self._tls: TlsStream | TlsWire | None = None  # the wire, when it is one of TLS
        self._piece = PIECE
        self._deflater: Deflater | None = None
        self._unsure = False  # whether the peer may not get what the deflater refers to
        self.pongs = self.progress = 0
        self.waiting = self.stalled = self.closed = False
        self.failed: OSError | None = None

    def open(self, wire: Wire, deflater: Deflater | None) -> None:
        """The opening handshake is done: `wire` is a non-blocking socket, or TLS on one."""
        with self.lock:
            self._wire, self._deflater = wire, deflater
            if isinstance(wire, (TlsStream, TlsWire)):
                self._tls = wire
                if isinstance(wire, TlsStream):
                    wire.lock = self.lock
                self._piece = TLS_PIECE
            if deflater is None:
                self._most = CHUNK if self._wire.gathers else APART - 1
            self._settle()

    def send_deflating(self, opcode: int, payload: Payload) -> bool:
        """Send a message on a connection with permessage-deflate: as `send`.

        Compressing takes long, and holds up nobody: a large message is compressed before the lock is taken.
        """
        size = len(payload)
        deflater = self._deflater
        if size < COMPRESS_UNLOCKED or deflater is None:
            return self.send(opcode, payload)
        packed, stream = deflater.deflate_alone(ascii_bytes(payload) if isinstance(payload, str) else payload)
        if packed is not None:
            body: Payload = packed
        elif isinstance(payload, memoryview) and not isinstance(payload.obj, bytes):
            body = bytes(payload)  # it may have to wait, and be changed meanwhile
        else:
            body = payload
        if log.isEnabledFor(DEBUG):
            self._log_frame(opcode, payload)
        return self.send(opcode, cast("Payload", PreparedMessage(body, size, stream)))

    def send(self, opcode: int, payload: Payload, message: bool = True) -> bool:
        """Send a message or a control frame; False when a close frame has gone before.

        Args:
            opcode: That of the frame.
            payload: The unmasked payload; a str has ASCII only. From `send_deflating` it may be a prepared message,
                which goes the way of `_send`.
            message: Whether it counts as a message.
        """
        if log.isEnabledFor(DEBUG):
            self._log_frame(opcode, payload)
        lock = self.lock
        done = broken = False
        -lock  # noqa: B018
        try:
            size = len(payload)
            # No jump is taken on the way into this, as Python 3.10 would look for signals there.
            if message and size <= self._at_most:
                # `_send` for nearly all messages: there is nothing to look after.
                self._at_most = -1
                self._busy = True
                try:
                    self._watch.expects = True
                    key = self._key()
                    self._taken = 0
                    # frame() and _transmit() in full: calling them would take a sixth of the time Python needs.
                    # No `try` has an `if` in it, as 3.10 would look for signals there, and what a handler raised
                    # would be taken for the network's: so each write has its own, here and below.
                    if size < APART:
                        if isinstance(payload, str):
                            payload = payload.encode()
                        if size < 126:
                            data = SMALL_HEADS[opcode][size] + key + mask(payload, key)
                        else:
                            data = head(opcode, size, key) + mask(payload, key)
                        whole = len(data)
                        self._at_once = b"", data, size, 0
                        try:
                            self._taken = self._wire << data
                        except BaseException as exc:
                            if not self._is_network(exc):
                                raise
                    else:
                        header = head(opcode, size, key)
                        if isinstance(payload, str):
                            payload = payload.encode() if size < LONG_TEXT else ascii_bytes(payload)
                        payload = mask(payload, key)
                        whole = len(header) + size
                        self._at_once = header, payload, size, 0
                        pieces = header, payload
                        try:
                            self._taken = self._wire @ pieces
                        except BaseException as exc:
                            if not self._is_network(exc):
                                raise
                    if self._taken == whole:
                        self._at_once = None
                        if not self._later:
                            self._at_most = self._most
                            done = True
                            return True
                    else:
                        self._queue_rest()
                finally:
                    self._busy = False
                if self._later:
                    self.write()
                return True
            return self._send(opcode, payload, message)
        except BaseException:
            broken = True
            self._key = masking_keys().__next__  # if it was for want of memory for new ones, the old are at an end
            raise
        finally:
            ~lock  # noqa: B018
            if not done:
                try:
                    self._look(broken)
                except BaseException:
                    self._look(broken)  # nobody else would
                    raise

    def _log_frame(self, opcode: int, payload: Payload | PreparedMessage) -> None:
        if self.closed or isinstance(payload, PreparedMessage):
            return  # it is not sent; or it was told when it still was what the program sent
        start = payload[:40]
        shown = brief(start.encode() if isinstance(start, str) else bytes(start)) + "..." * (len(payload) > 40)
        log.debug("%s > opcode %d, %d bytes: %s", self._name, opcode, len(payload), shown)

    def _send(self, opcode: int, payload: Payload | PreparedMessage, message: bool) -> bool:
        """As `send`, with the lock held, whatever there is to look after."""
        self._watch.expects |= message
        if self.closed:
            return False
        if self._busy and self._goes_on():
            kept = bytes(payload) if isinstance(payload, memoryview) else payload
            self._later.append((opcode, kept, message))
            return True
        self._at_most = -1
        self._busy = True
        try:
            self._catch_up()
            if self.closed:  # by now: a signal handler may have come in above
                return False
            self._frame(opcode, payload, message)
        finally:
            self._busy = False
        if self._later:
            self.write()
        self._settle()
        return True

    def _goes_on(self) -> bool:
        """With the lock held: whether a signal handler, or a finalizer, asks, whose thread will come back to a step.

        If not, two signals have raised shortly one after the other: CPython before 3.12 may skip a `finally` then.
        """
        frame: FrameType | None = sys._getframe(2)
        if frame is not None and frame.f_code is _STEPS[0]:
            frame = frame.f_back  # `_send` is called by the `send` that asks
        while frame is not None:
            if frame.f_code in _STEPS:
                values = frame.f_locals
                if values.get("self") is self and not values.get("broken"):  # else that `send` is on its way out
                    return True
            frame = frame.f_back
        self._moving = None
        self._busy = False
        return False

    def _settle(self) -> None:
        """Note whether the next message may go out at once; no jump is taken on the way to that, see `send`."""
        quiet = self._at_once is None and not (self._busy or self._frames or self._later or self.closed)
        self._at_most = self._most if quiet and self._wire is not NOWHERE else -1

    def _catch_up(self) -> None:
        """Bring to an end what an interruption has left, and send what signal handlers sent meanwhile."""
        if self._tls is not None and self._tls.torn:
            self._tear()
        self._queue_rest()
        if not self._later:
            return
        while self._later:
            first = self._later[0]
            size = len(first[1]) if first[2] else 0
            if self._over:
                self._lost += size
            elif not self.closed and not (self._frames and self._frames[-1].later is first):
                self._moving = first
                try:
                    self._frame(*first)
                finally:
                    self._moving = None
            del self._later[0]  # only now: who is interrupted before this comes back to it
        self._write()

    def _frame(self, opcode: int, payload: Payload | PreparedMessage, message: bool) -> None:
        try:
            key = self._key()
        except StopIteration:  # there was no memory for new ones, once
            self._key = masking_keys().__next__
            key = self._key()
        if isinstance(payload, PreparedMessage):
            self._send_prepared(opcode, payload, key)
            return
        if message:
            if self._deflater is not None and self._send_packed(self._deflater, opcode, payload, key):
                return
            self._message(opcode, payload, key, len(payload), 0)
            return
        assert isinstance(payload, bytes)
        if opcode == PING:
            self._pinging(payload)
        if opcode == CLOSE:
            self._send_close(frame(opcode, payload, key))
        else:
            self._transmit(b"", frame(opcode, payload, key), -1 if opcode == PONG else 0)

    def _send_close(self, data: bytes) -> None:
        """By way of the queue: it is `closed` when the frame is sure to go, and not before, whatever interrupts."""
        try:
            self._queue(b"", memoryview(data), 0, 0)
        finally:
            # No call here: after one, another signal handler could raise.
            if self._over or (self._frames and not self._frames[-1].key and self._frames[-1].data.obj is data):
                self.closed = True
        if self._moving is None:
            self._write()

    def _send_prepared(self, opcode: int, message: PreparedMessage, key: bytes) -> None:
        """Send a message that is compressed already, or does not go compressed."""
        stream = message.stream
        if stream is None or self._deflater is None:
            self._message(opcode, message.body, key, message.size, 0)
            return
        self._unsure = True  # see below
        self._message(opcode, message.body, key, message.size, len(message.body))
        if self._deflater.go_on_with(stream):
            self._unsure = False

    def _send_packed(self, deflater: Deflater, opcode: int, payload: Payload, key: bytes) -> bool:
        """Send a message compressed; False when that does not pay."""
        if self._unsure:
            deflater.restart()
        # No memory, or a signal handler that raises: what was compressed may then never be sent.
        self._unsure = True
        packed = deflater.deflate(payload.encode() if isinstance(payload, str) else payload)
        if packed is not None:
            self._message(opcode, packed, key, len(payload), len(packed))
        self._unsure = False
        return packed is not None

    def _message(self, opcode: int, body: Payload, key: bytes, payload: int, packed: int) -> None:
        """Send a message; see `_Frame`."""
        size = len(body)
        if size < APART:
            body = body.encode() if isinstance(body, str) else body
            self._transmit(b"", frame(opcode, body, key, packed > 0), payload, packed)
            return
        header = head(opcode, size, key, packed > 0)
        if not self._frames and self._wire.gathers and size <= CHUNK:
            masked = mask(ascii_bytes(body) if isinstance(body, str) else body, key)
            self._transmit(header, masked, payload, packed)
            return
        if not isinstance(body, str):
            body = memoryview(body)
            if not isinstance(body.obj, bytes):  # it may be changed when send() has returned
                body, key = memoryview(mask(body, key)), b""
        self._queue(header, body, payload, packed, key)
        if len(self._frames) == 1 and self._moving is None:
            try:
                self._write()
            except MemoryError:
                # For what goes out next, masked. The caller is told, and it may be sent again; but not if some is out.
                if not self._take_back(len(header) + size):
                    return
                raise

    def _take_back(self, size: int) -> bool:
        """Remove the last frame from the queue, of so many bytes; False if some of it is out."""
        if not self._frames or self._position() > self._frames[-1].end - size:
            return False
        self._frames.pop()
        self._kept = 0, []  # of it; what is queued next has its place in the stream
        self.waiting = False
        return True

    def write(self) -> None:
        """The socket takes more: give it what waits."""
        with self.lock:
            before = self._position()
            going = not (self._busy and self._goes_on())  # else this is a signal handler's
            while True:  # not the condition: Python 3.13 looks for signals in its jump back, and leaves the lock held
                if not going:
                    break
                self._at_most = -1
                self._busy = True
                try:
                    self._catch_up()
                    self._write()
                finally:
                    self._busy = False
                going = bool(self._later)
            self._settle()
            self.progress += self._position() != before
            if self._wire is NOWHERE or not self._pending():
                self._notify()

    def pending(self) -> int:
        """Payload bytes of messages that the operating system has not taken: ``bufferedAmount``."""
        with self.lock:
            return self._pending()

    def stream(self) -> tuple[int, int]:
        """How far the stream of what was queued has gone, and where it ends, in bytes."""
        with self.lock:
            return self._position(), self._end_of_queue()[0]

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is pending; False when the time is up, or the connection over before.

        In a signal handler that came in while its own thread sends, it does not wait: the other half of that frame
        would be waited for.
        """
        with self.lock:
            if self._busy and self._goes_on():
                return not self._pending()
            if self._drained is None:
                self._drained = Condition(self.lock)
            self._drained.wait_for(lambda: not self._pending() or self._over, timeout)
            return not self._pending()

    def interrupted(self) -> bool:
        """Whether the caller is a signal handler that came while its own thread was in here, holding the lock."""
        return held_here(self.lock)

    def close(self) -> None:
        """Nothing more is sent; `pending` tells what was not."""
        with self.lock:
            self._queue_rest()
            if self._later and self._frames and self._frames[-1].later is self._later[0]:
                del self._later[0]  # an interruption has left it in both
            self._end()
            self.closed = True
            self._notify()
            # Nobody waits for the socket any more; and they refer to who refers to this.
            self._look = self._pinging = _nothing

    def forget(self) -> None:
        """As `close`, in the child of a fork, where another thread may have held the lock."""
        self.lock = Lock()
        self._drained = None
        self.close()
        self._later.clear()
        self._lost = 0

    # -- with the lock held -----------------------------------------------------------------------

    def _transmit(self, header: bytes, data: bytes, payload: int, packed: int = 0) -> None:
        """Send a frame, or what the operating system takes of it; the rest is queued.

        Args:
            header: Its header, when that is not in `data`.
            data: The frame, or its masked payload.
            payload: See `_Frame`.
            packed: See `_Frame`.
        """
        if self._frames or self._wire is NOWHERE or self._moving is not None:
            self._queue(header, memoryview(data), payload, packed)
            return
        self._taken = 0
        self._at_once = header, data, payload, packed
        if header:
            pieces = header, data
            try:
                self._taken = self._wire @ pieces
            except BaseException as exc:
                if not self._is_network(exc):
                    raise
        else:
            try:
                self._taken = self._wire << data
            except BaseException as exc:
                if not self._is_network(exc):
                    raise
        if self._taken == len(header) + len(data):
            self._at_once = None
        else:
            self._queue_rest()

    def _queue_rest(self) -> None:
        """Queue what was not taken of the frame that was sent at once."""
        if self._at_once is None:
            return
        header, data, payload, packed, done = self._rest()
        if done < len(header) + len(data):
            self._queue(header[done:], memoryview(data)[max(done - len(header), 0) :], payload, packed)
        self._at_once = None
        self.waiting = bool(self._frames) and self._wire is not NOWHERE and not self.stalled

    def _rest(self) -> tuple[bytes, bytes, int, int, int]:
        """The frame that is sent at once, and what is done of it: all of one that is queued, or not there."""
        header, data, payload, packed = self._at_once or (b"", b"", 0, 0)
        last = self._frames[-1] if self._frames else None
        queued = last is not None and not last.key and last.data.obj is data
        return header, data, payload, packed, len(header) + len(data) if queued else self._taken

    def _queue(self, header: bytes, data: memoryview | str, payload: int, packed: int, key: bytes = b"") -> None:
        """Queue a frame, or the rest of one; `header`: what is left of that when it is not in `data`. See `_Frame`."""
        share = _share(len(data), payload, packed)
        if self._over:
            self._lost += share
            return
        end, total = self._end_of_queue()
        end += len(header) + len(data)
        queued = _new(_Frame, (end, header, data, payload, packed, total + share, self._moving, key))
        if payload < 0 and self.pongs >= MAX_PONGS and self._frames[-1].payload < 0:
            # Of pings that wait for their pongs, the last one's will do (RFC 6455 section 5.5.3). The frame that goes
            # is far behind those that a write has begun with, see GATHER.
            last = self._frames[-1]
            self._frames[-1] = queued._replace(end=end - len(last.header) - len(last.data))
            return
        self.pongs += payload < 0
        self._frames.append(queued)
        self.waiting = self._wire is not NOWHERE and not self.stalled

    def _end_of_queue(self) -> tuple[int, int]:
        """`end` and `total` of the last frame."""
        if self._frames:
            last = self._frames[-1]
            return last.end, last.total
        return self._position(), 0

    def _position(self) -> int:
        """How far the stream of what was queued has gone, in bytes."""
        return self._begin + self._moved

    def _pending(self) -> int:
        # Nothing is changed here: a signal handler may ask when a frame is about to be given to the socket. And one may
        # come in at each call here, and send: then it is counted anew.
        while True:
            seen = self._seen()
            header, data, payload, packed, done = self._rest()
            rest = _share(len(header) + len(data) - done, payload, packed)
            last = self._frames[-1].later if self._frames else None  # then it is counted in the queue
            later = sum(len(one[1]) for one in self._later if one[2] and one is not last)
            pending = self._lost + self._queued() + rest + later
            if seen == self._seen():
                return pending

    def _seen(self) -> tuple[object, ...]:
        """What is another when a signal handler has sent meanwhile."""
        last = self._frames[-1].end if self._frames else None
        later = self._later[-1] if self._later else None
        return self._begin + self._moved, last, later, self._at_once, self._taken, self._lost

    def _queued(self) -> int:
        """Payload bytes in the queue."""
        position = self._position()
        last = self._frames[-1] if self._frames else None
        if last is None:
            return 0
        # At most those of one write are out, and about to be removed. Looked at by C alone, from the beginning to the
        # end: a signal handler that sent meanwhile would end the look with a RuntimeError.
        for first in list(islice(chain.from_iterable((self._frames,)), GATHER + 1)):
            if first.end > position:
                return last.total - first.total + _share(first.end - position, first.payload, first.packed)
        return 0

    def _write(self) -> None:
        frames = self._frames
        self.stalled = False
        enough = self._position() + BURST
        while frames and self._wire is not NOWHERE:
            position = self._position()
            self._begin = position
            self._moved = 0
            while frames and frames[0].end <= position:
                self.pongs -= frames[0].payload < 0
                frames.popleft()
            if not frames or position >= enough or not self._write_pieces(position):
                break
        if not frames:
            self.pongs = 0
            self._kept = 0, []
            self._notify()
        self.waiting = bool(frames) and self._wire is not NOWHERE and not self.stalled

    def _write_pieces(self, position: int) -> bool:
        """One write of what comes next in the stream; False when the operating system takes nothing now."""
        pieces = self._pieces(position)
        self._kept = position, pieces
        if len(pieces) > 1 and self._wire.gathers:
            try:
                self._moved = self._wire @ pieces
            except BaseException as exc:
                if not self._is_network(exc):
                    raise
                return False
        else:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            try:
                self._moved = self._wire << data
            except BaseException as exc:
                if not self._is_network(exc):
                    raise
                return False
        return True

    def _pieces(self, position: int) -> list[bytes | memoryview]:
        """What comes next in the stream, masked; one write's worth."""
        pieces = self._rest_of_kept(position)
        size = sum(map(len, pieces))
        if 2 * size >= self._piece:
            return pieces  # with a bit more behind each write that took a bit, they would be ever more
        position += size
        room = self._piece - size
        for queued in islice(self._frames, GATHER):
            left = queued.end - position
            if left <= 0:
                continue
            if room <= 0:
                break
            size = len(queued.data)
            if left > size:
                header = queued.header[size - left :]
                pieces.append(header)
                position += len(header)
                room -= len(header)
                left = size
                if room <= 0:
                    break
            part = self._part(queued, size - left, room)
            pieces.append(part)
            position += len(part)
            room -= len(part)
            if position < queued.end:
                break
        return pieces

    def _rest_of_kept(self, position: int) -> list[bytes | memoryview]:
        """What the operating system has not taken of the last write; the other bytes are let go of."""
        begin, kept = self._kept
        self._kept = 0, []
        rest: list[bytes | memoryview] = []
        for piece in kept:
            begin += len(piece)
            if begin > position:
                rest.append(memoryview(piece)[max(position - begin, -len(piece)) :])
        return rest

    @staticmethod
    def _part(queued: _Frame, start: int, room: int) -> bytes | memoryview:
        """Some of a frame's data, masked: at most `room` bytes from `start`."""
        data, key = queued.data, queued.key
        stop = None
        if start or len(data) > room:
            stop, turn = start + room, start % 4
            key = key[turn:] + key[:turn]
        if not key:
            view: memoryview = data[start:stop]
            return view
        return mask(ascii_bytes(data, start, stop) if isinstance(data, str) else data[start:stop], key)

    def _end(self) -> None:
        """Nothing goes out any more: what is queued is lost."""
        if not self._over:
            lost = self._queued()
            self._over = True
            self._lost += lost
        self._wire = NOWHERE
        self._at_most = -1
        self._frames.clear()
        self._kept = 0, []
        self.pongs = 0
        self.waiting = False
        self._tls = None

    def _is_network(self, error: BaseException) -> bool:
        """Note what a write raised; False when it is a signal handler's, to be raised again."""
        told = True
        if self._tls is not None:
            told, self._tls.told = self._tls.told is error, None
            if self._tls.torn:
                self._tear()
                return False
        if isinstance(error, OSError) and told:
            if isinstance(error, WOULD_BLOCK):
                self.stalled = isinstance(error, ssl.SSLWantReadError)
            else:
                self._fail(error)
            return True
        return False

    def _tear(self) -> None:
        """A signal handler raised inside a write of TLS: that cannot be done again, and nothing goes on without it."""
        self._fail(ConnectionAbortedError("a signal handler raised inside a TLS write: what was sent is unknown"))

    def _fail(self, error: OSError) -> None:
        """Writing failed."""
        self.failed = error.with_traceback(None)
        self._end()
        self._notify()  # reading may wait for whoever waits here

    def _notify(self) -> None:
        if self._drained is not None:
            self._drained.notify_all()


_STEPS = tuple(step.__code__ for step in (Outbox.send, Outbox._send, Outbox.write))  # that set `_busy`


def _share(left: int, payload: int, packed: int) -> int:
    """Bytes of a message's payload in the last `left` bytes of its frame; see `_Frame`."""
    if payload <= 0:
        return 0
    # Of a compressed message nobody can tell: it shrinks in proportion, rounded up.
    return min(payload, -(-payload * left // packed) if packed else left)
