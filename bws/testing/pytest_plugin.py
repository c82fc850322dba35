"""Fixtures for pytest: a server, and sockets that must not leak.

Put this into ``conftest.py``::

    pytest_plugins = ["bws.testing.pytest_plugin"]

and then::

    def test_my_client(echo_server, ws_connect):
        ws = ws_connect(echo_server.url)
        ws.send("hello")
        assert echo_server.next_message() == "hello"
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from ._checks import check_timeout
from .echo_server import EchoServer

if TYPE_CHECKING:
    from bws import WebSocket

__all__ = ["Connect", "echo_server", "echo_server_tls", "ws_connect"]

OPEN_TIMEOUT = 5.0  # s
CLOSE_TIMEOUT = 2.0  # s, the close_timeout of sockets that ws_connect makes, so that a silent server costs little
LEAK_TIMEOUT = 3.0  # s after the close_timeout; a socket that is not closed by then never will be


class Connect(Protocol):
    """What the fixture ``ws_connect`` is: ``bws.WebSocket`` that waits for ``open``.

    Args:
        url: As for ``bws.WebSocket``, like all others but ``wait``.
        protocols: The subprotocols to offer.
        wait: Seconds to wait until the socket is open; None returns at once, as it does with ``dispatch=``.
        options: Keyword options of ``bws.WebSocket``. ``close_timeout`` is 2 s unless given.

    Returns:
        The socket.

    Raises:
        ConnectionError: It did not open in time, or not at all; then ``__cause__`` is the real cause.
    """

    def __call__(
        self, url: str, protocols: Any = None, *, wait: float | None = OPEN_TIMEOUT, **options: Any
    ) -> WebSocket:
        """Open a socket; see the class."""
        ...


@pytest.fixture
def echo_server() -> Iterator[EchoServer]:
    """A running ``EchoServer`` on ``ws://``."""
    with EchoServer() as server:
        yield server


@pytest.fixture
def echo_server_tls() -> Iterator[EchoServer]:
    """A running ``EchoServer`` on ``wss://``; connect with ``ssl=echo_server_tls.ssl_context``."""
    with EchoServer(tls=True) as server:
        yield server


@pytest.fixture
def ws_connect() -> Iterator[Connect]:
    """Opens sockets (see ``Connect``), closes them after the test, and fails the test when one does not close.

    Their threads have ended, too, when the next test starts.

    Of a socket whose handlers run elsewhere (``dispatch=``) only a ``bws.dispatch.Queue`` can be waited for here; the
    others are told to close and not waited for.
    """
    import bws

    opened: list[tuple[WebSocket, dict[str, Any]]] = []
    before = set(threading.enumerate())

    def connect(url: str, protocols: Any = None, *, wait: float | None = OPEN_TIMEOUT, **options: Any) -> WebSocket:
        limit = check_timeout(wait, "wait")
        options.setdefault("close_timeout", CLOSE_TIMEOUT)
        ws = bws.WebSocket(url, protocols, **options)
        opened.append((ws, options))
        if limit is not None and options.get("dispatch") is None and not ws.wait_open(limit):
            if ws.readyState == ws.CLOSED:
                ws.__enter__()  # which raises ConnectionError from the real cause
            raise ConnectionError(f"{ws!r} did not open within {limit:g} s")
        return ws

    yield connect

    for ws, _ in opened:
        ws.close()
    leaked = [ws for ws, options in opened if not _has_closed(ws, options)]
    if leaked:
        pytest.fail(f"{len(leaked)} of {len(opened)} sockets did not close: {', '.join(map(repr, leaked))}")
    if all(_can_be_waited_for(options) for _, options in opened):
        _join(set(threading.enumerate()) - before)


def _has_closed(ws: WebSocket, options: dict[str, Any]) -> bool:
    timeout = None if options["close_timeout"] is None else options["close_timeout"] + LEAK_TIMEOUT
    dispatch = options.get("dispatch")
    if dispatch is None:
        return ws.wait_closed(timeout)
    if _can_be_waited_for(options):
        return bool(dispatch.run_until(lambda: ws.readyState == ws.CLOSED, timeout))
    return True


def _can_be_waited_for(options: dict[str, Any]) -> bool:
    dispatch = options.get("dispatch")
    return dispatch is None or hasattr(dispatch, "run_until")


def _join(threads: set[threading.Thread]) -> None:
    """Wait for those that are named after the URL of a socket; the others of bws serve all sockets and stay."""
    deadline = time.monotonic() + LEAK_TIMEOUT
    ours = [thread for thread in threads if thread.name.startswith(("bws ws://", "bws wss://"))]
    for thread in ours:
        thread.join(max(0.0, deadline - time.monotonic()))
    if left := sorted(thread.name.removeprefix("bws ") for thread in ours if thread.is_alive()):
        pytest.fail(
            f"not closed, or the thread did not end: {', '.join(left)} "
            "(ws_connect closes its own sockets; what else a test opens, it has to close)"
        )
