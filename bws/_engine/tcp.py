"""Addresses and TCP."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import selectors
import socket
import time
from typing import Any

from .._system import KEEPALIVE, capped, socket_error, stop_pacing
from .patience import Patience, explained
from .wire import Stream

__all__ = ["connect", "tune"]

STAGGER = 0.25  # s until the next address is tried beside one that does not answer (RFC 8305 section 5)

_Info = tuple[Any, Any, int, str, Any]


def _resolve(host: str, port: int, patience: Patience) -> list[_Info]:
    patience.stage = f"looking up host {host!r}"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        numeric = False
    else:
        numeric = True
    local = re.fullmatch(r"(.+\.)?localhost\.?", host, re.IGNORECASE) is not None
    name = "localhost" if local else host  # subdomains are asked nobody for, RFC 6761 section 6.3
    try:
        if numeric:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        infos = patience.background(lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except socket.gaierror as exc:
        if local:
            return _loopback(port)
        raise explained(exc, f"host {host!r} was not found") from exc
    except UnicodeError as exc:
        # The codec that getaddrinfo uses refuses empty labels and labels of over 63 characters.
        raise socket.gaierror(socket.EAI_NONAME, f"host {host!r} was not found: {exc}") from exc
    if local:
        infos += [info for info in _loopback(port) if all(info[0] != known[0] for known in infos)]
    # RFC 8305 section 4: the families take turns, the first one first.
    first = [info for info in infos if info[0] == infos[0][0]]
    second = [info for info in infos if info[0] != infos[0][0]]
    longer = max(len(first), len(second))
    return [info for i in range(longer) for family in (first, second) for info in family[i : i + 1]]


def _loopback(port: int) -> list[_Info]:
    """Both addresses of localhost: as browsers do, whatever the system's table of hosts leaves out."""
    tcp = socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
    return [(socket.AF_INET6, *tcp, ("::1", port, 0, 0)), (socket.AF_INET, *tcp, ("127.0.0.1", port))]


def connect(host: str, port: int, patience: Patience) -> socket.socket:
    """Connect to the first address that answers; one that does not answer costs `STAGGER` seconds."""
    infos = _resolve(host, port, patience)
    where = f"host {host!r} port {port}"
    patience.stage = f"connecting to {where}"
    errors: list[OSError] = []
    trying: dict[Stream, Any] = {}
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
                tune(winner)  # macOS refuses when the peer has gone already
                del trying[winner]
                return winner
        raise explained(errors[0], f"no connection to {where}")
    finally:
        selector.close()
        for sock in trying:
            sock.close()


def _begin(info: _Info, errors: list[OSError]) -> Stream | None:
    """Start to connect to one address."""
    family, kind, proto, _, address = info
    sock = None
    try:
        sock = Stream(family, kind, proto)
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
    trying: dict[Stream, Any],
    errors: list[OSError],
    patience: Patience,
    limit: float | None,
) -> Stream | None:
    """The first socket that is connected; None when one failed, or after `limit` seconds."""
    end = None if limit is None else time.monotonic() + limit
    while True:
        limits = [patience.left(), None if end is None else max(0.0, end - time.monotonic())]
        wanted = [capped(seconds) for seconds in limits if seconds is not None]
        ready = selector.select(min(wanted) if wanted else None)
        socks = [key.fileobj for key, _ in ready if isinstance(key.fileobj, Stream)]
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


def tune(sock: Stream) -> None:
    """No delay for small frames, none on this machine; TCP's own keepalive ends a half-open connection."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.paced = False
    with contextlib.suppress(OSError):
        sock.paced = stop_pacing(sock)
    for option in KEEPALIVE:
        with contextlib.suppress(OSError):
            sock.setsockopt(*option)
