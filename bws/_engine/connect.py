"""The way to the server: through a proxy or not, TCP, TLS."""

from __future__ import annotations

import socket

from .._settings import Settings
from . import proxies, tcp, tls
from .patience import Aborted, Patience, explained, read, write

__all__ = ["Aborted", "Patience", "connect", "explained", "read", "write"]


def connect(settings: Settings, patience: Patience) -> socket.socket:
    """A connected, non-blocking socket (an `ssl.SSLSocket` for wss:), ready for the opening handshake.

    Raises:
        OSError: It could not be made: DNS, TCP, TLS, proxy, time-out, abort; the message names the host.
    """
    address = settings.address
    proxy = proxies.choose(settings.proxy, address)
    if proxy is None:
        sock = tcp.connect(address.host, address.port, patience)
    else:
        sock = proxies.tunnel(proxy, address, patience)
    patience.peer = f"host {address.host!r} port {address.port}"
    return tls.secure(sock, address.host, settings.ssl, patience) if address.secure else sock
        sock = _http_proxy(proxy, address, patience)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in KEEPALIVE:
            with contextlib.suppress(OSError):
                sock.setsockopt(*option)
        return _tls(sock, address, settings.ssl, patience) if address.secure else sock
    except BaseException:
        sock.close()
        raise


def explained(exc: OSError, what: str) -> OSError:
    """An exception of the same class whose message also says to which host it happened."""
    reason = exc.strerror if isinstance(exc.strerror, str) else str(exc) or type(exc).__name__
    new = type(exc)(exc.errno, f"{what}: {reason}") if exc.errno is not None else type(exc)(f"{what}: {reason}")
    for name in ("verify_code", "verify_message", "reason", "library"):
        if hasattr(exc, name):
            with contextlib.suppress(AttributeError):
                setattr(new, name, getattr(exc, name))
    new.__cause__ = exc
    return new


# -- addresses and TCP --------------------------------------------------------------------------------

_Info = tuple[Any, Any, int, str, Any]


def _resolve(host: str, port: int, patience: Patience) -> list[_Info]:
    patience.stage = f"looking up host {host!r}"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        numeric = False
    else:
        numeric = True
    try:
        if numeric:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        infos = patience.background(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except socket.gaierror as exc:
        raise explained(exc, f"host {host!r} was not found") from exc
    except UnicodeError as exc:
        # The codec that getaddrinfo uses refuses empty labels and labels of over 63 characters.
        raise socket.gaierror(socket.EAI_NONAME, f"host {host!r} was not found: {exc}") from exc
    # RFC 8305 section 4: the families take turns, the first one first.
    first = [info for info in infos if info[0] == infos[0][0]]
    second = [info for info in infos if info[0] != infos[0][0]]
    longer = max(len(first), len(second))
    return [info for i in range(longer) for family in (first, second) for info in family[i : i + 1]]


def _tcp(host: str, port: int, patience: Patience) -> socket.socket:
    """Connect to the first address that answers; one that does not answer costs `STAGGER` seconds."""
    infos = _resolve(host, port, patience)
    where = f"host {host!r} port {port}"
    patience.stage = f"connecting to {where}"
    errors: list[OSError] = []
    trying: dict[socket.socket, Any] = {}
    selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()  # neither takes a descriptor
    selector.register(patience.waker, selectors.EVENT_READ)
    try:
        while infos or trying:
            if infos:
                sock = _begin(infos.pop(0), errors)
                if sock is None:
                    continue
                patience.socks.append(sock)
                trying[sock] = selector.register(sock, selectors.EVENT_WRITE)
            winner = _first_connected(selector, trying, errors, patience, STAGGER if infos else None)
            if winner is not None:
                del trying[winner]
                return winner
        raise explained(errors[0], f"no connection to {where}")
    finally:
        selector.close()
        for sock in trying:
            sock.close()


def _begin(info: _Info, errors: list[OSError]) -> socket.socket | None:
    """Start to connect to one address."""
    family, kind, proto, _, address = info
    sock = None
    try:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        sock.connect(address)
    except BlockingIOError:
        return sock
    except OSError as exc:
        errors.append(exc)
        if sock is not None:
            sock.close()
        return None
    return sock


def _first_connected(
    selector: selectors.BaseSelector,
    trying: dict[socket.socket, Any],
    errors: list[OSError],
    patience: Patience,
    limit: float | None,
) -> socket.socket | None:
    """The first socket that is connected; None when one failed, or after `limit` seconds."""
    end = None if limit is None else time.monotonic() + limit
    while True:
        limits = [patience.left(), None if end is None else max(0.0, end - time.monotonic())]
        wanted = [capped(seconds) for seconds in limits if seconds is not None]
        ready = selector.select(min(wanted) if wanted else None)
        socks = [key.fileobj for key, _ in ready if isinstance(key.fileobj, socket.socket)]
        if len(socks) < len(ready):
            patience.waker.clear()
        elif not ready and end is not None and time.monotonic() >= end:
            return None
        if socks:
            break
    for sock in socks:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and not _to_itself(sock):
            selector.unregister(sock)
            return sock
        code = code or errno.ECONNREFUSED
        errors.append(socket_error(code))
        selector.unregister(sock)
        del trying[sock]
        sock.close()
    return None


def _to_itself(sock: socket.socket) -> bool:
    """Whether a loopback port where nobody listens was connected to itself (TCP simultaneous open)."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return True  # it is gone again


# -- TLS ----------------------------------------------------------------------------------------------

_default_context: ssl.SSLContext | None = None


def _tls(sock: socket.socket, address: Address, context: ssl.SSLContext | None, patience: Patience) -> socket.socket:
    global _default_context
    host = address.host.rstrip(".")
    patience.stage = f"TLS handshake with host {host!r}"
    if context is None:
        if _default_context is None:
            fresh = ssl.create_default_context()  # the system's store, host name checked
            fresh.minimum_version = max(fresh.minimum_version, ssl.TLSVersion.TLSv1_2)
            fresh.set_alpn_protocols(["http/1.1"])
            _default_context = fresh
        context = _default_context
    try:
        host.encode("idna")  # as wrap_socket does, which leaves the socket open when it fails
        secure = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    except ValueError as exc:
        raise ssl.SSLError(1, f"TLS with host {host!r} is not possible: {exc}") from exc
    except OSError as exc:  # the connection was reset meanwhile
        _close_half_made(exc)
        raise explained(exc, f"TLS handshake with host {host!r} failed") from exc
    patience.socks.append(secure)
    try:
        while True:
            try:
                secure.do_handshake()
                return secure
            except ssl.SSLWantReadError:
                patience.wait(secure, read=True)
            except ssl.SSLWantWriteError:
                patience.wait(secure, write=True)
    except (Aborted, TimeoutError):
        secure.close()
        raise
    except OSError as exc:
        secure.close()
        raise explained(exc, f"TLS handshake with host {host!r} failed") from exc
    except BaseException:
        secure.close()
        raise


def _close_half_made(exc: OSError) -> None:
    """Close the SSLSocket that wrap_socket() was making when it raised: Python before 3.13 leaves it open."""
    step = exc.__traceback__
    while step is not None:
        owner = step.tb_frame.f_locals.get("self")
        if isinstance(owner, ssl.SSLSocket):
            owner.close()
        step = step.tb_next


# -- proxies ------------------------------------------------------------------------------------------


def _environment_proxy(address: Address) -> str | None:
    """The proxy that the environment (or the system, on macOS and Windows) names for this URL."""
    if not proxy_possible():
        return None  # the usual case, without an import that takes longer than a connection
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    own = ("wss", "https") if address.secure else ("ws", "http")
    chosen = next((proxies[name] for name in (*own, "all") if proxies.get(name)), None)
    if not chosen or proxy_bypass(f"{address.host}:{address.port}") or proxy_bypass(address.host):
        return None
    return chosen if "://" in chosen else "http://" + chosen


def _proxy_parts(proxy: str, port: int) -> tuple[SplitResult, str]:
    """A proxy's URL taken apart, and how it is shown; `port`: the default.

    Raises:
        ProxyError: The environment has something else than a proxy's URL.
    """
    try:
        parts = urlsplit(proxy)
        if parts.scheme in ("http", "socks4", "socks4a", "socks5", "socks5h") and parts.hostname:
            return parts, f"proxy {parts.hostname!r} port {parts.port or port}"
    except ValueError:
        pass
    raise ProxyError(
        f"proxy {brief(without_password(proxy))}, from the environment, is not usable; expected http, socks4, socks4a, "
        "socks5 or socks5h, a host and a port, or proxy=None"
    )


def _http_proxy(proxy: str, address: Address, patience: Patience) -> socket.socket:
    """A tunnel (RFC 9110 section 9.3.6)."""
    parts, shown = _proxy_parts(proxy, 80)
    host = f"[{address.host}]" if ":" in address.host else address.host
    lines = [f"CONNECT {host}:{address.port} HTTP/1.1", f"Host: {host}:{address.port}"]
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(pair).decode("ascii"))
    try:
        sock = _tcp(parts.hostname or "", parts.port or 80, patience)
    except (Aborted, TimeoutError):
        raise
    except OSError as exc:
        raise explained(exc, shown) from exc
    try:
        patience.stage = f"waiting for {shown}"
        write(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), patience)
        reader = HeadReader(f"the answer of {shown}")
        try:
            while (head := reader.feed(read(sock, reader, patience))) is None:
                pass
        except HandshakeError as exc:
            raise ProxyError(str(exc)) from None
        if not 200 <= head.status < 300:
            raise ProxyError(f"{shown} answered HTTP {head.status} {printable(head.reason)}".rstrip(), head.status)
        if reader.rest:
            raise ProxyError(f"{shown} sent {len(reader.rest)} bytes before the server could")
        return sock
    except BaseException:
        sock.close()
        raise


def _socks(proxy: str, address: Address, patience: Patience) -> socket.socket:
    """SOCKS through python-socks, which blocks: it runs on a thread of its own."""
    try:
        from python_socks import ProxyError as SocksError
        from python_socks import ProxyType
        from python_socks.sync import Proxy
    except ImportError:
        raise ProxyError("a SOCKS proxy needs the package python-socks; run: pip install 'bws[socks]'") from None
    parts, shown = _proxy_parts(proxy, 1080)
    kind = ProxyType.SOCKS4 if parts.scheme in ("socks4", "socks4a") else ProxyType.SOCKS5
    patience.stage = f"waiting for {shown}"
    client = Proxy(
        proxy_type=kind,
        host=parts.hostname or "",
        port=parts.port or 1080,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        rdns=parts.scheme in ("socks4a", "socks5h"),
    )
    left = patience.left()
    try:
        sock: socket.socket = patience.background(
            lambda: client.connect(address.host, address.port, timeout=86400 if left is None else left),
            lambda late: late.close(),
        )
    except (Aborted, TimeoutError):
        raise
    except (SocksError, OSError) as exc:
        raise ProxyError(f"{shown} failed: {exc}") from exc
    sock.setblocking(False)
    return sock


# -- bytes, before the engine's loop takes over -------------------------------------------------------


def read(sock: socket.socket, reader: HeadReader, patience: Patience) -> bytes:
    """What comes next.

    Raises:
        HandshakeError: The connection ended.
    """
    while True:
        try:
            data = sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            patience.wait(sock, read=True)
        except ssl.SSLWantWriteError:
            patience.wait(sock, write=True)
        except OSError as exc:
            raise explained(exc, "the connection was lost during the opening handshake") from exc
        else:
            if not data:
                raise reader.eof()
            return data


def write(sock: socket.socket, data: bytes, patience: Patience) -> None:
    """Send all of `data`."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            patience.wait(sock, write=True)
        except ssl.SSLWantReadError:
            patience.wait(sock, read=True)
        except OSError as exc:
            raise explained(exc, "the connection was lost during the opening handshake") from exc
