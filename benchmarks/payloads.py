"""The messages, the same on both ends."""

from __future__ import annotations

import json
import random

_MIXED = "Grüße aus Köln, 世界 — ça va? "  # one to three bytes a character, most of them one


def make(kind: str, size: int) -> str | bytes:
    """A message of exactly `size` bytes: "text" (ASCII), "utf8", "bin" or "json"; bytes for "bin" only."""
    if kind == "text":
        return "a" * size
    if kind == "utf8":
        unit = _MIXED.encode()
        whole = (unit * (size // len(unit) + 1))[:size].decode(errors="ignore")
        return whole + " " * (size - len(whole.encode()))
    if kind == "bin":
        return random.Random(1).randbytes(size)
    if kind == "json":
        return _json(size)
    raise ValueError(f"no such kind of message: {kind!r}")


def _json(size: int) -> str:
    """Records as an exchange or a sensor sends them; they compress about five times."""
    chance, length = random.Random(1), 2
    records: list[dict[str, object]] = []
    while length < size:
        record = {
            "id": len(records),
            "symbol": chance.choice(["BTC-EUR", "ETH-EUR", "XMR-EUR"]),
            "side": chance.choice(["buy", "sell"]),
            "price": round(chance.uniform(100, 60_000), 2),
            "amount": round(chance.random(), 6),
        }
        records.append(record)
        length += len(json.dumps(record)) + 2
    records.pop()
    text = json.dumps(records)
    return text + " " * (size - len(text))
