"""A connection that is cut, damaged or silenced at every byte of a recorded session, the handshake included."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Entry
from tests.faults import judge
from tests.faults.campaign import (
    CLOSERS,
    FULL,
    MODES,
    Campaign,
    Case,
    batches,
    both_modes,
    lengths,
    offsets,
    plain_and_tls,
)
from tests.faults.conftest import Ledger
from tests.faults.proxy import BLACKHOLE, CORRUPT, END, HALF_CLOSE, NOTHING, PAUSE, RESET, VANISH, Fault
from tests.faults.server import QUIET

pytestmark = pytest.mark.timeout(1800 if FULL else 60)
WAYS = ["up", "down"]
STEP = {False: 7, True: 61}  # every so many bytes in a quick run: without TLS, with TLS


def places(way: str, tls: bool, step: int = 1, compression: bool = True) -> Iterator[tuple[str, int]]:
    """Who closes the session, and an offset in it."""
    for who in CLOSERS:
        length = lengths(who, tls, compression)[WAYS.index(way)]
        yield from ((who, n) for n in offsets(length, STEP[tls] * step))


def sides(way: str, fault: Fault) -> tuple[Fault, Fault]:
    """What happens upwards and downwards when this happens one way."""
    return (fault, NOTHING) if way == "up" else (NOTHING, fault)


def label(act: str, way: str, tls: bool) -> tuple[str, str]:
    """How the table calls it, which is made by a full run."""
    return f"{act} at every byte", f"{way}, {'wss' if tls else 'ws'}"


@plain_and_tls
@pytest.mark.parametrize("act", [RESET, END, HALF_CLOSE])
@both_modes
def test_a_connection_cut_at_any_byte_ends_as_its_bytes_say(mode: str, act: str, tls: bool, ledger: Ledger) -> None:
    for way in WAYS:
        with Campaign(mode, tls) as campaign:
            for batch in batches(list(places(way, tls))):
                for who, n in batch:
                    campaign.add(who, f"{way} {n}, {who} closes", *sides(way, Fault(n, act)))
                ledger.add(*label(act, way, tls), *campaign.finish())
            assert campaign.ends == {("error", False), ("open", False), ("open", True)}


@both_modes
def test_without_compression_too(mode: str, ledger: Ledger) -> None:
    with Campaign(mode, compression=False) as campaign:
        for way in WAYS:
            for batch in batches(list(places(way, False, 2, compression=False))):
                for who, n in batch:
                    campaign.add(who, f"{way} {n}, {who} closes", *sides(way, Fault(n, RESET)))
                ledger.add(*label(RESET, way, False), *campaign.finish())


Make = type[Campaign]


def spread(make: Make, tries: list[tuple[bool, str, str, str, int]], ledger: Ledger, **options: Any) -> None:
    """Many at a time, since they end by time-outs: TLS or not, what happens, to which way, who closes, where.

    Every second one has its handlers run by a queue.
    """
    for batch in batches(tries, 200):
        with contextlib.ExitStack() as stack:
            campaigns: dict[tuple[str, str, bool, str], Campaign] = {}
            for number, (tls, act, way, who, n) in enumerate(batch):
                key = (act, way, tls, MODES[number % 2])
                if key not in campaigns:
                    campaigns[key] = stack.enter_context(make(key[3], tls, compression=act != CORRUPT))
                fault = Fault(n, act, bit=n * 5 % 8)
                campaigns[key].add(who, f"{way} {n}, {who} closes", *sides(way, fault), **options)
            for (act, way, tls, _), campaign in campaigns.items():
                ledger.add(*label(act, way, tls), *campaign.finish())


class Silenced(Campaign):
    """The server is not heard any more: a time-out ends what its close frame does not."""

    def allowed(self, case: Case) -> list[list[Entry]]:
        heard = case.heard
        if heard.opened and heard.end is None and "end" not in heard.messages[-1:]:
            heard.end = "failed"  # ping_timeout; after close() it is close_timeout
        return [heard.entries()]

    def verify(self, case: Case) -> None:
        super().verify(case)
        error = case.recorder.events[-1].error
        assert error is None or isinstance(error, TimeoutError), repr(error)


def test_a_server_that_falls_silent_at_any_byte_ends_by_the_time_outs(ledger: Ledger) -> None:
    tries = [
        (tls, act, "down", who, n)
        for tls, act in itertools.product([False, True], [BLACKHOLE, VANISH])
        for who, n in places("down", tls, 6)
    ]
    spread(Silenced, tries, ledger, open_timeout=3, close_timeout=3, ping_interval=0.5, ping_timeout=2.5)


class Unheard(Campaign):
    """The client is not heard any more: the server ends it."""

    idle = 2.0

    def allowed(self, case: Case) -> list[list[Entry]]:
        heard = case.heard
        # With TLS the lengths alone do not tell which close it was.
        quiet = [judge.Heard(True, heard.messages, QUIET).entries()] if self.tls and heard.opened else []
        return [heard.entries(), *quiet]


def test_a_client_that_is_not_heard_from_any_byte_on_hears_the_servers_end(ledger: Ledger) -> None:
    tries = [(tls, BLACKHOLE, "up", who, n) for tls in (False, True) for who, n in places("up", tls, 6)]
    spread(Unheard, tries, ledger)


class Damaged(Campaign):
    """A bit was flipped: in the handshake it may do no harm, or be found out."""

    idle = 2.0

    def allowed(self, case: Case) -> list[list[Entry]]:
        heard = case.heard.entries()
        if self.tls:
            # What TLS lets through is right, and after the damage there is nothing but the end.
            told = [entry for entry in heard if entry[0] in ("open", "message")]
            # A server whose record was made longer waits for the rest, and closes in the end.
            waits = judge.unfinished(bytes(case.link.up.passed))
            quiet = [judge.Heard(True, case.heard.messages, QUIET).entries()] if waits else []
            return [judge.FAILED, heard, *quiet, *([*told[:n], *judge.LOST] for n in range(1, len(told) + 1))]
        return [heard, judge.FAILED]


def test_a_flipped_bit_at_any_byte_is_found_out_or_does_no_harm(ledger: Ledger) -> None:
    tries = [
        (tls, CORRUPT, way, who, n)
        for tls, way in itertools.product([False, True], WAYS)
        for who, n in places(way, tls, 3, compression=False)
    ]
    spread(Damaged, tries, ledger, open_timeout=4, close_timeout=4)


@plain_and_tls
@both_modes
def test_a_pause_at_any_byte_changes_nothing(mode: str, tls: bool, ledger: Ledger) -> None:
    for way in WAYS:
        with Campaign(mode, tls) as campaign:
            for batch in batches(list(places(way, tls, 3))):
                for who, n in batch:
                    campaign.add(who, f"{way} {n}, {who} closes", *sides(way, Fault(n, PAUSE, pause=0.1)))
                ledger.add(*label(PAUSE, way, tls), *campaign.finish(Campaign.verify_whole))
