"""Proxies: which one the environment names, and tunnels through HTTP CONNECT and SOCKS."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import socket

from .._proxy import Proxy, parse
from .._settings import Address
from .._system import importing, proxy_asks_dns, proxy_possible
from .._text import printable
from ..errors import HandshakeError, ProxyError
from . import tcp, tls
from .handshake import Head, HeadReader
from .patience import Aborted, Patience, explained, read, write

__all__ = ["choose", "tunnel"]

_LOOKS = 100  # at an environment that changes all the time


def choose(option: bool | str | None, address: Address, patience: Patience) -> Proxy | None:
    """The proxy for this address, or None.

    Args:
        option: What the program said: a URL, True for the environment, None for none.
        address: Where the connection leads.
        patience: What is waited with, where the system's settings have to be asked.

    Raises:
        ProxyError: The environment has something else than a proxy's URL.
        Aborted, TimeoutError: As `Patience.wait`.
    """
    if isinstance(option, str):
        return parse(option)
    url = None
    if option and proxy_possible():
        patience.stage = "asking the system for a proxy"
        url = patience.background(lambda: _environments(address)) if proxy_asks_dns() else _environments(address)
    if url is None:
        return None
    try:
        return parse(url)
    except ValueError as exc:
        raise ProxyError(f"the environment's proxy {exc}; or use proxy=None") from None


def _environments(address: Address) -> str | None:
    """The proxy that the environment (or the system, on macOS and Windows) names for this URL."""
    for _ in range(_LOOKS):
        # urllib goes through all variables, and stumbles over one that another thread takes away meanwhile.
        with contextlib.suppress(KeyError):
            return _look(address)
    return _look(address)


def _look(address: Address) -> str | None:
    with importing:
        from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    own = ("wss", "https") if address.secure else ("ws", "http")
    name = next((name for name in (*own, "socks", "all") if proxies.get(name)), None)
    if name is None:
        return None
    exceptions = proxies.get("no", "")
    if (
        proxy_bypass(f"{address.host}:{address.port}")
        or proxy_bypass(address.host)
        or _in_network(address.host, exceptions)
    ):
        return None
    url = proxies[name]
    if name == "socks":
        # macOS names a scheme which it is not.
        return url if url.startswith("socks") and "://" in url else "socks5h://" + url.rpartition("://")[2]
    return url if "://" in url else "http://" + url


def _in_network(host: str, exceptions: str) -> bool:
    """Whether no_proxy names this IP address, or a network that it is in, as curl and requests read it."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    for name in exceptions.split(","):
        with contextlib.suppress(ValueError):
            if ip in ipaddress.ip_network(name.strip().replace("[", "").replace("]", ""), strict=False):
                return True
    return False


def tunnel(proxy: Proxy, address: Address, patience: Patience) -> socket.socket:
    """A connected, non-blocking socket that leads through the proxy to `address`.

    Raises:
        OSError: There is none; the message names the proxy.
    """
    if proxy.socks:
        return _socks(proxy, address, patience)
    patience.peer = repr(proxy)
    try:
        sock = tcp.connect(proxy.host, proxy.port, patience)
        if proxy.scheme == "https":
            sock = tls.secure(sock, proxy.host, None, patience)
    except (Aborted, TimeoutError):
        raise
    except OSError as exc:
        raise explained(exc, repr(proxy)) from exc
    try:
        _ask(sock, proxy, address, patience)
        if proxy.scheme == "https" and address.secure:
            from .relay import relayed  # TLS in TLS: the inner one needs a socket of its own

            sock = relayed(sock)
        return sock
    except BaseException:
        sock.close()
        raise


def _ask(sock: socket.socket, proxy: Proxy, address: Address, patience: Patience) -> None:
    """Ask an HTTP proxy for a tunnel (RFC 9110 section 9.3.6)."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    lines = [f"CONNECT {host}:{address.port} HTTP/1.1", f"Host: {host}:{address.port}"]
    if proxy.credentials is not None:
        pair = ":".join(proxy.credentials).encode()
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(pair).decode("ascii"))
    patience.stage = f"waiting for {proxy!r}"
    write(sock, ("\r\n".join(lines) + "\r\n\r\n").encode("ascii"), patience)
    head: Head | None = None
    rest = b""
    try:
        while head is None or (100 <= head.status < 200 and head.status != 101):  # 1xx: others follow, section 15.2
            reader = HeadReader(f"the answer of {proxy!r}", "an https: proxy" if proxy.scheme == "http" else "")
            head = reader.feed(rest) if rest else None
            while head is None:
                head = reader.feed(read(sock, reader, patience))
            rest = reader.rest
    except HandshakeError as exc:
        raise ProxyError(str(exc)) from None
    if not 200 <= head.status < 300:
        raise ProxyError(f"{proxy!r} answered HTTP {head.status} {printable(head.reason)}".rstrip(), head.status)
    if rest:
        raise ProxyError(f"{proxy!r} sent {len(rest)} bytes before the server could")


def _socks(proxy: Proxy, address: Address, patience: Patience) -> socket.socket:
    """SOCKS through python-socks, which blocks: it runs on a thread of its own."""
    try:
        with importing:
            from python_socks import ProxyError as SocksError
            from python_socks import ProxyType
            from python_socks.sync import Proxy as Client
    except ImportError:
        raise ProxyError("a SOCKS proxy needs the package python-socks; run: pip install 'bws[socks]'") from None
    try:
        sock = tcp.connect(proxy.host, proxy.port, patience)
    except (Aborted, TimeoutError):
        raise
    except OSError as exc:
        raise ProxyError(f"{proxy!r} failed: {exc}") from exc
    patience.stage = f"waiting for {proxy!r}"
    forward = _Connected(sock)
    handle = None
    try:
        handle = sock.dup()
        patience.socks.append(handle)
        user, password = proxy.credentials or (None, None)
        client = Client(
            proxy_type=ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5,
            host=proxy.host,
            port=proxy.port,
            username=user or None,
            password=password or None,
            rdns=proxy.scheme in ("socks4a", "socks5h"),
            forward=forward,  # type: ignore[arg-type] # what is asked of it, it can do
        )
        sock.settimeout(patience.limit())
        patience.background(lambda: client.connect(address.host, address.port), lambda late: late.close())
    except BaseException as exc:
        if forward.taken and handle is not None:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)  # the thread comes back, and closes it
        else:
            sock.close()
        if isinstance(exc, (SocksError, OSError, ValueError)) and not isinstance(exc, (Aborted, TimeoutError)):
            # ValueError: an address that its version of SOCKS cannot carry
            raise ProxyError(f"{proxy!r} failed: {exc}") from exc
        raise
    finally:
        if handle is not None:
            handle.close()
    sock.setblocking(False)
    return sock


class _Connected:
    """A proxy's place in python-socks: the connection to the next one, which is there already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.taken = False

    def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> socket.socket:
        self.taken = True
        return self._sock
