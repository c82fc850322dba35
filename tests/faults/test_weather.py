"""Slow, jittery, narrow and stuttering networks change nothing but the time; and much traffic through them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import TIMEOUT, Recorder
from tests.faults.campaign import (
    CLOSERS,
    FULL,
    MINE,
    MODES,
    SENT,
    Campaign,
    Case,
    Fleet,
    both_modes,
    plain_and_tls,
    reference,
)
from tests.faults.conftest import Ledger
from tests.faults.proxy import END, PAUSE, RESET, Fault
from tests.faults.server import BYE
from tests.wire.frames import Data

pytestmark = pytest.mark.timeout(1800 if FULL else 60)
SOCKETS = 40 if FULL else 6

WEATHER = {
    "latency 100 ms": Fault(latency=0.1),
    "jitter up to 100 ms": Fault(jitter=0.1),
    "10 kB/s": Fault(rate=10_000, piece=100),
    "single bytes": Fault(piece=1),
    "slices of 3 bytes, 5 kB/s, jitter up to 50 ms": Fault(piece=3, rate=5_000, jitter=0.05),
}


def test_bad_weather_changes_nothing_but_the_time(ledger: Ledger) -> None:
    with contextlib.ExitStack() as stack:
        fleets = {name: stack.enter_context(Fleet()) for name in WEATHER}
        for name, fleet in fleets.items():
            for campaign, number in itertools.product(fleet.campaigns, range(SOCKETS)):
                campaign.add(CLOSERS[number % 2], f"{name} {number}", WEATHER[name], WEATHER[name])
        for name, fleet in fleets.items():
            for campaign in fleet.campaigns:
                ledger.add(name, f"both ways, {campaign.scheme}", *campaign.finish(Campaign.verify_whole))


# -- one direction late: what was sent at the same time arrives in another order


def say_all(recorder: Recorder, _: object) -> None:
    """Send, to a server that has closed already."""
    for data in SENT:
        recorder.ws.send(data)


def close_at_once(recorder: Recorder, _: object) -> None:
    """Close, while the server's close is on its way."""
    recorder.ws.close(*MINE)


def test_what_crosses_the_servers_close_changes_nothing_about_its_code(ledger: Ledger) -> None:
    def check(case: Case) -> None:
        heard = [] if case.mute else [("message", 1, "welcome")]
        assert case.recorder.entries == [("open", 1), *heard, ("close", 3, *BYE, True)]

    head = reference("hasty")[0].index(b"\r\n\r\n") + 4
    with Fleet() as fleet:
        for campaign, number in itertools.product(fleet.campaigns, range(SOCKETS)):
            # What the client says takes longer than the server's close, which comes when the client has said it.
            up = Fault(latency=0.1 + 0.02 * (number % 10))
            down = Fault(latency=0.05) if campaign.tls else Fault(head, PAUSE, pause=0.05)
            on = {"open": say_all if number % 2 else close_at_once}
            case = campaign.add("hasty", f"crossing {number}", up, down, on=on)
            case.mute = not number % 2
        for campaign in fleet.campaigns:
            ledger.add("close and data that cross", campaign.scheme, *campaign.finish(check))


# -- much traffic


class Flood:
    """Sends messages of all sizes from three threads, and sums up what has to arrive."""

    def __init__(self, seed: int, total: int) -> None:
        self.sent: list[list[Data]] = [[], [], []]
        self._chance = random.Random(seed)
        self._each = total // 3
        self._begun = threading.Event()
        self.threads: list[threading.Thread] = []

    def begin(self, recorder: Recorder, _: Any) -> None:
        """On open."""
        self.threads = [threading.Thread(target=self._send, args=[recorder.ws, n]) for n in range(3)]
        for thread in self.threads:
            thread.start()
        self._begun.set()

    def _send(self, ws: Any, number: int) -> None:
        chance = random.Random(self._chance.random())
        left, count = self._each, 0
        while left > 0:
            size = int(chance.choice([1, 100, 1_000, 16_500, 70_000, 200_000]) * chance.uniform(0.5, 1))
            body = chance.randbytes(max(1, size // 2)).hex()[:size]
            text = f"{number} {count} {body}"
            message: Data = text if chance.random() < 0.5 else text.encode()
            self.sent[number].append(message)
            ws.send(message)
            left -= size
            count += 1

    def join(self) -> None:
        """Wait until all is given to `send`."""
        assert self._begun.wait(TIMEOUT)
        for thread in self.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    @property
    def size(self) -> int:
        """Bytes given to `send`."""
        return sum(len(data) for thread in self.sent for data in thread)


def by_thread(messages: list[Data]) -> list[list[str]]:
    """Digests of messages, apart by who sent them, in the order in which they came."""
    found: list[list[str]] = [[], [], []]
    for data in messages:
        text = data if isinstance(data, str) else data.decode()
        kind = "text" if isinstance(data, str) else "bytes"
        found[int(text[0])].append(f"{kind} {hashlib.sha256(text.encode()).hexdigest()}")
    return found


def begins(whole: list[list[str]], part: list[list[str]]) -> bool:
    """Whether each list of `part` is the beginning of its counterpart."""
    return all(some == every[: len(some)] for every, some in zip(whole, part, strict=True))


FLOODS = {
    "a narrow, stuttering way": (Fault(400_000, PAUSE, pause=0.3, rate=4e6, piece=9_999), 1_500_000),
    "small buffers and jitter": (Fault(jitter=0.01, piece=5_000), 1_000_000),
    "pieces of 7 bytes": (Fault(piece=7), 120_000),
}


@pytest.mark.parametrize(
    ("mode", "tls", "compression"),
    list(itertools.product(MODES, [False, True], [False, True]))
    if FULL
    else [("threads", False, False), ("threads", True, False), ("queue", False, True), ("queue", True, False)],
)
def test_nothing_is_lost_of_much_traffic(mode: str, tls: bool, compression: bool, ledger: Ledger) -> None:
    with Campaign(mode, tls, compression) as campaign:
        floods: list[tuple[str, Case, Flood]] = []
        for name, (fault, total) in FLOODS.items():
            flood = Flood(len(floods), total)
            case = campaign.add("patient", name, fault, fault, {"open": flood.begin}, 8192, close_timeout=60)
            floods.append((name, case, flood))
        for name, case, flood in floods:
            ws = case.recorder.ws
            case.recorder.wait_for("open")
            flood.join()
            expected = by_thread([data for thread in flood.sent for data in thread])
            assert ws.flush(TIMEOUT * 2)
            assert ws.bufferedAmount == 0
            case.recorder.wait_for("message", 2 + sum(map(len, expected)))
            ws.close(*MINE)
            entries = case.recorder.closed()
            assert entries[-1] == ("close", 3, *MINE, True)
            assert by_thread(campaign.server.got[case.path]) == expected
            assert by_thread(case.recorder.data[2:]) == expected
            ledger.add(f"much traffic: {name}", "both ways, " + ("wss" if tls else "ws"), 1, [])
        campaign.cases.clear()


def cuts() -> Iterator[tuple[str, Fault, Fault]]:
    """Resets and ends in the middle of the traffic, in one of the directions."""
    for number in range(30 if FULL else 6):
        act = (RESET, END)[number % 2]
        fault = Fault(150_000 + 37_123 * number, act)
        yield (f"{act} up {number}", fault, Fault()) if number % 3 else (f"{act} down {number}", Fault(), fault)


@plain_and_tls
@both_modes
def test_traffic_that_is_cut_arrives_in_order_up_to_the_cut(mode: str, tls: bool, ledger: Ledger) -> None:
    with Campaign(mode, tls) as campaign:
        floods: list[tuple[Case, Flood]] = []
        for name, up, down in cuts():
            flood = Flood(len(floods), 3_000_000)
            floods.append((campaign.add("patient", name, up, down, {"open": flood.begin}, 8192), flood))
        wrong = []
        for case, flood in floods:
            entries = case.recorder.closed()
            assert case.link.over.wait(TIMEOUT)
            flood.join()
            expected = by_thread([data for thread in flood.sent for data in thread])
            got, echoed = campaign.server.got[case.path], case.recorder.data[2:]
            arrived = sum(map(len, got))
            ws = case.recorder.ws
            if not begins(expected, by_thread(got)) or not begins(expected, by_thread(echoed)):
                wrong.append(f"{case.name}: lost, doubled or mixed")
            if entries[-1] != ("close", 3, 1006, "", False) or case.recorder.of("error"):
                wrong.append(f"{case.name}: {entries[-2:]}")
            if not 0 <= ws.bufferedAmount <= flood.size - arrived:
                wrong.append(f"{case.name}: bufferedAmount {ws.bufferedAmount} of {flood.size}, {arrived} arrived")
            if ws.flush(0) and ws.bufferedAmount:
                wrong.append(f"{case.name}: flush() says that all was sent")
        campaign.cases.clear()
        ledger.add("much traffic, cut", "wss" if tls else "ws", len(floods), wrong)
