"""The state table, walked cell by cell, and what fires at the end."""

from __future__ import annotations

import itertools

import pytest

from bws._state import CLOSED, CLOSING, CONNECTING, OPEN, Ending, Fact, Verdict, judge, step

STATES = (CONNECTING, OPEN, CLOSING, CLOSED)

# what is not in here cannot happen
TABLE = {
    (CONNECTING, Fact.OPENED): OPEN,
    (CONNECTING, Fact.CLOSE_CALLED): CLOSING,
    (CONNECTING, Fact.ENDED): CLOSED,
    (OPEN, Fact.CLOSE_CALLED): CLOSING,
    (OPEN, Fact.CLOSE_FRAME): CLOSING,
    (OPEN, Fact.ENDED): CLOSED,
    (CLOSING, Fact.OPENED): CLOSING,
    (CLOSING, Fact.CLOSE_CALLED): CLOSING,
    (CLOSING, Fact.CLOSE_FRAME): CLOSING,
    (CLOSING, Fact.ENDED): CLOSED,
    (CLOSED, Fact.CLOSE_CALLED): CLOSED,
}
CELLS = list(itertools.product(STATES, Fact))


def test_the_states_have_the_numbers_of_the_browser() -> None:
    assert STATES == (0, 1, 2, 3)


@pytest.mark.parametrize(("state", "fact"), [cell for cell in CELLS if cell in TABLE])
def test_a_fact_leads_to_the_state_of_the_table(state: int, fact: Fact) -> None:
    assert step(state, fact) == TABLE[state, fact]


@pytest.mark.parametrize(("state", "fact"), [cell for cell in CELLS if cell not in TABLE])
def test_a_fact_that_cannot_happen_is_a_bug_that_shows(state: int, fact: Fact) -> None:
    with pytest.raises(KeyError):
        step(state, fact)


@pytest.mark.parametrize("state", [CONNECTING, OPEN, CLOSING])
def test_the_end_of_the_connection_always_leads_to_closed(state: int) -> None:
    assert step(state, Fact.ENDED) == CLOSED


def test_no_walk_through_the_table_ever_goes_back() -> None:
    walks = 0
    for facts in itertools.product(Fact, repeat=5):
        state = CONNECTING
        for fact in facts:
            if (state, fact) not in TABLE:
                break
            before, state = state, step(state, fact)
            assert state >= before
            walks += 1
    assert walks > 100


@pytest.mark.parametrize("state", STATES)
def test_close_may_be_called_in_every_state(state: int) -> None:
    assert step(state, Fact.CLOSE_CALLED) == max(state, CLOSING)


BOOM = OSError("boom")

# name: (how the engine saw it end, close() was called while CONNECTING, what fires)
ENDINGS: dict[str, tuple[Ending, bool, Verdict]] = {
    "a clean close": (Ending(1000, "bye"), False, Verdict(False, 1000, "bye", True, None)),
    "an empty close frame": (Ending(1005), False, Verdict(False, 1005, "", True, None)),
    "a code of the program's own": (Ending(4999, "x"), False, Verdict(False, 4999, "x", True, None)),
    "a lost connection": (Ending(error=BOOM), False, Verdict(False, 1006, "", False, BOOM)),
    "a lost connection without a cause": (Ending(), False, Verdict(False, 1006, "", False, None)),
    "a failed connection": (Ending(error=BOOM, failed=True), False, Verdict(True, 1006, "", False, BOOM)),
    "a failure after the close frame": (
        Ending(1000, "bye", BOOM, failed=True),
        False,
        Verdict(True, 1006, "", False, BOOM),
    ),
    "an aborted connection": (Ending(error=BOOM, failed=True), True, Verdict(True, 1006, "", False, BOOM)),
    "an abort that the network did not notice": (Ending(error=BOOM), True, Verdict(True, 1006, "", False, BOOM)),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_last_events_follow_from_how_it_ended(name: str) -> None:
    ending, aborted, verdict = ENDINGS[name]
    assert judge(ending, aborted=aborted) == verdict


@pytest.mark.parametrize("ending", [Ending(), Ending(1000, "the server was faster")])
def test_an_abort_always_fires_error_and_has_a_cause(ending: Ending) -> None:
    verdict = judge(ending, aborted=True)
    assert (verdict.fires_error, verdict.code, verdict.reason, verdict.was_clean) == (True, 1006, "", False)
    assert isinstance(verdict.error, ConnectionAbortedError)
    assert "close()" in str(verdict.error)
