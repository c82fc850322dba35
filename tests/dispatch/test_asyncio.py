"""bws.dispatch.asyncio, in the process of the tests."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import bws
from bws.testing import EchoServer

TIMEOUT = 20.0

if hasattr(asyncio, "SelectorEventLoop"):
    LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
try:
    import uvloop
except ImportError:  # Windows
    pass
else:
    LOOPS.append(uvloop.new_event_loop)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)])
def new_loop(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_without_a_running_loop_the_error_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="in a coroutine"):
        bws.dispatch.asyncio()
    with pytest.raises(TypeError, match="not str"):
        bws.dispatch.asyncio("loop")  # type: ignore[arg-type]


def test_a_closed_loop_is_refused(new_loop: Any) -> None:
    loop = new_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        bws.dispatch.asyncio(loop)


def test_a_loop_may_be_given_before_it_runs_and_from_another_thread(new_loop: Any) -> None:
    loop = new_loop()
    threads: list[threading.Thread] = []
    with EchoServer() as server:
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio(loop))
        ws.bind("open", lambda: threads.append(threading.current_thread()))
        ws.bind("open", lambda: ws.close())
        ws.bind("close", loop.stop)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        assert ws.wait_closed(TIMEOUT)
        thread.join(TIMEOUT)
    loop.close()
    assert threads == [thread]


def test_a_loop_that_is_closed_with_a_silent_socket_closes_the_socket(new_loop: Any) -> None:
    with EchoServer() as server:
        loop = new_loop()

        async def main() -> bws.WebSocket:
            opened = asyncio.Event()
            ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())
            ws.bind("open", opened.set)
            ws.bind("close", lambda: called.append("close"))
            await asyncio.wait_for(opened.wait(), TIMEOUT)
            return ws

        called: list[str] = []
        ws = loop.run_until_complete(main())
        loop.close()
        assert server.next_close(TIMEOUT) == (1001, "")
        assert ws.wait_closed(TIMEOUT)
    assert called == []


def test_a_loop_that_is_closed_before_it_ever_ran_closes_the_socket(new_loop: Any) -> None:
    with EchoServer() as server:
        loop = new_loop()
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio(loop))
        loop.close()
        assert ws.wait_closed(TIMEOUT)
        assert ws.readyState == 3


def test_a_loop_that_is_over_is_let_go_of(new_loop: Any) -> None:
    """Also when the pump had to rest: the timer of that refers to the loop."""
    count = 20

    async def main() -> None:
        done = asyncio.Event()
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())

        def on_open() -> None:
            for n in range(count):
                ws.send(str(n))

        def on_message(evt: bws.MessageEvent) -> None:
            time.sleep(0.004)  # more than a turn of the loop may take, with them all
            if evt.data == str(count - 1):
                ws.close()

        ws.bind("open", on_open)
        ws.bind("message", on_message)
        ws.bind("close", done.set)
        await done.wait()

    with EchoServer() as server:
        loop = new_loop()
        loop.run_until_complete(asyncio.wait_for(main(), TIMEOUT))
        loop.close()
    for thread in threading.enumerate():
        if thread.name.startswith("bws ws:"):
            thread.join(TIMEOUT)  # until then it may be in the call that gave `close` to the loop
    ref = weakref.ref(loop)
    del loop
    gc.collect()
    assert ref() is None


class LoopOnQt(asyncio.SelectorEventLoop):
    """As qasync's, which hands each delay to Qt: an int of 32 bits in ms."""

    def call_later(self, delay: float, *args: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        if delay * 1000 >= 1 << 31:
            raise OverflowError
        return super().call_later(delay, *args, **more)


def test_a_loop_that_takes_no_long_timers_will_do() -> None:
    async def main() -> None:
        closed = asyncio.Event()
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())
        ws.bind("open", lambda: ws.close())
        ws.bind("close", closed.set)
        await asyncio.wait_for(closed.wait(), TIMEOUT)

    loop, reported = LoopOnQt(), []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    with EchoServer() as server:
        loop.run_until_complete(main())
        loop.close()
    assert reported == []


def test_handlers_see_the_context_of_the_one_who_made_the_adapter() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    seen: list[str] = []

    async def main() -> None:
        closed = asyncio.Event()
        name.set("mine")
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())
        ws.bind("open", lambda: seen.append(name.get()))
        ws.bind("open", lambda: ws.close())
        ws.bind("close", closed.set)
        await asyncio.wait_for(closed.wait(), TIMEOUT)

    with EchoServer() as server:
        asyncio.run(main())
    assert seen == ["mine"]


def test_debug_mode_of_asyncio_has_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        closed = asyncio.Event()
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())
        ws.bind("open", lambda: ws.close())
        ws.bind("close", closed.set)
        await asyncio.wait_for(closed.wait(), TIMEOUT)

    with EchoServer() as server:
        asyncio.run(main(), debug=True)
    assert [record for record in caplog.records if record.name == "asyncio" and record.levelno > 30] == []
