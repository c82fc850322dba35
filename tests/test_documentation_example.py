"""The example of Brython's documentation, with `import bws as websocket`, against the echo server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import bws as websocket
from bws.testing import EchoServer

TIMEOUT = 15.0


class Element:
    """A button or an input of the example's page."""

    def __init__(self) -> None:
        self.disabled = False
        self.value = ""
        self.click: Callable[[Any], None] = lambda ev: None

    def bind(self, event: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """As in the browser; only clicks."""
        assert event == "click"

        def decorator(fn: Callable[[Any], None]) -> Callable[[Any], None]:
            self.click = fn
            return fn

        return decorator


class Page:
    """What the example uses of the browser: `document` and `alert`."""

    def __init__(self) -> None:
        self.document = {name: Element() for name in ("openbtn", "sendbtn", "closebtn", "data")}
        self.document["sendbtn"].disabled = self.document["closebtn"].disabled = True
        self.alerts: list[str] = []
        self._changed = threading.Condition()

    def alert(self, text: str) -> None:
        """Show a message box."""
        with self._changed:
            self.alerts.append(text)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so; the example's handlers call `changed`."""
        with self._changed:
            assert self._changed.wait_for(condition, TIMEOUT), self.alerts

    def changed(self) -> None:
        """Something has changed."""
        with self._changed:
            self._changed.notify_all()


Handlers = tuple[Callable[..., None], Callable[..., None], Callable[..., None]]


def with_the_event(page: Page) -> Handlers:
    """The handlers as the documentation's example has them."""
    document, alert = page.document, page.alert

    def on_open(evt: Any) -> None:
        document["sendbtn"].disabled = False
        document["closebtn"].disabled = False
        document["openbtn"].disabled = True
        page.changed()

    def on_message(evt: Any) -> None:
        # message received from server
        alert(f"Message received : {evt.data}")

    def on_close(evt: Any) -> None:
        # websocket is closed
        alert("Connection is closed")
        document["openbtn"].disabled = False
        document["closebtn"].disabled = True
        document["sendbtn"].disabled = True
        page.changed()

    return on_open, on_message, on_close


def without_argument(page: Page) -> Handlers:
    """The handlers as the documentation's table has them: "function with no argument" for open and close."""
    on_open, on_message, on_close = with_the_event(page)
    return lambda: on_open(None), on_message, lambda: on_close(None)


@pytest.mark.parametrize("handlers", [with_the_event, without_argument])
def test_the_example_of_the_documentation_works(handlers: Callable[[Page], Handlers]) -> None:
    page = Page()
    document, alert = page.document, page.alert
    on_open, on_message, on_close = handlers(page)
    ws: Any = None

    with EchoServer() as server:

        @document["openbtn"].bind("click")
        def _open(ev: Any) -> None:
            if not websocket.supported:
                alert("WebSocket is not supported by your browser")
                return
            nonlocal ws
            # open a web socket
            ws = websocket.WebSocket(server.url)
            # bind functions to web socket events
            ws.bind("open", on_open)
            ws.bind("message", on_message)
            ws.bind("close", on_close)

        @document["sendbtn"].bind("click")
        def send(ev: Any) -> None:
            data = document["data"].value
            if data:
                ws.send(data)

        @document["closebtn"].bind("click")
        def close_connection(ev: Any) -> None:
            ws.close()
            document["openbtn"].disabled = False

        document["openbtn"].click(None)
        page.wait_for(lambda: document["openbtn"].disabled)
        assert not document["sendbtn"].disabled
        assert not document["closebtn"].disabled

        document["sendbtn"].click(None)  # nothing is typed in, nothing is sent
        for text in ("hello", "héllo ✓ 😀"):
            document["data"].value = text
            document["sendbtn"].click(None)
        page.wait_for(lambda: len(page.alerts) == 2)
        assert page.alerts == ["Message received : hello", "Message received : héllo ✓ 😀"]

        document["closebtn"].click(None)
        page.wait_for(lambda: page.alerts[-1] == "Connection is closed" and document["sendbtn"].disabled)
        assert not document["openbtn"].disabled
        assert ws.wait_closed(TIMEOUT)

        document["openbtn"].click(None)  # and again
        page.wait_for(lambda: document["openbtn"].disabled)
        document["closebtn"].click(None)
        page.wait_for(lambda: page.alerts.count("Connection is closed") == 2)
        assert ws.wait_closed(TIMEOUT)
        assert server.messages == ["hello", "héllo ✓ 😀"]
