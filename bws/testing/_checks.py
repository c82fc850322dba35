"""Arguments of the test kit: what is wrong is told where it is written, not by a client that behaves oddly later."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

SHOWN = 60  # characters of one message, or event, in a failure
SHOWN_ITEMS = 20  # of them


def check_timeout(timeout: Any, name: str = "timeout") -> float | None:
    """Seconds that ``Condition.wait`` takes; None for no limit."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"{name} must not be negative, is {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


def check_number(name: str, value: Any, kinds: type[int] | tuple[type[int], type[float]], what: str) -> None:
    """Raise unless it is a positive, finite number of those kinds."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name} must be {what}, not {value!r}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be {what}, not {value!r}")


def check_port(port: Any) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an int, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, not {port!r}")


def strings(name: str, values: Any) -> tuple[str, ...]:
    """A sequence of strings, which a string itself is not."""
    if not isinstance(values, (str, bytes)) and isinstance(values, Iterable):
        found = tuple(values)
        if all(isinstance(value, str) for value in found):
            return found
    raise TypeError(f"{name} must be a sequence of str, not {values!r}")


def check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} has a lone surrogate, {value[error.start]!r}, which cannot be sent") from None


def brief(text: str) -> str:
    """As much of a text as fits into a failure."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def told(items: list[Any], noun: str, verb: str) -> str:
    """``2 messages came: 'a', b'b'``; of many the last ones."""
    text = f"{len(items)} {noun}{'' if len(items) == 1 else 's'} {verb}"
    shown = [brief(repr(item)) for item in items[-SHOWN_ITEMS:]]
    if len(items) > len(shown):
        shown.insert(0, f"{len(items) - len(shown)} more")
    return f"{text}: {', '.join(shown)}" if shown else text
