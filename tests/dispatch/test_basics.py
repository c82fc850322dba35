"""What all loops have in common; each program is run with each of them."""

from __future__ import annotations

import sys

import pytest

from bws.dispatch._pump import Adapter, Pump
from bws.testing import EchoServer
from tests.dispatch.programs import LOOPS, run

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# -- what comes


def test_handlers_run_on_the_thread_of_the_loop_in_order(loop: str) -> None:
    run(
        loop,
        """
        seen, got = [], []

        def note(evt):
            seen.append((evt.type, threading.current_thread() is threading.main_thread()))
            if evt.type == "open":
                for n in range(100):
                    ws.send(str(n))
            elif evt.type == "message":
                got.append(evt.data)
                if len(got) == 100:
                    ws.close(1000)
            elif evt.type == "close":
                quit()

        def start():
            global ws
            ws = bws.WebSocket(server.url, dispatch=loop())
            for type in ("open", "message", "close"):
                ws.bind(type, note)

        with EchoServer() as server:
            main(start)
            assert ws.wait_closed(20)
        assert got == [str(n) for n in range(100)], got
        assert seen == [("open", True), *[("message", True)] * 100, ("close", True)], seen
        no_thread_left()
        """,
    )


def test_a_flood_loses_nothing_and_leaves_timers_and_drawing_their_turn(loop: str) -> None:
    """The messages of three sockets take a second; if nobody saw to it, nothing else would happen before the last."""
    run(
        loop,
        """
        COUNT, SOCKETS = 30_000, 3
        blocks = [
            b"".join(frame(TEXT, str(n)) for n in range(start, start + 1000)) for start in range(0, COUNT, 1000)
        ]
        done, ticks = [], []

        def script(c):
            c.handshake()
            for block in blocks:
                c.send(block)
            c.close(1000)

        def tick():
            if len(done) < SOCKETS:
                ticks.append(time.perf_counter())
                later(0.01, tick)

        def connect():
            got = [0]
            ws = bws.WebSocket(server.url, dispatch=loop())

            def on_message(evt):
                assert evt.data == str(got[0]), (evt.data, got)
                got[0] += 1
                until = time.perf_counter() + 0.00001
                while time.perf_counter() < until:
                    pass
                if got[0] % 10 == 0:
                    show(evt.data)

            def on_close():
                done.append(got[0])
                if len(done) == SOCKETS:
                    frames.append(len(drawn or ()))
                    later(0, quit)

            ws.bind("message", on_message)
            ws.bind("close", on_close)

        frames = []

        def start():
            tick()
            for _ in range(SOCKETS):
                connect()

        with ScriptedServer(script) as server:
            main(start)
        assert done == [COUNT] * SOCKETS, done
        assert len(ticks) > 20, ticks
        assert drawn is None or frames[0] > 10, frames
        """,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="has no getrusage")
def test_memory_is_bounded_when_the_handlers_are_slower_than_the_server(loop: str) -> None:
    run(
        loop,
        """
        import resource

        def peak():  # KiB, on macOS bytes
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return most // 1024 if sys.platform == "darwin" else most

        def script(c):
            c.handshake()
            data = frame(BINARY, bytes(1 << 20))
            for _ in range(400):
                c.send(data)
            c.close(1000)

        got = []

        def on_message(evt):
            got.append(len(evt.data))
            time.sleep(0.002)

        def start():
            global before
            ws = bws.WebSocket(server.url, dispatch=loop())
            ws.bind("message", on_message)
            ws.bind("close", quit)
            before = peak()

        with ScriptedServer(script) as server:
            main(start)
        assert got == [1 << 20] * 400
        assert peak() - before < 150 * 1024, (before, peak())
        """,
    )


def test_sending_100_mb_to_a_peer_that_does_not_read_stops_nothing(loop: str) -> None:
    run(
        loop,
        """
        ticks = []

        def script(c):
            c.handshake()
            c.wait_for(read)

        read = threading.Event()

        def on_open():
            ws.send(bytes(100_000_000))
            tick()

        def tick():
            ticks.append(ws.bufferedAmount)
            if len(ticks) < 50:
                later(0.005, tick)
            else:
                ws.close()
                quit()

        def start():
            global ws
            ws = bws.WebSocket(server.url, dispatch=loop(), close_timeout=0.1, compression=False)
            ws.bind("open", on_open)

        with ScriptedServer(script) as server:
            main(start)
            assert len(ticks) == 50
            assert ticks[-1] > 50_000_000, ticks
            read.set()
            assert ws.wait_closed(20)
        """,
    )


# -- what goes wrong


def test_the_loops_own_hook_hears_of_an_exception_and_the_rest_goes_on(loop: str) -> None:
    run(
        loop,
        """
        reported, seen = [], []

        def bad(evt):
            raise ValueError(evt.type)

        def start():
            global ws
            hook(reported)
            ws = bws.WebSocket(server.url, dispatch=loop())
            for type in ("open", "message", "close"):
                ws.bind(type, bad)
                ws.bind(type, lambda evt: seen.append(evt.type))
            ws.bind("open", lambda: ws.send("hello"))
            ws.bind("message", lambda: ws.close())
            ws.bind("close", quit)

        with EchoServer() as server:
            main(start)
        assert seen == ["open", "message", "close"], seen
        assert [str(exc) for exc in reported] == seen, reported
        """,
    )


def test_waiting_on_the_thread_of_the_loop_is_refused(loop: str) -> None:
    run(
        loop,
        """
        def refused(wait):
            try:
                wait(20)
            except RuntimeError as exc:
                return "could not happen" in str(exc)

        def start():
            global ws
            ws = bws.WebSocket(server.url, dispatch=loop())
            said.append(refused(ws.wait_open))      # before anything has run
            said.append(refused(ws.wait_closed))
            ws.bind("open", lambda: said.append(refused(ws.wait_closed)))
            ws.bind("open", lambda: ws.close())
            ws.bind("close", quit)

        said = []
        with EchoServer() as server:
            main(start)
            assert ws.wait_closed(20)
        assert said == [True] * 3, said
        """,
    )


def test_another_thread_may_wait(loop: str) -> None:
    run(
        loop,
        """
        said = []

        def wait():
            said.append(ws.wait_open(20))
            ws.close()
            said.append(ws.wait_closed(20))
            said.append(ws.readyState)

        def start():
            global ws, thread
            ws = bws.WebSocket(server.url, dispatch=loop())
            ws.bind("close", quit)
            thread = threading.Thread(target=wait)
            thread.start()

        with EchoServer() as server:
            main(start)
            thread.join(20)
        assert said == [True, True, 3], said
        """,
    )


# -- endings


def test_when_the_loop_ends_the_socket_is_closed_quietly_and_nobody_hangs(loop: str) -> None:
    """The program goes on after its window; a thread that waits for the end of the socket comes back."""
    with EchoServer() as server:
        run(
            loop,
            """
            called, said = [], []

            def start():
                global ws
                ws = bws.WebSocket(sys.argv[1], dispatch=loop())
                ws.bind("open", lambda: (called.append("open"), threads[0].start(), quit()))
                ws.bind("close", lambda: called.append("close"))
                ws.bind("error", lambda: called.append("error"))

            threads = [threading.Thread(target=lambda: said.append(ws.wait_closed(20)))]
            main(start)
            assert ws.wait_closed(20)       # on the thread of the loop, now that there is none
            threads[0].join(20)
            assert said == [True], said
            assert called == ["open"], called
            assert ws.readyState == 3
            no_thread_left()
            print("done")
            """,
            server.url,
        )
        assert server.next_close() == (1001, "")


def test_a_call_that_was_taken_and_never_run_keeps_nobody_waiting(loop: str) -> None:
    with EchoServer() as server:
        run(
            loop,
            """
            called = []

            def start():
                global ws, waiter
                ws = bws.WebSocket(sys.argv[1], dispatch=loop())
                ws.bind("open", lambda: called.append("open"))
                waiter = threading.Thread(target=ws.wait_closed, args=(20,))
                waiter.start()
                # The loop stands still here until the event is in its hands.
                wait_for(lambda: ws._delivery._count)
                quit()

            main(start)
            waiter.join(20)
            assert not waiter.is_alive()
            assert ws.wait_closed(20)
            no_thread_left()
            """,
            server.url,
        )


def test_a_program_that_ends_with_the_socket_open_exits_with_its_own_status(loop: str) -> None:
    with EchoServer() as server:
        run(
            loop,
            """
            def start():
                ws = bws.WebSocket(sys.argv[1], dispatch=loop())
                ws.bind("open", lambda: later(0.01, quit))

            main(start)
            sys.exit(3)
            """,
            server.url,
            status=3,
        )
        assert server.next_close() == (1001, "")


def test_what_was_handed_over_by_a_loop_that_is_gone_is_refused(loop: str) -> None:
    run(
        loop,
        """
        def start():
            global adapter
            adapter = loop()
            assert "gone" not in repr(adapter), adapter
            ws = bws.WebSocket(server.url, dispatch=adapter)
            ws.bind("open", quit)

        with EchoServer() as server:
            main(start)
            wait_for(lambda: adapter.gone)
            assert "gone" in repr(adapter), adapter
            later_one = bws.WebSocket(server.url, dispatch=adapter)
            assert later_one.wait_closed(20)
            assert later_one.readyState == 3
        no_thread_left()
        """,
    )


def test_two_sockets_share_an_adapter_and_each_has_its_own_end(loop: str) -> None:
    run(
        loop,
        """
        seen = []

        def start():
            adapter = loop()
            for name in "ab":
                connect(name, adapter)

        def connect(name, adapter):
            ws = bws.WebSocket(server.url, dispatch=adapter)
            ws.bind("open", lambda: ws.send(name))
            ws.bind("message", lambda evt: (seen.append(evt.data), ws.close()))
            ws.bind("close", lambda: (seen.append(name + "!"), len(seen) == 4 and quit()))

        with EchoServer() as server:
            main(start)
        assert sorted(seen) == ["a", "a!", "b", "b!"], seen
        assert seen.index("a") < seen.index("a!"), seen
        """,
    )


def test_adapters_leave_nothing_behind(loop: str) -> None:
    """A program that connects again and again, each time with a new adapter."""
    run(
        loop,
        """
        import weakref
        adapters, sockets = weakref.WeakSet(), weakref.WeakSet()

        def start():
            adapter = loop()
            adapters.add(adapter)
            ws = bws.WebSocket(server.url, dispatch=adapter)
            sockets.add(ws)
            ws.bind("close", again)
            ws.bind("open", lambda evt: evt.target.close())

        count = [0]

        def again():
            count[0] += 1
            if count[0] < 20:
                later(0, start)
            else:
                later(0.05, look)

        def look():
            global left
            gc.collect()
            left = len(adapters), len(sockets)
            quit()

        with EchoServer() as server:
            main(start)
        assert count == [20]
        assert left[0] <= 2 and left[1] <= 2, left
        """,
    )


def test_ctrl_c_while_a_loop_is_woken_does_not_count_as_its_end() -> None:
    class Interrupted(Pump):
        woken_up = 0

        def _wake(self) -> None:
            self.woken_up += 1
            if self.woken_up == 1:
                raise KeyboardInterrupt

    pump = Interrupted()
    adapter = Adapter(pump, "test")
    ran: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        adapter(lambda: ran.append(1))
    assert not adapter.gone
    adapter(lambda: ran.append(2))
    assert pump.woken_up == 2
