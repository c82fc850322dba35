"""The way to the server: through a proxy or not, TCP, TLS."""

from __future__ import annotations

import socket

from .._settings import Settings
from . import proxies, tcp, tls
from .patience import Patience

__all__ = ["connect"]


def connect(settings: Settings, patience: Patience) -> socket.socket:
    """A connected, non-blocking socket, which speaks TLS for wss:, ready for the opening handshake.

    Raises:
        OSError: It could not be made: DNS, TCP, TLS, proxy, time-out, abort; the message names the host.
    """
    address = settings.address
    proxy = proxies.choose(settings.proxy, address, patience)
    if proxy is None:
        sock = tcp.connect(address.host, address.port, patience)
    else:
        sock = proxies.tunnel(proxy, address, patience)
    patience.peer = f"host {address.host!r} port {address.port}"
    return tls.secure(sock, address.host, settings.ssl, patience) if address.secure else sock
