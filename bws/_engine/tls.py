"""TLS: the default context, and a handshake that is not over before the certificate is verified."""

from __future__ import annotations

import contextlib
import socket
import ssl
import types

from .patience import Aborted, Patience, explained
from .tls_stream import TlsStream
from .wire import Stream

__all__ = ["secure"]

_default_context: ssl.SSLContext | None = None


def default_context() -> ssl.SSLContext:
    """The system's store, host name checked, TLS 1.2 or newer; made once for the process."""
    global _default_context
    if _default_context is None:
        context = ssl.create_default_context()
        # OpenSSL's configuration file may have lowered it.
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        context.set_alpn_protocols(["http/1.1"])
        _default_context = context
    return _default_context


def secure(
    sock: socket.socket, host: str, context: ssl.SSLContext | None, patience: Patience
) -> TlsStream | ssl.SSLSocket:
    """Speak TLS with `host` over a connected socket, which belongs to the result from now on.

    Raises:
        OSError: The handshake failed, or the certificate does not hold; the message names the host.
        Aborted, TimeoutError: As `Patience.wait`.
    """
    host = host.rstrip(".")
    patience.stage = f"TLS handshake with host {host!r}"
    if context is None:
        context = default_context()
    tls: TlsStream | ssl.SSLSocket | None = None
    try:
        if isinstance(sock, Stream) and _works_in_memory(context):
            tls = _in_memory(sock, host, context)
        else:
            tls = _wrap(sock, host, context, patience)
            if not isinstance(tls, ssl.SSLSocket):
                raise ssl.SSLError(1, f"{type(context).__name__}.wrap_socket() made no ssl.SSLSocket")
            tls.setblocking(False)
        patience.socks.append(tls)
        _shake_hands(tls, patience)
        return tls
    except BaseException as exc:
        if tls is not None:
            tls.close()
        if isinstance(exc, (Aborted, TimeoutError)):
            raise
        if isinstance(exc, OSError):  # SSLCertVerificationError is a ValueError too
            hung_up = "the server hung up; does it speak plain ws:?" if isinstance(exc, ssl.SSLEOFError) else ""
            raise explained(exc, f"TLS handshake with host {host!r} failed", hung_up) from exc
        if isinstance(exc, ValueError):
            raise ssl.SSLError(1, f"TLS with host {host!r} is not possible: {exc}") from exc
        raise


def _shake_hands(tls: TlsStream | ssl.SSLSocket, patience: Patience) -> None:
    done: bool | None = False
    while done is False:
        patience.left()  # a peer may go on and on
        try:
            done = tls.do_handshake()
        except ssl.SSLWantReadError:
            patience.wait(tls, read=True)
        except ssl.SSLWantWriteError:
            patience.wait(tls, write=True)


def _in_memory(sock: Stream, host: str, context: ssl.SSLContext) -> TlsStream:
    try:
        return TlsStream(sock, context, host)
    except BaseException:
        sock.close()
        raise


def _works_in_memory(context: ssl.SSLContext) -> bool:
    """Whether nobody has a say in it who would be asked for a socket: his own class may verify the certificate."""
    home = _home(context.wrap_socket)
    if home != _home(context.wrap_bio):
        return False
    if home == "ssl":
        plain = context.sslsocket_class is ssl.SSLSocket and context.sslobject_class is ssl.SSLObject
        return plain and _home(ssl.SSLSocket.do_handshake) == home  # which a program may have replaced
    return _is_truststore(context, "sslsocket_class", "sslobject_class")


def _is_truststore(context: ssl.SSLContext, *classes: str) -> bool:
    """Whether it is a context of truststore 0.10.5 or newer, which verifies in do_handshake() of these classes."""
    inner = getattr(context, "_ctx", None)
    steps = [context.wrap_socket, *(getattr(getattr(inner, name, None), "do_handshake", None) for name in classes)]
    return all(_home(step) == "truststore" for step in steps)


def _home(method: object) -> str:
    """The package whose code this is: functools.wraps() copies `__module__`, and others more than that.

    Nothing is compared with ssl.SSLContext, which truststore.inject_into_ssl() replaces.
    """
    function = getattr(method, "__func__", method)
    return str(function.__globals__["__name__"]).partition(".")[0] if type(function) is types.FunctionType else ""


def _wrap(sock: socket.socket, host: str, context: ssl.SSLContext, patience: Patience) -> ssl.SSLSocket:
    """The socket that speaks TLS; its handshake has begun only where the context insists on doing that itself."""
    direct = _verifies_in_handshake(context)

    def wrap() -> ssl.SSLSocket:
        try:
            host.encode("idna")  # as wrap_socket does, which leaves the socket open when it fails
            try:
                return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=not direct)
            except OSError as exc:  # the connection was reset meanwhile
                _close_half_made(exc)
                raise
        except BaseException:
            sock.close()  # here: on another thread it would be closed under wrap_socket's hands
            raise

    if direct:
        return wrap()
    # A class that has a wrap_socket of its own may verify the certificate there, behind the handshake (older versions
    # of truststore do on macOS and Windows). It is called as its author expects it to be, blocking and with the
    # handshake in it, or the certificate might go unverified.
    handle = sock.dup()
    patience.socks.append(handle)
    sock.settimeout(patience.limit())
    try:
        return patience.background(wrap, lambda late: late.close())
    except TimeoutError:
        patience.left()  # says what was waited for
        raise
    finally:
        if patience.over():
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)  # the thread comes back
        handle.close()


def _verifies_in_handshake(context: ssl.SSLContext) -> bool:
    """Whether a certificate that does not hold makes do_handshake() fail, as Python's own contexts do."""
    # truststore blocks all other connections during a handshake in wrap_socket().
    return _home(context.wrap_socket) == "ssl" or _is_truststore(context, "sslsocket_class")


def _close_half_made(exc: OSError) -> None:
    """Close the SSLSocket that wrap_socket() was making when it raised: Python before 3.13 leaves it open."""
    step = exc.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self")
        if isinstance(owner, ssl.SSLSocket):
            owner.close()
        step = step.tb_next
