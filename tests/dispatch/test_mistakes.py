"""What is easily written instead of what dispatch= takes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

import bws

URL = "ws://127.0.0.1:1/"


@pytest.mark.parametrize("name", bws.dispatch.__all__)
def test_a_loop_of_bws_dispatch_whose_call_was_forgotten_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"what bws\.dispatch\.{name}\(\.\.\.\) returns; the call is missing"):
        bws.WebSocket(URL, dispatch=getattr(bws.dispatch, name))


Call = Callable[[], object]


async def coroutine(call: Call) -> None: ...


def generator(call: Call) -> Iterator[None]:
    yield


class Awaitable:
    async def __call__(self, call: Call) -> None: ...


LATER = {
    "a coroutine function": coroutine,
    "a generator function": generator,
    "an object with an async __call__": Awaitable(),
    "a partial": functools.partial(coroutine),
    "a partial of that object": functools.partial(Awaitable()),
    "the put of a queue of asyncio": asyncio.Queue[Call]().put,
    "asyncio.to_thread": asyncio.to_thread,
    "a mock": mock.AsyncMock(),
}


@pytest.mark.parametrize("name", LATER)
def test_what_would_run_nothing_is_refused(name: str) -> None:
    dispatch: Any = LATER[name]
    with pytest.raises(TypeError, match=r"dispatch must be .* bws\.dispatch\.asyncio\(\) .* would never run"):
        bws.WebSocket(URL, dispatch=dispatch)
