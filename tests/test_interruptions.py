"""A signal handler may come in anywhere: it sends, closes or raises, and the connection is none the worse for it."""

from __future__ import annotations

import contextlib
import dis
import itertools
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import pytest

import bws
import bws.dispatch
from bws._delivery import Dispatched
from bws._system import Waker
from tests.conftest import TIMEOUT, eventually, is_open
from tests.interrupt import Interrupt, Interruption, everywhere
from tests.wire.frames import CLOSE, TEXT, Seen, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

Call = Callable[[bws.WebSocket], object]


def boom(ws: bws.WebSocket) -> None:
    raise Interrupt


def throw() -> None:
    raise Interrupt


def close(ws: bws.WebSocket) -> None:
    ws.close(4001, "handler")


def close_and_leave(ws: bws.WebSocket) -> None:
    ws.close(4001, "handler")
    raise Interrupt


def send_and_raise(ws: bws.WebSocket) -> None:
    ws.send("from the handler")
    raise Interrupt


CALLS: dict[str, Call] = {
    "close": lambda ws: ws.close(3000, "program"),
    "send": lambda ws: ws.send("message"),
    "a large send": lambda ws: ws.send(b"x" * 50_000),
    "ping": lambda ws: ws.ping(b"ping"),
    "bufferedAmount": lambda ws: ws.bufferedAmount,
    "flush": lambda ws: ws.flush(0),
}


def closes(seen: Seen) -> list[tuple[int, bytes]]:
    """The close frames that the client sent."""
    got = (frame.payload for frame in seen.frames if frame.opcode == CLOSE)
    return [(int.from_bytes(payload[:2], "big"), payload[2:]) for payload in got]


@pytest.mark.parametrize("handler", [boom, close, close_and_leave, send_and_raise])
@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_a_signal_handler_interrupts_closes_cleanly_and_once(call: str, handler: Call) -> None:
    sockets: list[bws.WebSocket] = []
    with ScriptedServer(Connection.handshake) as server:

        def scene(interruption: Interruption) -> None:
            ws = bws.WebSocket(server.url, close_timeout=2 * TIMEOUT)
            sockets.append(ws)
            ends: list[tuple[int, bytes, bool]] = []
            ws.bind("close", lambda evt: ends.append((evt.code, evt.reason.encode(), evt.wasClean)))
            assert ws.wait_open(TIMEOUT)
            try:
                with interruption():
                    CALLS[call](ws)
            except Interrupt:
                pass
            ws.send("last")
            ws.close(1000, "again")
            assert ws.wait_closed(TIMEOUT), interruption.place
            seen = server.results(len(sockets))[-1]
            assert [(*one, True) for one in closes(seen)] == ends, interruption.place
            if call != "close" and handler in (boom, send_and_raise):
                assert (seen.messages[-1], ends) == ("last", [(1000, b"again", True)]), interruption.place
            assert len(seen.messages) == len(set(seen.messages)), interruption.place

        assert everywhere(scene, lambda: handler(sockets[-1])) > 3


def test_what_the_system_did_not_take_goes_out_by_itself_however_send_was_interrupted() -> None:
    large = b"x" * 300_000
    with ScriptedServer(Connection.handshake) as server:
        count = 0

        def scene(interruption: Interruption) -> None:
            nonlocal count
            count += 1
            ws = bws.WebSocket(server.url, compression=False)
            assert ws.wait_open(TIMEOUT)
            engine: Any = ws._engine
            engine._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with contextlib.suppress(Interrupt), interruption():
                ws.send(large)
            end = time.monotonic() + TIMEOUT
            while ws.bufferedAmount:  # looking at it wakes nobody
                assert time.monotonic() < end, interruption.place
                time.sleep(0.001)
            ws.close()
            assert ws.wait_closed(TIMEOUT)
            messages = server.results(count)[-1].messages
            assert messages in ([], [large]), interruption.place
            assert messages or interruption.place

        assert everywhere(scene, throw) > 20


def test_a_message_that_is_sent_while_close_is_called_arrives_or_is_counted() -> None:
    sockets: list[bws.WebSocket] = []
    with ScriptedServer(Connection.handshake) as server:

        def scene(interruption: Interruption) -> None:
            ws = bws.WebSocket(server.url)
            sockets.append(ws)
            assert ws.wait_open(TIMEOUT)
            with interruption():
                ws.send("message")
            ws.close()
            assert ws.wait_closed(TIMEOUT)
            messages = server.results(len(sockets))[-1].messages
            assert (messages, ws.bufferedAmount) in ((["message"], 0), ([], 7)), interruption.place

        assert everywhere(scene, lambda: close(sockets[-1])) > 5


@pytest.mark.parametrize("call", CALLS)
def test_a_signal_handler_that_closes_and_waits_does_not_wait_for_what_it_has_interrupted(call: str) -> None:
    sockets: list[bws.WebSocket] = []
    waits: list[float] = []

    def handler() -> None:
        start = time.monotonic()
        sockets[-1].close()
        sockets[-1].wait_closed(TIMEOUT)
        waits.append(time.monotonic() - start)

    with ScriptedServer(Connection.handshake) as server:

        def scene(interruption: Interruption) -> None:
            ws = bws.WebSocket(server.url, close_timeout=2 * TIMEOUT)
            sockets.append(ws)
            assert ws.wait_open(TIMEOUT)
            with interruption():
                CALLS[call](ws)
            ws.close()
            assert ws.wait_closed(TIMEOUT), interruption.place
            assert max(waits, default=0) < TIMEOUT, interruption.place  # it was closed, or could not be

        assert everywhere(scene, handler) > 3


def test_closing_what_connects_can_be_interrupted_and_done_again() -> None:
    sockets: list[bws.WebSocket] = []
    with ScriptedServer(Connection.request) as server:

        def scene(interruption: Interruption) -> None:
            ws = bws.WebSocket(server.url)
            sockets.append(ws)
            seen: list[str] = []
            ws.bind("error", lambda: seen.append("error"))
            ws.bind("close", lambda: seen.append("close"))
            try:
                with interruption():
                    ws.close()
            except Interrupt:
                ws.close()
            assert ws.wait_closed(TIMEOUT), interruption.place
            assert seen == ["error", "close"], interruption.place

        assert everywhere(scene, lambda: boom(sockets[-1])) > 3


def test_a_signal_handler_that_closes_while_open_is_delivered_sees_no_state_go_back() -> None:
    sockets: list[bws.WebSocket] = []
    with ScriptedServer(Connection.handshake) as server:

        def scene(interruption: Interruption) -> None:
            ready = threading.Semaphore(0)
            work: list[Callable[[], None]] = []

            def dispatch(fn: Callable[[], None]) -> None:
                work.append(fn)
                ready.release()

            ws = bws.WebSocket(server.url, dispatch=dispatch)
            sockets.append(ws)
            ws.bind("close", lambda: None)
            states: list[int] = []
            ws.bind("open", lambda: states.append(ws.readyState))
            assert ready.acquire(timeout=TIMEOUT)
            with interruption():
                work.pop(0)()
            if interruption.place:
                assert ws.readyState >= 2, interruption.place
            ws.close()
            while ws.readyState != 3:
                assert ready.acquire(timeout=TIMEOUT), interruption.place
                work.pop(0)()
            assert ws.wait_closed(TIMEOUT)
            assert states in ([], [1], [2]), interruption.place

        assert everywhere(scene, lambda: close(sockets[-1])) > 3


def test_ctrl_c_while_close_is_delivered_leaves_nobody_waiting() -> None:
    with ScriptedServer(lambda c: c.handshake(then=close_frame(1000))) as server:

        def scene(interruption: Interruption) -> None:
            events = bws.dispatch.Queue()
            ws = bws.WebSocket(server.url, dispatch=events)
            with contextlib.ExitStack() as stack:
                ws.bind("close", lambda: stack.enter_context(interruption()))
                with contextlib.suppress(Interrupt):
                    events.run_until(lambda: ws.readyState == 3, TIMEOUT)
            closed: list[bool] = []
            other = threading.Thread(target=lambda: closed.append(ws.wait_closed(TIMEOUT)))
            other.start()
            other.join()
            assert closed == [True], interruption.place

        assert everywhere(scene, throw) > 5


def in_time(run: Callable[[], object]) -> None:
    """Do it on a thread of its own, which a deadlock would keep for ever."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(2 * TIMEOUT)
    assert not thread.is_alive(), "it hangs"
    if raised:
        raise raised[0]


def test_a_signal_handler_may_make_a_socket_while_one_is_made() -> None:
    others: list[bws.WebSocket] = []
    with ScriptedServer(Connection.handshake) as server:

        def scene(interruption: Interruption) -> None:
            with interruption():
                ws = bws.WebSocket(server.url)
            for one in (ws, *others):
                assert one.wait_open(TIMEOUT), interruption.place
                one.close()
                assert one.wait_closed(TIMEOUT), interruption.place
            others.clear()

        in_time(lambda: everywhere(scene, lambda: others.append(bws.WebSocket(server.url))))


def test_a_signal_handler_may_bind_while_events_are_delivered_or_something_is_bound() -> None:
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame(1000))) as server:

        def scene(interruption: Interruption) -> None:
            events = bws.dispatch.Queue()
            ws = bws.WebSocket(server.url, dispatch=events)
            sockets[:] = [ws]
            got.clear()
            with interruption():
                ws.bind("open", lambda: got.append("open"))
                events.run_until(lambda: ws.readyState == 3, TIMEOUT)
            bind()
            assert events.run_until(lambda: len(got) > 2, TIMEOUT), interruption.place
            assert sorted(set(got)) == ["close", "message", "open"], interruption.place

        sockets: list[bws.WebSocket] = []
        got: list[str] = []

        def bind() -> None:
            for name in ("message", "close"):
                sockets[0].bind(name, lambda evt: got.append(evt.type))

        in_time(lambda: everywhere(scene, bind))


@pytest.mark.parametrize("what", ["binds, too", "raises"])
def test_a_signal_handler_may_come_in_while_what_was_held_gets_its_thread(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    late = threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "bws held events" and not late.is_set():
            late.set()
            if what == "raises":
                raise Interrupt
            ws.bind("close", lambda: got.append("close"))
        start(thread)

    def bind() -> None:
        with contextlib.suppress(Interrupt):
            ws.bind("message", lambda: got.append("message"))
        if what == "raises":
            ws.bind("close", lambda: got.append("close"))
        assert ws.wait_closed(TIMEOUT)

    got: list[str] = []
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "hello") + close_frame(1000))) as server:
        ws = bws.WebSocket(server.url)
        assert ws.wait_closed(TIMEOUT)
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        in_time(bind)
    assert sorted(got) == ["close", "message"]


def test_ctrl_c_while_events_are_delivered_loses_no_other_event_and_no_end() -> None:
    sent = ["0", "1", "2"]
    data = b"".join(frame(TEXT, text) for text in sent) + close_frame(1000)
    whole = ["open", *sent, "close"]

    def scene(interruption: Interruption) -> None:
        events, got = bws.dispatch.Queue(), list[str]()
        ws = bws.WebSocket(server.url, dispatch=events)
        for type in ("open", "message", "close"):
            ws.bind(type, lambda evt: got.append(getattr(evt, "data", evt.type)))
        with contextlib.suppress(Interrupt), interruption():
            events.run_until(lambda: got and got[-1] == "close", TIMEOUT)
        assert events.run_until(lambda: ws._close_done, TIMEOUT), interruption.place
        # What was about to be handled when it came may be gone, as if it had come in its handler.
        assert len(got) >= len(whole) - 1, (interruption.place, got)
        assert got == [one for one in whole if one in got], (interruption.place, got)
        assert ws.wait_closed(0), interruption.place

    with ScriptedServer(lambda c: c.handshake(then=data)) as server:
        assert everywhere(scene, throw) > 100


def test_ctrl_c_while_what_was_held_is_delivered_leaves_no_handler_without_messages() -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "held"))
        c.read_until(TEXT)
        c.send(frame(TEXT, "next") + close_frame(1000))

    def scene(interruption: Interruption) -> None:
        events, got = bws.dispatch.Queue(), list[str]()
        ws = bws.WebSocket(server.url, dispatch=events)
        assert events.run_until(ws._holds_messages, TIMEOUT)
        ws.bind("message", lambda evt: got.append(evt.data))
        with contextlib.suppress(Interrupt), interruption():
            events.run_pending()
        ws.send("go on")
        assert events.run_until(lambda: ws.readyState == 3, TIMEOUT), interruption.place
        assert got in (["held", "next"], ["next"]), interruption.place

    with ScriptedServer(script) as server:
        assert everywhere(scene, throw) > 10


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="two sockets take its place, and know when they are closed")
def test_ctrl_c_while_a_descriptor_is_closed_does_not_have_somebody_elses_closed() -> None:
    def scene(interruption: Interruption) -> None:
        waker = Waker()
        descriptor = waker.fileno()
        with contextlib.suppress(Interrupt), interruption():
            waker.close()
        closed = not is_open(descriptor)
        if closed:
            os.dup2(null, descriptor)  # somebody else gets it
        waker.close()
        if closed:
            assert is_open(descriptor), interruption.place
        if is_open(descriptor):  # an interruption may leave its own open
            os.close(descriptor)

    null = os.open(os.devnull, os.O_RDONLY)
    try:
        assert everywhere(scene, throw) > 1
    finally:
        os.close(null)


def chat(c: Connection) -> None:
    """Speaks all the time, and answers no close frame."""
    c.handshake()
    with contextlib.suppress(OSError):
        while True:
            c.sock.sendall(frame(TEXT, "and another thing"))
            c.pause(0.002)


def calm(ws: bws.WebSocket) -> bool:
    """Whether the socket's thread looks after nothing but what comes."""
    engine: Any = ws._engine
    return bool(engine._calm)


def test_a_close_that_ctrl_c_interrupts_goes_on_although_the_server_never_stops_talking() -> None:
    with ScriptedServer(chat) as server:

        def scene(interruption: Interruption) -> None:
            ws = bws.WebSocket(server.url, close_timeout=0.02)
            ws.bind("message", lambda evt: None)
            eventually(lambda: calm(ws))
            with contextlib.suppress(Interrupt), interruption():
                ws.close()
            if ws.readyState == 1:  # it came before the call had begun
                assert not interruption.place.startswith(("threaded", "outbox")), interruption.place
                ws.close()
            assert ws.wait_closed(TIMEOUT), interruption.place

        assert everywhere(scene, throw) > 20


def test_an_attempt_that_ctrl_c_gives_up_half_is_given_up_although_the_server_never_stops_talking() -> None:
    with ScriptedServer(chat) as server:

        def scene(interruption: Interruption) -> None:
            loop = bws.dispatch.Queue()
            ws = bws.WebSocket(server.url, dispatch=loop)  # the program is CONNECTING, the network is not
            eventually(lambda: calm(ws))
            with contextlib.suppress(Interrupt), interruption():
                ws.close()
            if ws.readyState == 0:
                assert not interruption.place.startswith(("threaded", "outbox")), interruption.place
                ws.close()
            assert loop.run_until(lambda: ws.readyState == 3, TIMEOUT), interruption.place

        assert everywhere(scene, throw) > 10


def test_ctrl_c_while_a_queue_is_emptied_leaves_nothing_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has stopped reading, as too much waits; whoever empties the queue has to tell it to go on."""
    monkeypatch.setattr("bws._delivery.HIGH_WATER_ITEMS", 10)

    def script(c: Connection) -> None:
        c.handshake(then=b"".join(frame(TEXT, str(number)) for number in range(20)))
        c.read_until(TEXT)
        for _ in range(2):  # one of them may be what is interrupted
            c.send_text("last")
        c.drain()

    with ScriptedServer(script) as server:

        def scene(interruption: Interruption) -> None:
            loop = bws.dispatch.Queue()
            got: list[str] = []
            ws = bws.WebSocket(server.url, dispatch=loop)
            ws.bind("message", lambda evt: got.append(evt.data))
            engine: Any = ws._engine
            assert loop.run_until(lambda: ws.readyState == 1, TIMEOUT)
            eventually(lambda: not engine._reads)
            ws.send("go on")
            with contextlib.suppress(Interrupt), interruption():
                loop.run_pending()
            assert loop.run_until(lambda: got[-1:] == ["last"], TIMEOUT), interruption.place
            ws.close()

        assert everywhere(scene, throw) > 20


def test_ctrl_c_twice_while_a_queue_is_emptied_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resume = Dispatched.resume
    left = 1

    def interrupted(delivery: Dispatched) -> None:
        nonlocal left
        if left:
            left -= 1
            raise Interrupt
        resume(delivery)

    def handler(evt: bws.MessageEvent) -> None:
        got.append(evt.data)
        if len(got) == 1:
            raise Interrupt

    monkeypatch.setattr(Dispatched, "resume", interrupted)
    got: list[str] = []
    with ScriptedServer(lambda c: c.handshake(then=frame(TEXT, "one") + frame(TEXT, "two") + close_frame())) as server:
        loop = bws.dispatch.Queue()
        ws = bws.WebSocket(server.url, dispatch=loop)
        ws.bind("message", handler)
        with pytest.raises(Interrupt):
            loop.run_until(lambda: ws.readyState == 3, TIMEOUT)
        assert loop.run_until(lambda: ws.readyState == 3, TIMEOUT)
    assert (got, left) == (["one", "two"], 0)


# -- loops


# What runs on threads of bws, to which no signal handler comes.
OWN_THREADS = ("deflate.py", "frames.py", "patience.py", "proxies.py", "relay.py", "tcp.py")


def code_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_in(constant)


@pytest.mark.skipif(sys.version_info[:2] in ((3, 10), (3, 12)), reason="it looks nowhere without a way out")
def test_no_loop_looks_for_signals_outside_of_the_try_or_with_that_it_is_in() -> None:
    """Python 3.13 puts the jump back of ``while condition:`` out of reach of `except`, `finally` and `with`."""
    parse: Any = dis._parse_exception_table  # type: ignore[attr-defined]
    found = []
    for path in sorted(pathlib.Path(bws.__file__).parent.rglob("*.py")):
        if path.name in OWN_THREADS or path.parent.name == "testing":
            continue
        for code in code_in(compile(path.read_text("utf-8"), str(path), "exec")):
            table = parse(code)
            steps = list(dis.get_instructions(code))
            for before, here in itertools.pairwise(steps):
                if here.opname.startswith("JUMP_BACKWARD") and "JUMP_IF" in before.opname:
                    reached = [
                        {entry.target for entry in table if entry.start <= step.offset < entry.end}
                        for step in (before, here)
                    ]
                    if reached[0] - reached[1]:
                        found.append((path.name, code.co_name))
    assert found == []
