"""TLS over a TCP connection, with memory between both: many records for each call of the system, in both directions."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

from .wire import Stream, refuse

__all__ = ["TlsStream"]

RECORD = 16 * 1024  # bytes of plain text in a record at most (RFC 8446 section 5.1)
SLICE = 32 * 1024  # bytes given to OpenSSL at a time: its buffer grows to 4/3 of that and is kept with the connection
MOST = 256 * 1024  # bytes read in one call
ANSWERS = 16 * 1024  # bytes that TLS itself has to say, and that the system does not take, until nothing more is read
NOTHING = memoryview(b"")
ALL = (-1,)  # arguments of MemoryBIO.read()


class TlsStream(Stream):
    """A non-blocking socket that speaks TLS, and a wire.

    An `ssl.SSLSocket` asks the system twice for each record that it reads, of 16 KiB, and once for each that it writes;
    and when a signal handler raises inside its write, nobody can tell what was written. Here all of `data` is encrypted
    in memory, and what the system has taken of that is known; see the module `wire`.

    One thread may write and another one read at the same time. Only what both share is guarded, as OpenSSL allows one
    at a time; who writes holds the lock already.

    Args:
        sock: A connected, non-blocking socket. It is emptied: its descriptor belongs to the new object.
        context: What has a `wrap_bio`.
        host: Whom the certificate has to name.

    Attributes:
        lock: That of the outbox that writes here, when there is one.
        torn: False: it is always known what was written.
        told: What the last write raised, if that is the network's or TLS' own and no signal handler's.
    """

    __slots__ = (
        "_encrypted", "_error", "_given", "_gone", "_incoming", "_more", "_outgoing", "_output", "_raw", "_read",
        "_reads_to_write", "_taken", "_tls", "_write", "lock", "told",
    )  # fmt: skip
    gathers = False
    torn = False
    __matmul__ = refuse
    __rshift__ = socket.socket.send  # past TLS

    def __init__(self, sock: Stream, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # SSLObject's methods are Python around these: an interruption in there would lose the result.
        inner = getattr(self._tls, "_sslobj", self._tls)
        self._read, self._write, self._output = inner.read, inner.write, self._outgoing.read
        self._raw = NOTHING  # what was read, and OpenSSL has not got yet
        self._error: OSError | None = None  # of the record behind what the last recv() has returned
        self._more = False  # whether recv() may have something without the system's having anything
        self._reads_to_write = False  # whether OpenSSL's write may read, too: in a renegotiation, which TLS 1.3 has not
        self._given = 0  # bytes of plain text given to OpenSSL, as long as it has not told what it did
        self._taken = 0  # bytes of plain text that were encrypted, and are not all out; they are given again
        self._encrypted, self._gone = b"", 0  # what is on its way to the system, and how many bytes of it are out
        self.lock: contextlib.AbstractContextManager[Any] = threading.RLock()
        self.told: OSError | None = None
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.paced = False  # as far as that counts: TLS takes more time than is lost by it
        self.setblocking(False)

    def do_handshake(self) -> bool:
        """A part of the handshake, which includes verifying the certificate; whether that was the last one.

        Raises:
            ssl.SSLWantReadError, ssl.SSLWantWriteError: To be called again when the socket is readable, or writable.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._fill(RECORD)
            return False
        except BaseException as exc:
            with contextlib.suppress(OSError):
                self._answer()  # an alert, which says why
            if isinstance(exc, ssl.SSLSyscallError):  # so OpenSSL 1.1.1 tells that TCP has ended
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol") from exc
            raise
        self._answer()
        self._more = True
        self._reads_to_write = self._tls.version() != "TLSv1.3"
        return True

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """All that one call of the system brings, of about `size` bytes; nothing at the end of TLS, or of TCP.

        Raises:
            ssl.SSLWantReadError, ssl.SSLWantWriteError: To be called again when the socket is readable, or writable.
            OSError: What had come before has been returned.
        """
        if self._reads_to_write:
            with self.lock:
                return self._receive(min(size, MOST))
        return self._receive(min(size, MOST))

    def _receive(self, size: int) -> bytes:
        if self._error is not None:
            raise self._error
        if not self._more:
            self._fill(size)
        parts: list[bytes] = []
        while True:
            try:
                with self.lock:  # for each record anew: a sender may come in between two
                    if self._given:
                        self._find_out()
                    data = self._read(RECORD)
            except ssl.SSLWantReadError:
                if self._raw:
                    self._feed()
                    continue
                self._more = False
                if parts:
                    break
                self._answer()  # it was a part of a record, or something of TLS alone
                raise
            except OSError as exc:
                with contextlib.suppress(OSError):
                    self._answer()
                if isinstance(exc, ssl.SSLEOFError):
                    break  # the end of TCP without the end of TLS: WebSocket has an end of its own
                if not parts:
                    raise
                self._error = exc.with_traceback(None)
                break
            if not data:
                break
            parts.append(data)
            if not self._incoming.pending:  # else OpenSSL would have to tell, which takes longer
                if not self._raw:
                    self._more = False
                    break
                self._feed()
        if self._encrypted or self._outgoing.pending:
            try:
                self._answer()
            except OSError:
                self._more = True  # so that the next call tells
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pending(self) -> int:
        """Whether recv() may have something when the system has nothing: data, an error, the end."""
        return self._more

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        """As `<<`, for who has no other thread that reads."""
        try:
            while True:
                try:
                    return self << data
                except ssl.SSLWantReadError:
                    self._fill(RECORD)
        finally:
            self.told = None

    def close(self) -> None:
        """Let go of the descriptor, and of what refers back to this object."""
        self._error = self.told = None
        super().close()

    def __lshift__(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        """Write all of `data`; how many bytes were taken.

        Raises:
            BlockingIOError: The system has not taken all. To be called again with the same data, to which more may have
                been added; it is not encrypted again.
            ssl.SSLWantReadError: TLS has to read something first. To be called again likewise.
        """
        if self._given:
            self._find_out()
        if not self._taken:
            if self._encrypted or self._outgoing.pending:
                self._flush()  # what TLS itself has to say comes first
            writing = map(self._write, (data,))
            self._given = len(data)
            try:
                # One instruction writes and unpacks the result.
                (self._taken,) = writing
                self._given = 0
            except ssl.SSLError as exc:
                # TLS' own, or a signal handler's as in _tell(); noted before any call, in which another could raise.
                self._given *= exc.__traceback__ is None or exc.__traceback__.tb_next is not None
                self._tell(exc)
                if self.told is exc and isinstance(exc, ssl.SSLWantReadError):
                    try:
                        self._flush()  # its part of the handshake, which goes on
                    except OSError as failed:
                        if self.told is not failed or isinstance(failed, BlockingIOError):
                            raise  # a signal handler's; or the rest of it has to go out before anything comes
                    self.told = exc
                raise
            # _flush() for nearly all writes.
            reading = map(self._output, ALL)
            (self._encrypted,) = reading
            try:
                self._gone = self >> self._encrypted
            except BaseException as exc:
                self._tell(exc)
                raise
            if self._gone == len(self._encrypted):
                self._encrypted, self._gone = b"", 0
                taken, self._taken = self._taken, 0
                return taken
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def _find_out(self) -> None:
        """A signal handler raised in OpenSSL's write: it was done if it has left something."""
        if self._outgoing.pending:
            self._taken = self._given
        self._given = 0

    def _answer(self) -> None:
        """Send what TLS itself has to say, such as a new key; on a thread that reads, where no signal handler runs.

        Raises:
            ssl.SSLWantWriteError: The system has not taken all, and nobody has data that is to be given again; or it is
                much, as a peer that asks on and on and reads nothing must not fill the memory.
        """
        with self.lock:
            if self._given:
                self._find_out()
            try:
                self._flush()
            except BlockingIOError:
                if not self._taken or self._outgoing.pending > ANSWERS:
                    raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the system takes no more") from None
            except OSError:
                pass  # the peer takes nothing any more; what it has sent says why
            finally:
                self.told = None

    def _flush(self) -> None:
        """Give the system what is encrypted.

        Raises:
            BlockingIOError: It has not taken all.
        """
        while self._encrypted or self._outgoing.pending:
            if not self._encrypted:
                reading = map(self._output, ALL)
                (self._encrypted,) = reading
            left = memoryview(self._encrypted)[self._gone :]
            try:
                self._gone += self >> left
            except BaseException as exc:
                self._tell(exc)
                raise
            if self._gone == len(self._encrypted):
                # Python does not look for signals before both are stored.
                self._encrypted, self._gone = b"", 0

    def _tell(self, error: BaseException) -> None:
        # What came through another frame of Python is a signal handler's, TimeoutError for example.
        if isinstance(error, OSError) and error.__traceback__ is not None and error.__traceback__.tb_next is None:
            self.told = error

    def _fill(self, size: int) -> None:
        """Give OpenSSL what the system has, when it wants more.

        Raises:
            ssl.SSLWantReadError: That is nothing.
            ssl.SSLWantWriteError: As `_answer`, which comes first: the peer may wait for it.
        """
        self._more = False
        if self._encrypted or self._outgoing.pending:
            self._answer()
        try:
            data = socket.socket.recv(self, max(size, 2 * RECORD))
        except BlockingIOError:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the system has nothing") from None
        self._more = True
        if data:
            self._raw = memoryview(data)
            self._feed()
        else:
            with self.lock:
                self._incoming.write_eof()

    def _feed(self) -> None:
        with self.lock:
            self._incoming.write(self._raw[:SLICE])
        self._raw = self._raw[SLICE:] if len(self._raw) > SLICE else NOTHING
