"""How messages are typed and shown."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

# What moves the cursor, ends the line, or turns the order of what stands on it around; tabs are harmless.
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# What ends or begins a string of JSON, an escape in one, and white space.
_MARKS = re.compile(r'\\.|"|[ \t\r\n]+')


def escaped(text: str) -> str:
    """The text with its control characters spelled out, so that a terminal does not obey the peer."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without_password(url: str) -> str:
    """The serialized URL of a socket, as it may be shown: without ``user:password@``."""
    return re.sub(r"//[^/?#]*@", "//", url, count=1)


def one_line(text: str) -> str:
    """The text with its line ends spelled out: in a pipe a message is a line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


@dataclass(frozen=True)
class Format:
    """One way to write messages: ``'text'``, ``'hex'``, ``'base64'`` or ``'json'``."""

    name: str

    def read(self, text: str) -> str | bytes:
        """The message that a line of input stands for.

        Raises:
            ValueError: It stands for none.
        """
        if self.name == "hex":
            try:
                return bytes.fromhex(text)
            except ValueError:
                raise ValueError("this is not hexadecimal") from None
        if self.name == "base64":
            try:
                return base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("this is not Base64") from None
        if self.name == "json":
            try:
                parse_json(text)
            except ValueError as error:
                raise ValueError(f"this is not JSON: {error}") from None
        return text

    def line(self, message: str | bytes) -> str:
        """The message for a pipe. JSON over several lines becomes one."""
        if isinstance(message, bytes):
            return self.binary(message)
        if self.name == "json" and ("\n" in message or "\r" in message):
            try:
                parse_json(message)
            except ValueError:
                pass  # the peer may send what it wants
            else:
                return _without_space(message)
        return one_line(message)

    def lines(self, message: str | bytes) -> list[str]:
        """The message for a terminal. The line ends between these lines are ours; JSON has several."""
        if self.name == "json" and isinstance(message, str) and (laid_out := _laid_out(message)) is not None:
            return laid_out.split("\n")
        return [self.binary(message) if isinstance(message, bytes) else message]

    def binary(self, message: bytes) -> str:
        """A binary message in letters."""
        return base64.b64encode(message).decode("ascii") if self.name == "base64" else message.hex()

    def same(self, one: str | bytes, other: str | bytes) -> bool:
        """Whether two messages say the same; JSON may be laid out differently."""
        if self.name == "json" and isinstance(one, str) and isinstance(other, str):
            try:
                return _canonical(one) == _canonical(other)
            except (ValueError, RecursionError):
                return False
        return one == other


def _without_space(text: str) -> str:
    """JSON without white space between tokens; not written anew, so numbers and doubled keys stay as they were sent."""
    inside = False

    def keep(found: re.Match[str]) -> str:
        nonlocal inside
        mark = found[0]
        if mark == '"':
            inside = not inside
        return mark if inside or mark == '"' else ""

    return _MARKS.sub(keep, text)


def _laid_out(text: str) -> str | None:
    """JSON over several lines; None for what is none, and where the indents would be most of it."""
    parts: list[str] = []
    room = 4 * len(text) + 200_000
    try:
        for part in json.JSONEncoder(ensure_ascii=False, allow_nan=False, indent=2).iterencode(parse_json(text)):
            parts.append(part)
            room -= len(part)
            if room < 0:
                return None
    except (ValueError, RecursionError):
        return None
    return "".join(parts)


def _canonical(text: str) -> str:
    """One text for all that mean the same value: 1 and 1.0 do, and true, which Python finds equal too, does not."""
    parse_json(text)
    return json.dumps(json.loads(text, parse_float=_number), sort_keys=True)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def parse_json(text: str) -> Any:
    """The value of a JSON text; ``ValueError`` also for NaN, and for what is nested too deep."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
