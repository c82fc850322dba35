"""What all loops have in common; each program is run with each of them."""

from __future__ import annotations

import pytest

from tests.dispatch.programs import LOOPS, run

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_handlers_run_on_the_thread_of_the_loop_in_order(loop: str) -> None:
    run(
        loop,
        """
        seen = []

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

        got = []

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
        """,
    )
