"""What is measured. All figures are such that less is better."""

from __future__ import annotations

from dataclasses import dataclass, field

from .peers import Peer

KIB, MIB = 1024, 1024 * 1024

GROUPS = {  # and what stands above their charts
    "latency": "Latency",
    "receive": "Receive: time per message",
    "send": "Send: time per message",
    "tls": "TLS: time per message",
    "compression": "1 MiB of JSON, without and with permessage-deflate",
    "dispatch": "Messages handed to another thread",
    "connections": "500 connections at once",
}


@dataclass(frozen=True)
class Row:
    """A figure of a job: a line of the table."""

    name: str
    title: str
    unit: str  # "s", "KiB", "ms/s", or "" for a count


@dataclass(frozen=True)
class Job:
    """Something to measure."""

    name: str
    group: str
    kind: str  # a function of measure.py
    title: str
    count: int  # messages, connections or imports in one round
    payload: str = "text"
    size: int = 32  # bytes of a message
    piece: int = 0  # bytes of a fragment; 0: messages are not fragmented
    connections: int = 1
    slow: int = 1  # by what the count is divided for websocket-client, so that it ends in time
    needs: frozenset[str] = field(default=frozenset())
    quick: bool = False  # part of a quick run
    rows: tuple[Row, ...] = ()

    @property
    def figures(self) -> tuple[Row, ...]:
        """The lines of the table."""
        return self.rows or (Row(self.name, self.title, "s"),)

    def suits(self, peer: Peer) -> bool:
        """Whether a peer can do it, and it says anything about that peer."""
        if "masking" in peer.features:
            return self.group == "send"
        return self.needs <= peer.features

    def count_for(self, peer: Peer, quick: bool) -> int:
        """How many messages, connections or imports."""
        count = self.count // (self.slow if peer.key == "websocket_client" else 1)
        return max(1, count // 5 if quick and self.kind != "hold" else count)


def _receive(name: str, title: str, payload: str, size: int, count: int, slow: int = 1, quick: bool = False) -> Job:
    return Job(f"recv_{name}", "receive", "receive", title, count, payload, size, slow=slow, quick=quick)


def _send(name: str, title: str, payload: str, size: int, count: int, quick: bool = False) -> Job:
    return Job(f"send_{name}", "send", "send", title, count, payload, size, quick=quick)


def _tls(kind: str, name: str, title: str, payload: str, size: int, count: int, slow: int = 1) -> Job:
    short = {"receive": "recv", "send": "send"}[kind]
    return Job(
        f"tls_{short}_{name}", "tls", kind, f"{kind} {title}", count, payload, size, slow=slow, needs=frozenset({"tls"})
    )


def _json(kind: str, deflate: bool, slow: int = 1) -> Job:
    short = {"receive": "recv", "send": "send"}[kind]
    return Job(
        f"json_{short}" + "_deflate" * deflate,
        "compression",
        kind,
        f"{kind}, " + ("permessage-deflate" if deflate else "not compressed"),
        30 if deflate else 100,
        "json",
        MIB,
        slow=slow,
        needs=frozenset({"deflate"} if deflate else ()),
    )


def _hand_over(pump: str, connections: int) -> Job:
    where = {"loop": "loop.call_soon_threadsafe", "queue": "a queue"}[pump]
    what = "1 connection" if connections == 1 else f"{connections} connections"
    return Job(
        f"{pump}_{connections}",
        "dispatch",
        "hand_over",
        f"{where}, {what}",
        100_000,
        size=100,
        connections=connections,
        slow=10,
        needs=frozenset({pump}),
    )


_HELD = (
    Row("connection_memory", "memory per connection", "KiB"),
    Row("connection_threads", "threads per connection", ""),
    Row("connection_descriptors", "descriptors per connection", ""),
    Row("connections_open", "open them all", "s"),
    Row("connections_close", "close them all", "s"),
    Row("connections_idle", "CPU time while idle, all together", "ms/s"),
)

JOBS = {
    job.name: job
    for job in (
        Job("rtt", "latency", "echo", "round trip, 32 B", 3000, quick=True),
        Job("rtt_tls", "latency", "echo", "round trip, 32 B, TLS", 3000, needs=frozenset({"tls"})),
        Job("connect", "latency", "connect", "open and close a connection", 200, slow=200, needs=frozenset({"small"})),
        Job("import", "latency", "importing", "import", 10, needs=frozenset({"import"}), quick=True),
        _receive("100B_text", "100 B, text", "text", 100, 200_000, 20, quick=True),
        _receive("100B_bin", "100 B, binary", "bin", 100, 200_000, 20),
        _receive("4K_utf8", "4 KiB, UTF-8", "utf8", 4 * KIB, 30_000, 100, quick=True),
        _receive("64K_text", "64 KiB, text", "text", 64 * KIB, 5000, 200),
        _receive("64K_bin", "64 KiB, binary", "bin", 64 * KIB, 5000, quick=True),
        _receive("1M_text", "1 MiB, text", "text", MIB, 300, 100, quick=True),
        _receive("1M_utf8", "1 MiB, UTF-8", "utf8", MIB, 150, 50, quick=True),
        _receive("1M_bin", "1 MiB, binary", "bin", MIB, 300),
        Job("fragments", "receive", "receive", "4 MB in 64-byte fragments", 5, "bin", 4_000_000, piece=64, slow=5),
        _send("100B_text", "100 B, text", "text", 100, 50_000, quick=True),
        _send("100B_bin", "100 B, binary", "bin", 100, 50_000),
        _send("4K_utf8", "4 KiB, UTF-8", "utf8", 4 * KIB, 20_000),
        _send("64K_text", "64 KiB, text", "text", 64 * KIB, 3000),
        _send("64K_bin", "64 KiB, binary", "bin", 64 * KIB, 3000, quick=True),
        _send("1M_text", "1 MiB, text", "text", MIB, 150, quick=True),
        _send("1M_utf8", "1 MiB, UTF-8", "utf8", MIB, 100),
        _send("1M_bin", "1 MiB, binary", "bin", MIB, 150),
        _tls("receive", "100B_text", "100 B, text", "text", 100, 100_000, 10),
        _tls("receive", "64K_bin", "64 KiB, binary", "bin", 64 * KIB, 3000),
        _tls("receive", "1M_text", "1 MiB, text", "text", MIB, 150, 50),
        _tls("send", "100B_text", "100 B, text", "text", 100, 30_000),
        _tls("send", "64K_bin", "64 KiB, binary", "bin", 64 * KIB, 2000),
        _tls("send", "1M_text", "1 MiB, text", "text", MIB, 100),
        _json("receive", False, slow=30),
        _json("receive", True),
        _json("send", False),
        _json("send", True),
        _hand_over("loop", 1),
        _hand_over("loop", 4),
        _hand_over("queue", 1),
        _hand_over("queue", 4),
        Job(
            "connections", "connections", "hold", "500 connections", 500, needs=frozenset({"connections"}), rows=_HELD,
            quick=True,
        ),
    )
}  # fmt: skip
