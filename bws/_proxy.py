"""A proxy's URL, taken apart and checked."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from ._text import brief

__all__ = ["SCHEMES", "Proxy", "parse"]

# scheme: the port when the URL has none
SCHEMES = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_SOCKS = 255  # bytes of a user name or a password, RFC 1929


class Proxy(NamedTuple):
    """Where a proxy is, and who asks it.

    Attributes:
        scheme: One of `SCHEMES`.
        host: Name or IP address, without brackets.
        port: TCP port.
        credentials: User name and password, decoded; None when the URL has none.
    """

    scheme: str
    host: str
    port: int
    credentials: tuple[str, str] | None

    def __repr__(self) -> str:
        return f"proxy {self.host!r} port {self.port}"

    @property
    def socks(self) -> bool:
        """Whether it speaks SOCKS."""
        return self.scheme.startswith("socks")


def parse(url: str) -> Proxy:
    """Take a proxy's URL apart.

    Raises:
        ValueError: It is not usable; the message has no password.
    """
    shown = brief(url.rpartition("@")[2])  # whatever else is mistyped, what is before the @ is left out
    try:
        parts = urlsplit(url)
        # GNOME's settings put socks:// into the environment, which Chromium reads as SOCKS 5, names left to the proxy.
        scheme = "socks5h" if parts.scheme == "socks" else parts.scheme
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
    except ValueError:
        scheme, host, port, user, password = "", None, None, None, None
    if scheme not in SCHEMES or not host or port == 0 or _CONTROL.search(url) or " " in url:
        raise ValueError(f"{shown} is not usable; expected SCHEME://HOST:PORT with one of {', '.join(SCHEMES)}")
    credentials = None
    if user is not None:
        credentials = (_decoded(user, shown), _decoded(password or "", shown))
        if scheme.startswith("socks"):
            _check_socks(scheme, credentials, shown)
    return Proxy(scheme, host, port or SCHEMES[scheme], credentials)


def _decoded(part: str, shown: str) -> str:
    text = unquote_to_bytes(part).decode("utf-8", "replace")
    if _CONTROL.search(text):
        raise ValueError(f"{shown}: its user name or password has a control character (CR, LF, NUL ...)")
    return text


def _check_socks(scheme: str, credentials: tuple[str, str], shown: str) -> None:
    user, password = credentials
    if not (user + password).isascii() or max(len(user), len(password)) > _MAX_SOCKS:
        raise ValueError(f"{shown}: user name and password of SOCKS are up to {_MAX_SOCKS} ASCII characters each")
    if scheme.startswith("socks5") and not (user and password):
        raise ValueError(f"{shown}: SOCKS 5 needs a user name and a password, or neither")
