"""A peer that is gone without a word, one that is only slow, and handlers that are."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest

from tests.conftest import Entry, Recorder
from tests.faults import judge
from tests.faults.campaign import FULL, MINE, Campaign, Case, Fleet
from tests.faults.conftest import Ledger
from tests.faults.server import BYE

pytestmark = pytest.mark.timeout(1800 if FULL else 60)
SOCKETS = 40 if FULL else 6
INTERVAL, PING_TIMEOUT = 0.3, 1.0
OVERHEAD = 10.0  # s; what a machine that is busy with other things may add to a time that was promised
PINGS: dict[str, Any] = {"ping_interval": INTERVAL, "ping_timeout": PING_TIMEOUT}


class Judged(Campaign):
    """The bytes do not tell: the test says what is right."""

    def hear(self, case: Case) -> judge.Heard:
        return judge.Heard()

    def allowed(self, case: Case) -> list[list[Entry]]:
        return [case.recorder.entries]

    def verify_sent(self, case: Case) -> None: ...


def test_ping_timeout_ends_what_is_half_open_in_time(ledger: Ledger) -> None:
    def check(case: Case) -> None:
        assert case.recorder.entries == [("open", 1), ("error", 3), ("close", 3, 1006, "", False)]
        assert isinstance(case.recorder.error, TimeoutError)
        took = case.recorder.events[-1].timeStamp / 1000 - gone
        # The last sign of life may be up to an interval old, and the next ping as far away.
        assert PING_TIMEOUT - INTERVAL <= took <= INTERVAL + PING_TIMEOUT + OVERHEAD, took

    with Fleet(Judged) as fleet:
        for campaign, number in itertools.product(fleet.campaigns, range(SOCKETS)):
            campaign.add("quiet", f"number {number}", on={}, **PINGS)
        for _, case in fleet.cases:
            case.recorder.wait_for("open")
        gone = time.perf_counter()
        for campaign, case in fleet.cases:
            campaign.proxy.silence(case.link)
        for campaign in fleet.campaigns:
            ledger.add("peer vanishes, ping_timeout", campaign.scheme, *campaign.finish(check))


def test_whatever_is_received_counts_as_life(ledger: Ledger) -> None:
    def check(case: Case) -> None:
        # The server never saw a ping, so no pong came: its news for 1.5 s were enough.
        news = [("message", 1, str(number)) for number in range(30)]
        assert case.recorder.entries == [("open", 1), *news, ("close", 3, *BYE, True)]

    with Fleet(Judged) as fleet:
        for campaign, number in itertools.product(fleet.campaigns, range(SOCKETS)):
            campaign.add("news", f"number {number}", on={}, **PINGS)
        for campaign, case in fleet.cases:
            case.recorder.wait_for("open")
            campaign.proxy.silence(case.link, case.link.up)
        for campaign in fleet.campaigns:
            ledger.add("pings get lost, messages come", campaign.scheme, *campaign.finish(check))


def test_a_slow_handler_is_not_taken_for_a_dead_peer(ledger: Ledger) -> None:
    def block(recorder: Recorder, evt: Any) -> None:
        if evt.data == "welcome":
            pause.wait(2 * (PING_TIMEOUT + INTERVAL))
            recorder.ws.send("end")

    def check(case: Case) -> None:
        *_, last, close = case.recorder.entries
        assert (last, close) == (("message", 1, "end"), ("close", 3, *MINE, True)), case.recorder.entries

    pause = threading.Event()  # never set
    with Fleet(Judged) as fleet:
        for campaign in fleet.campaigns:
            for number in range(1 if campaign.mode == "queue" else SOCKETS):  # they share one thread with a queue
                campaign.add("patient", f"number {number}", on={"message": block}, **PINGS)
        for _, case in fleet.cases:
            case.recorder.wait_for("message", 3)
            case.recorder.ws.close(*MINE)
        for campaign in fleet.campaigns:
            ledger.add("slow handlers, ping_timeout", campaign.scheme, *campaign.finish(check))
