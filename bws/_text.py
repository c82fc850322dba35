"""Values and foreign text as they may be shown in messages, reprs and logs."""

from __future__ import annotations

__all__ = ["brief", "printable", "without_password"]

_SHOWN = 40  # characters of a payload in a repr


def brief(value: object, limit: int = _SHOWN) -> str:
    """``repr(value)``, cut so that no payload floods a log line."""
    if isinstance(value, (str, bytes)) and len(value) > limit:
        return f"{value[:limit]!r}... ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    text = repr(value)
    return text if len(text) <= 2 * limit else text[: 2 * limit] + "..."


def printable(text: str, limit: int = 80) -> str:
    """A server's text as it may be shown and logged: cut, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:limit]) + ("..." if len(text) > limit else "")


def without_password(url: str) -> str:
    """A URL as it may be shown and logged: without what is before the ``@``."""
    scheme, slashes, rest = url.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"
