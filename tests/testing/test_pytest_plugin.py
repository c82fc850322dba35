"""The fixtures of bws.testing.pytest_plugin, in a test suite of their own."""

from __future__ import annotations

import queue

import pytest

import bws
from bws.testing import EchoServer, record
from bws.testing.pytest_plugin import Connect

USE_PLUGIN = 'pytest_plugins = ["bws.testing.pytest_plugin"]'


def outcomes(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    """Run one test module in a process of its own, where warnings are errors too."""
    pytester.makeconftest(USE_PLUGIN)
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")


def test_a_test_talks_to_the_server_through_a_socket_that_is_open(ws_connect: Connect, echo_server: EchoServer) -> None:
    ws = ws_connect(echo_server.url)
    assert ws.readyState == bws.WebSocket.OPEN
    ws.send("hello")
    assert record(ws).wait_for("message").data == "hello"


def test_the_tls_server_is_trusted_with_its_context(ws_connect: Connect, echo_server_tls: EchoServer) -> None:
    ws = ws_connect(echo_server_tls.url, ssl=echo_server_tls.ssl_context)
    ws.send("secret")
    assert echo_server_tls.next_message() == "secret"


def test_options_and_protocols_reach_the_socket(ws_connect: Connect) -> None:
    with EchoServer(subprotocols=["chat"]) as server:
        ws = ws_connect(server.url, ["chat"], headers={"X-Who": "me"})
        assert ws.protocol == "chat"
        assert server.headers["X-Who"] == "me"


def test_a_socket_that_does_not_open_is_a_connection_error(ws_connect: Connect, echo_server: EchoServer) -> None:
    echo_server.refuse(404)
    with pytest.raises(ConnectionError, match=r"no connection to ws://127\.0\.0\.1:\d+/: .*404"):
        ws_connect(echo_server.url)
    echo_server.stall()
    with pytest.raises(ConnectionError, match=r"<WebSocket ws://\S+ CONNECTING> did not open within 0\.05 s"):
        ws_connect(echo_server.url, wait=0.05)


def test_a_test_may_see_the_connecting_itself(ws_connect: Connect, echo_server: EchoServer) -> None:
    echo_server.stall()
    ws = ws_connect(echo_server.url, wait=None)
    assert ws.readyState == bws.WebSocket.CONNECTING


def test_with_dispatch_nothing_is_waited_for(ws_connect: Connect, echo_server: EchoServer) -> None:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    ws = ws_connect(echo_server.url, dispatch=events.put)
    assert ws.readyState == bws.WebSocket.CONNECTING  # this thread alone could change it


def test_sockets_are_closed_after_the_test(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        from bws.testing import EchoServer
        import pytest

        @pytest.fixture(scope="module")
        def server():
            with EchoServer() as server:
                yield server

        def test_that_opens_two(server, ws_connect):
            ws_connect(server.url)
            ws_connect(server.url)

        def test_that_sees_both_closed(server):
            assert [server.next_close()[0] for _ in range(2)] == [1005, 1005]
        """,
    )
    result.assert_outcomes(passed=2)


def test_the_threads_of_the_sockets_have_ended_after_the_test(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        import threading

        started = []

        def test_that_opens_many(echo_server, ws_connect):
            for _ in range(20):
                ws_connect(echo_server.url).bind("close", lambda: started.append(threading.current_thread()))

        def test_that_sees_no_thread_of_them():
            assert len(started) == len(set(started)) == 20
            assert [thread for thread in started if thread.is_alive()] == []
        """,
    )
    result.assert_outcomes(passed=2)


def test_a_thread_that_does_not_end_fails_its_test(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        import threading
        from bws.testing import pytest_plugin

        pytest_plugin.LEAK_TIMEOUT = 0.1
        for_ever = threading.Event()

        def test_leak(echo_server, ws_connect):
            ws_connect(echo_server.url)
            threading.Thread(target=for_ever.wait, name="bws ws://stuck", args=[30], daemon=True).start()

        def test_let_it_go():
            for_ever.set()
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*not closed, or the thread did not end: ws://stuck (*"])


def test_a_failure_says_what_came_instead(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        from bws.testing import record

        def test_two_messages(echo_server, ws_connect):
            ws = ws_connect(echo_server.url)
            seen = record(ws)
            ws.send("only one")
            seen.wait_for("message")
            seen.wait_for("message", 2, timeout=0.05)
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*AssertionError: 1 of 2 'message' events within 0.05 s; what came: open, message('only one')"]
    )


def test_a_socket_that_a_silent_server_holds_up_is_no_leak(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        def test_silence(echo_server, ws_connect):
            ws_connect(echo_server.url, close_timeout=0.1)
            echo_server.stall()
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_socket_that_does_not_close_fails_its_test(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        import threading
        from bws.testing import pytest_plugin

        pytest_plugin.LEAK_TIMEOUT = 0.1
        for_ever = threading.Event()

        def test_leak(echo_server, ws_connect):
            ws = ws_connect(echo_server.url, close_timeout=0.1)
            ws.bind("close", lambda: for_ever.wait(30))  # its thread does not come to an end

        def test_let_it_go():
            for_ever.set()
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*1 of 1 sockets did not close: <WebSocket ws://127.0.0.1:*"])


def test_the_socket_of_a_queue_is_closed_by_running_what_is_pending(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        import queue
        import time

        class Queue(queue.SimpleQueue):
            __call__ = queue.SimpleQueue.put

            def run_until(self, predicate, timeout):
                end = time.monotonic() + timeout
                while not predicate() and time.monotonic() < end:
                    self.get(timeout=timeout)()
                return predicate()

        def test_queue(echo_server, ws_connect):
            events, seen = Queue(), []
            ws = ws_connect(echo_server.url, dispatch=events)
            ws.bind("open", lambda: seen.append("open"))
            assert events.run_until(lambda: seen, 10)
        """,
    )
    result.assert_outcomes(passed=1)


def test_the_fixtures_leave_no_thread_of_a_server(pytester: pytest.Pytester) -> None:
    result = outcomes(
        pytester,
        """
        import threading

        def test_servers(echo_server, echo_server_tls):
            assert echo_server.url.startswith("ws://") and echo_server_tls.url.startswith("wss://")

        def test_no_thread_is_left():
            assert [t for t in threading.enumerate() if t.name.startswith("EchoServer")] == []
        """,
    )
    result.assert_outcomes(passed=2)
