"""The state machine of one WebSocket, and what fires at its end. Only this table changes ``readyState``.

https://websockets.spec.whatwg.org/#dom-websocket-readystate
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["CLOSED", "CLOSING", "CONNECTING", "OPEN", "Ending", "Fact", "Verdict", "judge", "step"]

CONNECTING, OPEN, CLOSING, CLOSED = range(4)


class Fact(enum.Enum):
    """What can happen to a connection."""

    OPENED = "the opening handshake is done"
    CLOSE_CALLED = "the program called close()"
    CLOSE_FRAME = "the peer's close frame is in"
    ENDED = "the connection is over"


_TABLE: dict[int, dict[Fact, int]] = {
    CONNECTING: {Fact.OPENED: OPEN, Fact.CLOSE_CALLED: CLOSING, Fact.ENDED: CLOSED},
    OPEN: {Fact.CLOSE_CALLED: CLOSING, Fact.CLOSE_FRAME: CLOSING, Fact.ENDED: CLOSED},
    CLOSING: {
        Fact.OPENED: CLOSING,
        Fact.CLOSE_CALLED: CLOSING,
        Fact.CLOSE_FRAME: CLOSING,
        Fact.ENDED: CLOSED,
    },
    CLOSED: {Fact.CLOSE_CALLED: CLOSED},
}


def step(state: int, fact: Fact) -> int:
    """The state after `fact`; a fact that has no place in the table is a bug and raises KeyError."""
    return _TABLE[state][fact]


class Ending(NamedTuple):
    """How a connection ended, as the engine saw it.

    Attributes:
        code: Code of the peer's close frame, 1005 if it was empty, None if there was none.
        reason: Reason of the peer's close frame.
        error: The cause when the peer's close frame is missing.
        failed: Whether the connection was *failed* (it could not be made, or a rule or limit was broken),
            which fires ``error``; a connection that is merely lost does not.
    """

    code: int | None = None
    reason: str = ""
    error: BaseException | None = None
    failed: bool = False


class Verdict(NamedTuple):
    """What to fire at the end: ``error`` or not, then ``close`` with these fields."""

    fires_error: bool
    code: int
    reason: str
    was_clean: bool
    error: BaseException | None


def judge(ending: Ending, *, aborted: bool) -> Verdict:
    """Decide the last events (WHATWG "when the WebSocket connection is closed").

    Args:
        ending: What the engine saw.
        aborted: Whether close() was called while CONNECTING: then the WebSocket connection was *failed*,
            whatever the network did meanwhile.
    """
    if aborted:
        error = ending.error or ConnectionAbortedError("close() was called before the connection was open")
        return Verdict(True, 1006, "", False, error)
    # "If the user agent was required to fail the WebSocket connection ... fire an event named error."
    if ending.failed or ending.code is None:
        return Verdict(ending.failed, 1006, "", False, ending.error)
    # "wasClean true if the connection closed cleanly", "code the WebSocket connection close code".
    return Verdict(False, ending.code, ending.reason, True, None)
