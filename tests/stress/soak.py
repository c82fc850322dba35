"""Run many sockets for a long time and account for every message: ``python -m tests.stress.soak [--seconds 600]``.

Each socket asks the server for replies of random number and size, again and again, and for faults at random: the
server cuts, ends, breaks the protocol, closes or reads nothing; or the client closes. A socket whose connection is over
is made anew, by hand. Half of them have TLS, a fifth run their handlers on the main thread, a quarter compress.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import itertools
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import bws
from bws.dispatch import Queue
from tests.stress.messages import Action, Damaged, check_reply, request
from tests.stress.peer import TIMEOUT, Sample, Server, sample, server, settle

PATIENCE = 300.0  # s for opening and closing: the machine may be busy
WARM_UP = 1 / 2  # of the time, after which memory has to be flat
GROWTH = 16 << 20  # bytes of memory that the line through the samples may rise or fall in the rest of the time
SHORT = 120  # s: in a shorter run memory has not settled, and may rise four times as much
USED = 8 << 20  # bytes of it that are in use, the same: what is resident has gaps, and settles slowly
BLOCKS = 50_000  # small pieces of memory, the same
OBJECTS = 20_000  # objects, the same
FAULTS = (Action.CLOSE, Action.RESET, Action.END, Action.GARBAGE)
ROUNDS = 15  # requests of a connection, on average, before a fault
names = itertools.count()


class Plan(NamedTuple):
    """What the next request asks for."""

    action: Action
    want: int
    size: int
    own: int  # bytes of the request's body


def plan() -> Plan:
    """Something at random: mostly many small replies, now and then a large one, rarely a fault."""
    if random.random() < 1 / ROUNDS:
        return Plan(random.choice(FAULTS), random.choice([0, 3]), 100, 0)
    action = random.choices([Action.BINARY, Action.TEXT, Action.STALL, Action.PING], [60, 30, 1, 9])[0]
    shape = random.random()
    if shape < 0.9:
        return Plan(action, random.randrange(2_000), random.randrange(200), random.randrange(200))
    if shape < 0.99:
        return Plan(action, random.randrange(20), random.randrange(20_000), random.randrange(20_000))
    return Plan(action, 1, random.randrange(1 << 20), random.randrange(1 << 20))


@dataclass
class Totals:
    """Of the whole run."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    received: int = 0
    sent: int = 0
    data: int = 0  # bytes of payload, both ways
    lost_down: int = 0  # replies that a cut connection took with it
    lost_up: int = 0  # requests, the same
    connections: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    @property
    def messages(self) -> int:
        return self.received + self.sent - self.lost_up


class Run:
    """What all sockets share."""

    def __init__(self, server: Server) -> None:
        self.server, self.queue, self.totals = server, Queue(), Totals()
        self.stop = threading.Event()

    def trouble(self, what: str) -> None:
        """Note what must not be."""
        self.totals.troubles.append(what)
        print("TROUBLE", what, file=sys.stderr, flush=True)


class Client:
    """One place of the many: a connection at a time, made anew when it is over."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.tls = number % 2 == 0
        self.options: dict[str, Any] = {
            "compression": number % 4 == 1,
            "close_timeout": PATIENCE,
            "open_timeout": PATIENCE,
        }
        if self.tls:
            self.options["ssl"] = run.server.context
        if number % 5 == 0:
            self.options["dispatch"] = run.queue
        self.done = threading.Event()
        self.connect()

    def connect(self) -> None:
        """Make the next connection."""
        self.path = f"/{next(names)}"
        self.received = self.sent = self.data = 0
        self.awaited = 0  # replies that the last request brings
        self.doomed = self.summary = ""
        self.opened = False
        base = self.run.server.tls_url if self.tls else self.run.server.url
        self.ws = bws.WebSocket(base + self.path, **self.options)
        self.ws.bind("open", self.open)
        self.ws.bind("message", self.message)
        self.ws.bind("close", self.close)

    def open(self) -> None:
        if self.opened:
            self.run.trouble(f"{self.path}: a second open event")
        self.opened = True
        self.ask()

    def ask(self) -> None:
        """Send requests up to the first that brings replies, or the end."""
        while not self.doomed:
            if self.run.stop.is_set():
                return self.say_goodbye()
            action, want, size, own = plan()
            if random.random() < 1 / (5 * ROUNDS):
                self.doomed = "close() amid replies"
                self.send(Action.BINARY, 50, 50, 0)
                return self.ws.close(3000, "enough")
            if action in FAULTS:
                self.doomed = action.name
            elif random.random() < 1 / ROUNDS:
                return self.say_goodbye()
            if random.random() < 0.3:
                for _ in range(random.randrange(100)):
                    self.send(Action.BINARY, 0, 0, random.randrange(200))
            self.awaited = self.received + want
            self.send(action, want, size, own)
            if want:
                return None
        return None

    def say_goodbye(self) -> None:
        """Have the server tell what it has; then close."""
        self.doomed = "goodbye"
        self.awaited = self.received
        self.send(Action.SUMMARY, 0, 0, 0)

    def send(self, action: Action, want: int, size: int, own: int) -> None:
        data = request(0, self.sent, action, want, size, b"x" * own)
        self.sent += 1
        self.data += len(data)
        self.ws.send(data.decode() if self.sent % 2 else data)

    def message(self, evt: bws.MessageEvent) -> None:
        data = evt.data
        if self.doomed == "goodbye":
            self.summary = str(data)
            self.ws.close(1000, "bye")
            return
        try:
            check_reply(data, self.received)
        except Damaged as exc:
            self.run.trouble(f"{self.path}: {exc}")
        self.received += 1
        self.data += len(data)
        if self.received == self.awaited and not self.doomed:
            self.ask()

    def close(self, evt: bws.CloseEvent) -> None:
        """Account for the connection that is over, and make the next one."""
        try:
            self.account(evt)
        except Exception as exc:
            self.run.trouble(f"{self.path}: {exc!r}")
        if self.run.stop.is_set():
            self.done.set()
        else:
            self.connect()

    def account(self, evt: bws.CloseEvent) -> None:
        """Compare with what the server saw."""
        seen = self.run.server.ended(self.path)
        how = self.doomed or "by itself"
        right = {
            "goodbye": (1000, "bye", True),
            "close() amid replies": (3000, "enough", True),
            Action.CLOSE.name: (4000, "as asked", True),
            **dict.fromkeys((Action.RESET.name, Action.END.name, Action.GARBAGE.name), (1006, "", False)),
        }
        whole = f"{self.sent} {self.received}"
        if (evt.code, evt.reason, evt.wasClean) != right.get(how):
            self.run.trouble(f"{self.path}: {how}, and closed with {evt.code} {evt.reason!r} {evt.error!r}")
        if seen.trouble != "ok":
            self.run.trouble(f"{self.path}: the server says: {seen.trouble}")
        if how == "goodbye" and (self.summary != whole or f"{seen.received} {seen.sent}" != whole):
            self.run.trouble(f"{self.path}: the client has {whole}, the server {self.summary}, {seen}")
        # What came before an orderly end, or before the server broke the protocol, has to be there.
        if how in (Action.CLOSE.name, Action.GARBAGE.name, Action.END.name) and seen.sent != self.received:
            self.run.trouble(f"{self.path}: {how}, and {self.received} of {seen.sent} replies")
        if how != Action.RESET.name and seen.received != self.sent:
            self.run.trouble(f"{self.path}: {how}, and {seen.received} of {self.sent} requests")
        totals = self.run.totals
        with totals.lock:
            totals.ends[how] += 1
            totals.connections += 1
            totals.received += self.received
            totals.sent += self.sent
            totals.data += self.data
            totals.lost_down += seen.sent - self.received
            totals.lost_up += self.sent - seen.received


class Row(NamedTuple):
    """A sample with its time."""

    seconds: float
    has: Sample
    objects: int


def watch(run: Run, seconds: float) -> list[Row]:
    """Run the main thread's handlers for so long, and look at the process now and then."""
    rows: list[Row] = []
    start = time.monotonic()
    every = max(0.5, seconds / 200)
    shown = start
    while (now := time.monotonic()) < start + seconds:
        run.queue.run_until(lambda now=now: time.monotonic() > now + every, every)  # type: ignore[misc]
        gc.collect()
        rows.append(Row(time.monotonic() - start, sample(), len(gc.get_objects())))
        if now > shown + 30:
            shown = now
            has = rows[-1].has
            print(
                f"{now - start:4.0f} s: {run.totals.connections:,} connections, {run.totals.messages:,} messages, "
                f"{has.memory / 2**20:.1f} MiB, {has.files} descriptors, {has.threads} threads",
                flush=True,
            )
    return rows


def line(rows: list[Row], what: Any) -> tuple[float, float]:
    """The least squares line: what it rises in the time there is, and the mean."""
    times, values = [row.seconds for row in rows], [float(what(row)) for row in rows]
    return statistics.linear_regression(times, values).slope * (times[-1] - times[0]), statistics.fmean(values)


def judge(run: Run, rows: list[Row], sockets: int, before: Sample, after: Sample) -> None:
    """Print the figures, and note what is not as promised."""
    flat = rows[int(len(rows) * WARM_UP) :]
    seconds = rows[-1].seconds
    totals = run.totals
    memory, mean = line(flat, lambda row: row.has.memory)
    used, mean_used = line(flat, lambda row: row.has.used)
    blocks, mean_blocks = line(flat, lambda row: row.has.blocks)
    objects, mean_objects = line(flat, lambda row: row.objects)
    files = [row.has.files for row in flat]
    threads = [row.has.threads for row in flat]
    print(f"{sockets} sockets, {seconds:.0f} s, {totals.connections:,} connections: {dict(totals.ends.most_common())}")
    print(
        f"{totals.messages:,} messages ({totals.received:,} down, {totals.sent - totals.lost_up:,} up), "
        f"{totals.messages / seconds:,.0f} a second, {totals.data / 2**30:.1f} GiB of payload; "
        f"cut off with connections that were cut or closed: {totals.lost_down:,} down, {totals.lost_up:,} up"
    )
    print(f"in the last {1 - WARM_UP:.0%} of the time, by the line through {len(flat)} samples:")
    print(f"  resident memory {mean / 2**20:.1f} MiB, rises {memory / 2**20:+.2f} MiB")
    print(f"  of it in use by malloc {mean_used / 2**20:.1f} MiB, rises {used / 2**20:+.2f} MiB")
    print(f"  small pieces {mean_blocks:,.0f}, rise {blocks:+,.0f}; objects {mean_objects:,.0f}, rise {objects:+,.0f}")
    print(f"descriptors {before.files} before, {min(files)} to {max(files)}, {after.files} after")
    print(f"threads {before.threads} before, {min(threads)} to {max(threads)}, {after.threads} after")
    allow = 1 if seconds >= SHORT else 4
    for name, rise, limit in (
        ("resident memory", memory, GROWTH),
        ("memory in use", used, USED),
        ("small pieces of memory", blocks, BLOCKS),
        ("objects", objects, OBJECTS),
    ):
        if abs(rise) > allow * limit:
            run.trouble(f"not flat: {name} {rise:+,.0f}")
    # A socket has two descriptors and a thread; when it is made anew the old one may not be quite gone.
    if max(files) - before.files > 4 * sockets + 10 or after.files > before.files:
        run.trouble("descriptors were left")
    if max(threads) - before.threads > 2 * sockets + 10 or after.threads > before.threads:
        run.trouble(f"threads were left: {threading.enumerate()}")


def soak(seconds: float, sockets: int) -> list[str]:
    """Do all of it; what was wrong."""
    with server() as peer:
        before = sample()
        run = Run(peer)
        clients = [Client(run, number) for number in range(sockets)]
        rows = watch(run, seconds)
        run.stop.set()
        faulthandler.dump_traceback_later(4 * TIMEOUT, exit=True)  # what follows must not hang
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end and not all(client.done.is_set() for client in clients):
            run.queue.run_until(lambda: False, 0.1)
        for client in clients:
            if not (client.done.is_set() and client.ws.wait_closed(TIMEOUT)):
                run.trouble(f"{client.path} did not end")
        settle()
        judge(run, rows, sockets, before, sample())
        faulthandler.cancel_dump_traceback_later()
        return run.totals.troubles


def main() -> int:
    """Run it; 0 when nothing was wrong."""
    faulthandler.enable()
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0] + ".")
    arguments.add_argument("--seconds", type=float, default=600, help="how long (600)")
    arguments.add_argument("--sockets", type=int, default=100, help="how many at a time (100)")
    arguments.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="of what is random")
    asked = arguments.parse_args()
    random.seed(asked.seed)
    print(f"seed {asked.seed}", flush=True)
    troubles = soak(asked.seconds, asked.sockets)
    print("FAILED" if troubles else "passed", *troubles[:20], sep="\n", flush=True)
    return bool(troubles)


if __name__ == "__main__":
    sys.exit(main())
