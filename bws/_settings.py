"""The checked arguments of one WebSocket, as the engine takes them, and the rule for times."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterable
from typing import NamedTuple

from ._text import brief
from ._version import __version__

__all__ = ["Address", "Settings", "check_time", "check_wait", "in_memory"]

OPEN_TIMEOUT = 30.0  # s, from the constructor to open
CLOSE_TIMEOUT = 10.0  # s, from close() to the peer's close frame; Chromium has 60
MAX_SIZE = 128 * 1024 * 1024  # bytes of one message
HIGH_WATER_ITEMS = 10_000  # messages that wait for a slow handler, or for the program's own loop
HIGH_WATER_BYTES = 16 * 1024 * 1024
LIGHT = HIGH_WATER_BYTES // 4  # bytes of UTF-8 that are not more than that in memory: UCS-4 takes four times as many
USER_AGENT = f"bws/{__version__}"


class Address(NamedTuple):
    """Where a URL leads.

    Attributes:
        href: The serialized URL.
        secure: Whether TLS is spoken.
        host: Host name or IP address to connect to, without brackets.
        port: TCP port.
        authority: ``host`` or ``host:port`` as the Host header has it.
        origin: ``ws(s)://`` and the authority: what message events carry.
        target: Path and query of the request line.
        authorization: The userinfo as a Basic credential, or ''.
    """

    href: str
    secure: bool
    host: str
    port: int
    authority: str
    origin: str
    target: str
    authorization: str = ""

    @property
    def http_origin(self) -> str:
        """The server's own origin, as the Origin header has it."""
        return ("https" if self.secure else "http") + "://" + self.authority


class Settings(NamedTuple):
    """The options of one WebSocket; times in seconds, sizes in bytes, None for no limit or off."""

    address: Address
    protocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    ssl: ssl.SSLContext | None = None
    proxy: bool | str | None = True
    open_timeout: float | None = OPEN_TIMEOUT
    close_timeout: float | None = CLOSE_TIMEOUT
    ping_interval: float | None = None
    ping_timeout: float | None = None
    max_size: int | None = MAX_SIZE
    compression: bool = True


def check_time(option: str, value: float | None, expected: str = "a positive") -> float | None:
    """A positive number of seconds, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{option} must be a number of seconds or None, not {brief(value)}")
    if not 0 < value <= sys.float_info.max:  # not for NaN either
        raise ValueError(f"{option}={brief(value)} must be {expected}, finite number of seconds, or None")
    return float(value)


def check_wait(option: str, value: float | None) -> float | None:
    """A time to wait: None (for ever), 0 (only look) or a positive number of seconds."""
    return 0.0 if value == 0 and not isinstance(value, bool) else check_time(option, value, "0 or a positive")


def in_memory(messages: Iterable[object]) -> int:
    """Bytes that these take. One emoji in a text makes four of each of its characters."""
    return sum(map(sys.getsizeof, messages))
