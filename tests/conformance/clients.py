"""Echo clients for the fuzzing server: bws in its two modes, and the libraries that people use instead."""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["CLIENTS", "Unreachable", "now", "version_of"]

Client = Callable[[str, float], bool]  # URL, deadline in seconds: whether the connection was over before that


class Unreachable(Exception):
    """The connection was never open."""


def bws_thread(url: str, deadline: float) -> bool:
    """bws with its handlers on its own thread."""
    import bws

    ws = bws.WebSocket(url, max_size=None)
    return _run_bws(ws, url, lambda: ws.wait_closed(deadline))


def bws_dispatch(url: str, deadline: float) -> bool:
    """bws with its handlers on the calling thread."""
    import bws

    events = bws.dispatch.Queue()
    ws = bws.WebSocket(url, max_size=None, dispatch=events)
    return _run_bws(ws, url, lambda: events.run_until(lambda: ws.readyState == ws.CLOSED, deadline))


def _run_bws(ws: Any, url: str, wait: Callable[[], bool]) -> bool:
    opened: list[None] = []
    errors: list[str] = []
    ws.bind("open", lambda: opened.append(None))
    ws.bind("message", lambda evt: ws.send(evt.data))
    ws.bind("error", lambda evt: errors.append(evt.message))
    over = wait()
    if not over:
        ws.close()
    elif not opened:
        raise Unreachable(f"{url}: {'; '.join(errors)}")
    return over


def websocket_app(url: str, deadline: float) -> bool:
    """websocket-client's WebSocketApp."""
    import websocket

    def on_data(app: websocket.WebSocketApp, data: bytes | str, opcode: int, fin: bool) -> None:
        app.send(data, opcode)

    app = websocket.WebSocketApp(url, on_data=on_data)

    def run() -> None:
        app.run_forever()
        app.close()

    return _in_thread(run, app.close, deadline)


def websockets_sync(url: str, deadline: float) -> bool:
    """The client of websockets for threads."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    held: list[Any] = []

    def run() -> None:
        with connect(url, max_size=None, proxy=None) as ws:
            held.append(ws)
            try:
                for message in ws:
                    ws.send(message)
            except ConnectionClosed:
                pass

    return _in_thread(run, lambda: [ws.socket.close() for ws in held], deadline)


def _in_thread(run: Callable[[], object], stop: Callable[[], object], deadline: float) -> bool:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(deadline)
    over = not thread.is_alive()
    if not over:
        stop()
    return over


CLIENTS: dict[str, tuple[Client, str]] = {
    "thread": (bws_thread, "bws"),
    "dispatch": (bws_dispatch, "bws"),
    "websocket-client": (websocket_app, "websocket-client"),
    "websockets": (websockets_sync, "websockets"),
}


def version_of(client: str) -> str:
    return importlib.metadata.version(CLIENTS[client][1])


def now() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
