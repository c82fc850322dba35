"""Values and foreign text as they may be shown in messages, reprs and logs."""

from __future__ import annotations

import re

__all__ = ["brief", "mistyped", "printable", "without_password"]

_URL = re.compile(r"((?:\s*[A-Za-z][A-Za-z0-9+.\-]*:)?[\s/\\]*)([^/\\?#]*)(.*)", re.DOTALL)
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.\-]*:[\s/\\]*")
_SHOWN = 40  # characters of a payload in a repr


def brief(value: object, limit: int = _SHOWN) -> str:
    """``repr(value)``, cut so that no payload floods a log line."""
    if isinstance(value, (str, bytes)) and len(value) > limit:
        return f"{value[:limit]!r}... ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    try:
        text = repr(value)
    except Exception:  # a repr of the program's own, or an int of over 4,300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."


def printable(text: str, limit: int = 80) -> str:
    """A server's text as it may be shown and logged: cut, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit]) + ("..." if len(text) > limit else "")


def without_password(url: str) -> str:
    """A URL as it may be shown and logged: without what is before the ``@``, also where slashes are mistyped."""
    start, authority, rest = _URL.match(url).groups()  # type: ignore[union-attr] # it matches everything
    return f"{start}{authority.rpartition('@')[2]}{rest}"


def mistyped(url: str) -> str:
    """A URL that may have any mistake as it may be shown: without all that is before the last ``@``."""
    start, at, rest = url.rpartition("@")
    scheme = _SCHEME.match(start)
    return f"{scheme[0] if scheme else ''}{rest}" if at else rest
