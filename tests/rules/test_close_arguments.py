"""The arguments of close(), and what they do in every state."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

import bws
from tests.conftest import Play, Recorder
from tests.wire.server import Connection, ScriptedServer

OPEN = ("open", 1)
GOOD = [(), (1000,), (1000, ""), (1000, "bye"), (1000, None), (3000,), (3999,), (4000,), (4999,)]
GOOD += [(3000, "x" * 123), (3000, "é" * 61), (3000, "✓" * 41), (3000, "nul\0in"), (3000, "\ud800"), (None,)]
GOOD += [(None, None), (None, "")]

CODES = [-1, 0, 999, 1001, 1002, 1005, 1006, 1015, 2999, 5000, 65535, 66536, 4294968296]
NO_INTS: list[Any] = ["1000", "0", "string", b"1000", 1000.0, 2999.9, math.nan, True, [1000]]
BAD: list[tuple[tuple[Any, ...], type[Exception]]] = [
    *(((code,), bws.InvalidAccessError) for code in CODES),
    ((999, "x" * 124), bws.InvalidAccessError),  # the code is looked at first
    ((None, "why"), bws.InvalidAccessError),
    ((3000, "x" * 124), bws.DOMSyntaxError),
    ((3000, "é" * 62), bws.DOMSyntaxError),
    ((3000, "😀" * 31), bws.DOMSyntaxError),
    ((3000, "\ud800" * 42), bws.DOMSyntaxError),
    *(((code,), bws.InvalidAccessError) for code in NO_INTS),
    ((1000, 42), TypeError),
    ((1000, b"bye"), TypeError),
]


KINDS = (bws.InvalidAccessError, bws.DOMSyntaxError, TypeError)


@pytest.mark.parametrize("args", GOOD)
def test_good_arguments_close(play: Play, args: tuple[Any, ...]) -> None:
    def in_open(r: Recorder, _: object) -> None:
        r.ws.close(*args)
        r.look()
        r.ws.close()
        r.look()

    code = (args or (None,))[0]
    played = play(Connection.handshake, on={"open": in_open})
    assert played.entries[:-1] == [OPEN, ("look", 2), ("look", 2)]
    assert played.entries[-1][:3] == ("close", 3, code or 1005)
    assert played.entries[-1][4] is True
    assert played.seen.close is not None
    assert played.seen.close[0] == code


@pytest.mark.parametrize(("args", "error"), BAD)
def test_bad_arguments_raise_in_every_state_and_change_nothing(
    play: Play, args: tuple[Any, ...], error: type[Exception]
) -> None:
    def attempt(r: Recorder, _: object = None) -> None:
        try:
            r.ws.close(*args)
        except Exception as exc:
            r.note("raised", type(exc) if type(exc) in KINDS else type(exc).__base__, r.ws.readyState)

    def in_open(r: Recorder, _: object) -> None:
        attempt(r)
        r.ws.close()
        attempt(r)

    played = play(Connection.handshake, start=attempt, on={"open": in_open, "close": attempt})
    assert played.entries == [
        ("raised", error, 0),
        OPEN,
        ("raised", error, 1),
        ("raised", error, 2),
        ("close", 3, 1005, "", True),
        ("raised", error, 3),
    ]


@pytest.mark.parametrize("code", NO_INTS)
def test_a_code_that_is_no_int_is_the_browsers_error_and_pythons(code: Any) -> None:
    with ScriptedServer(Connection.echo) as server, bws.WebSocket(server.url) as ws:
        with pytest.raises(bws.InvalidAccessError) as caught:
            ws.close(code)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)
        assert caught.value.name == "InvalidAccessError"
        assert caught.value.message == f"code must be 1000, an int in 3000-4999, or None; not {code!r}"
        assert ws.readyState == ws.OPEN
        for other in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
            assert (type(other), vars(other)) == (type(caught.value), vars(caught.value))


@pytest.mark.parametrize(
    ("error", "name", "base"),
    [
        (bws.DOMSyntaxError, "SyntaxError", ValueError),
        (bws.InvalidAccessError, "InvalidAccessError", ValueError),
        (bws.InvalidStateError, "InvalidStateError", RuntimeError),
    ],
)
def test_the_browsers_exceptions_have_its_names_and_are_pythons_too(
    error: type[bws.DOMException], name: str, base: type[Exception]
) -> None:
    raised = error("what was wrong")
    assert (raised.name, raised.message, str(raised)) == (name, "what was wrong", "what was wrong")
    assert isinstance(raised, bws.DOMException)
    assert isinstance(raised, base)
