"""Tries on each client what docs/comparison.md says of it: `python -m tests.compare_clients`.

A client is given the same server, which misbehaves in one way, and what it does is printed. Nothing is judged here.
PySide6 with its add-ons is needed for QWebSocket; a client that is not installed is left out.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bws.testing import EchoServer
from tests.wire.frames import PING, PONG, TEXT, frame
from tests.wire.server import Connection, ScriptedServer

PATIENCE = 4.0  # s; what takes longer is said to block
BLOCKING = 3.0  # s, of a handler
SECRET = "Bearer secret"
CHUNK, CHUNKS = os.urandom(1 << 20), 24  # random, so that it does not shrink


class Client:
    """One connection of one library; `events` has what it told: ("open",), ("message", data), ("end", text)."""

    package = ""

    def __init__(self, url: str, headers: dict[str, str], handler: Callable[[Any], None]) -> None:
        self.url, self.headers, self.handler = url, headers, handler
        self.events: list[tuple[Any, ...]] = []
        self.changed = threading.Condition()
        self.start()

    def tell(self, *event: Any) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()
        if event[0] == "message":
            self.handler(event[1])

    def saw(self, kind: str, timeout: float = PATIENCE) -> tuple[Any, ...] | None:
        with self.changed:
            self.changed.wait_for(lambda: any(event[0] == kind for event in self.events), timeout)
            return next((event for event in self.events if event[0] == kind), None)

    def start(self) -> None:
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Bws(Client):
    package = "bws"

    def start(self) -> None:
        import bws

        self.ws = ws = bws.WebSocket(self.url, headers=self.headers)
        ws.bind("open", lambda: self.tell("open"))
        ws.bind("message", lambda evt: self.tell("message", evt.data))
        ws.bind("close", lambda evt: self.tell("end", f"{evt.code} {evt.reason!r} {type(evt.error).__name__}"))

    def send(self, data: bytes) -> None:
        self.ws.send(data)

    def close(self) -> None:
        self.ws.close()


class WebSocketClient(Client):
    package = "websocket-client"

    def start(self) -> None:
        import websocket

        self.ws = websocket.WebSocketApp(
            self.url,
            header=self.headers,
            on_open=lambda app: self.tell("open"),
            on_message=lambda app, data: self.tell("message", data),
            on_error=lambda app, exc: self.tell("error", type(exc).__name__),
            on_close=lambda app, code, reason: self.tell("end", f"{code} {reason!r}"),
        )
        threading.Thread(target=self.ws.run_forever, daemon=True).start()

    def send(self, data: bytes) -> None:
        self.ws.send_bytes(data)

    def close(self) -> None:
        self.ws.close()


class Websockets(Client):
    package = "websockets"

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        from websockets.sync.client import connect

        try:
            with connect(self.url, additional_headers=self.headers, legacy=True) as ws:
                self.ws = ws
                self.tell("open")
                while True:
                    self.tell("message", ws.recv())
        except Exception as exc:
            self.tell("end", f"{type(exc).__name__}: {exc}")

    def send(self, data: bytes) -> None:
        self.ws.send(data)

    def close(self) -> None:
        self.ws.close()


class Picows(Client):
    package = "picows"
    transport: Any

    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        picows: Any = importlib.import_module("picows")
        client = self

        class Listener(picows.WSListener):  # type: ignore[misc]
            def on_ws_connected(self, transport: Any) -> None:
                client.transport = transport
                client.tell("open")

            def on_ws_frame(self, transport: Any, got: Any) -> None:
                if got.msg_type in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY):
                    client.tell("message", got.get_payload_as_bytes())

            def on_ws_disconnected(self, transport: Any) -> None:
                got = transport.close_handshake.recv
                client.tell("end", f"{got.code} {got.reason!r}" if got else "no close frame")

        async def main() -> None:
            try:
                transport, _ = await picows.ws_connect(Listener, self.url, extra_headers=self.headers)
                await transport.wait_disconnected()
            except Exception as exc:
                self.tell("end", f"{type(exc).__name__}: {exc}")

        self.loop.run_until_complete(main())

    def _there(self, call: Callable[[], object]) -> None:
        async def run() -> None:
            call()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)

    def send(self, data: bytes) -> None:
        self._there(lambda: self.transport.send(importlib.import_module("picows").WSMsgType.BINARY, data))

    def close(self) -> None:
        self._there(lambda: (self.transport.send_close(1000), self.transport.disconnect()))


class Qt(Client):
    package = "PySide6_Addons"
    app: Any = None
    caller: Any = None

    def start(self) -> None:
        Qt.caller.call.emit(self._open)

    def _open(self) -> None:
        core, web = importlib.import_module("PySide6.QtCore"), importlib.import_module("PySide6.QtWebSockets")
        network = importlib.import_module("PySide6.QtNetwork")
        self.ws = ws = web.QWebSocket()
        request = network.QNetworkRequest(core.QUrl(self.url))
        for name, value in self.headers.items():
            request.setRawHeader(name.encode(), value.encode())
        ws.connected.connect(lambda: self.tell("open"))
        ws.textMessageReceived.connect(lambda text: self.tell("message", text))
        ws.binaryMessageReceived.connect(lambda data: self.tell("message", bytes(data)))
        ws.errorOccurred.connect(lambda error: self.tell("error", f"{error.name}: {ws.errorString()}"))
        ws.disconnected.connect(lambda: self.tell("end", f"{ws.closeCode()} {ws.closeReason()!r}"))
        ws.open(request)

    def _there(self, call: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            call()
            done.set()

        Qt.caller.call.emit(run)
        if not done.wait(PATIENCE):
            raise TimeoutError

    def send(self, data: bytes) -> None:
        self._there(lambda: self.ws.sendBinaryMessage(data))

    def close(self) -> None:
        self._there(self.ws.close)


CLIENTS: list[type[Client]] = [Bws, WebSocketClient, Websockets, Picows, Qt]


def took(call: Callable[[], object]) -> str:
    """How long a call took, or that it had not returned."""
    done = threading.Event()
    begin = time.monotonic()

    def run() -> None:
        try:
            call()
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    return f"returned after {time.monotonic() - begin:.1f} s" if done.wait(PATIENCE) else f"blocks over {PATIENCE:g} s"


def nothing(data: Any) -> None:
    """A handler."""


def sending(data: bytes) -> Callable[[Connection], None]:
    """A server that sends this and stays a second."""

    def script(c: Connection) -> None:
        c.handshake(then=data)
        c.pause(1.0)

    return script


def sends_to_a_server_that_does_not_read(kind: type[Client]) -> str:
    with EchoServer() as server:
        client = kind(server.url, {}, nothing)
        client.saw("open")
        server.stall()

        def send() -> None:
            for _ in range(CHUNKS):
                client.send(CHUNK)

        return took(send)


def closes_a_connection_that_is_not_answered(kind: type[Client]) -> str:
    with EchoServer() as server:
        client = kind(server.url, {}, nothing)
        client.saw("open")
        server.stall()
        return took(client.close)


def answers_pings_while_a_handler_takes_three_seconds(kind: type[Client]) -> str:
    after: list[float] = []

    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "wait"))
        c.pause(0.5)
        begin = time.monotonic()
        c.send(frame(PING, b"x"))
        c.read_until(PONG)
        after.append(time.monotonic() - begin)

    with ScriptedServer(script) as server:
        client = kind(server.url, {}, lambda data: time.sleep(BLOCKING))
        client.saw("message")
        time.sleep(BLOCKING + 1)
        return f"pong after {after[0]:.1f} s" if after else "no pong"


def follows_a_redirect_to_another_host(kind: type[Client]) -> str:
    with EchoServer() as other, EchoServer() as server:
        server.refuse(302, {"Location": other.url.replace("127.0.0.1", "localhost")})
        client = kind(server.url, {"Authorization": SECRET, "Cookie": "a=1"}, nothing)
        client.saw("open", 2.0)
        try:
            seen = other.headers
        except RuntimeError:
            return "no"
        return f"yes; Authorization sent: {'Authorization' in seen}, Cookie sent: {'Cookie' in seen}"


def lets_a_header_value_become_another_header(kind: type[Client]) -> str:
    with EchoServer() as server:
        try:
            kind(server.url, {"X-Name": "a\r\nX-Injected: b"}, nothing).saw("open", 1.0)
            return "injected" if "X-Injected" in server.headers else "not injected"
        except Exception as exc:
            return f"refused or not connected ({type(exc).__name__})"


def offers_compression(kind: type[Client]) -> str:
    with EchoServer() as server:
        kind(server.url, {}, nothing).saw("open")
        return server.headers.get("Sec-WebSocket-Extensions", "no")


def takes_a_masked_frame(kind: type[Client]) -> str:
    with ScriptedServer(sending(frame(TEXT, "masked", mask=b"1234"))) as server:
        client = kind(server.url, {}, nothing)
        return f"delivers {client.saw('message', 1.5)!r}, end {client.saw('end', 0.5)}"


def takes_text_that_is_not_utf_8(kind: type[Client]) -> str:
    with ScriptedServer(sending(frame(TEXT, b"\xc3\x28"))) as server:
        client = kind(server.url, {}, nothing)
        return f"delivers {client.saw('message', 1.5)!r}, end {client.saw('end', 0.5)}"


def takes_a_message_of_40_mib(kind: type[Client]) -> str:
    with EchoServer() as server:
        client = kind(server.url, {}, nothing)
        client.saw("open")
        server.send(bytes(40 << 20))
        message = client.saw("message", 15.0)
        return f"{len(message[1]) >> 20} MiB" if message else f"no: {client.saw('end', 1.0)}"


def tells_the_servers_code_and_reason(kind: type[Client]) -> str:
    with EchoServer() as server:
        client = kind(server.url, {}, nothing)
        client.saw("open")
        server.close(4001, "go away")
        return str(client.saw("end"))


def tells_why_a_status_refused_it(kind: type[Client]) -> str:
    with EchoServer() as server:
        server.refuse(403)
        client = kind(server.url, {}, nothing)
        client.saw("end", 2.0)
        return str(client.events)


TRIALS: list[Callable[[type[Client]], str]] = [
    sends_to_a_server_that_does_not_read,
    closes_a_connection_that_is_not_answered,
    answers_pings_while_a_handler_takes_three_seconds,
    follows_a_redirect_to_another_host,
    lets_a_header_value_become_another_header,
    offers_compression,
    takes_a_masked_frame,
    takes_text_that_is_not_utf_8,
    takes_a_message_of_40_mib,
    tells_the_servers_code_and_reason,
    tells_why_a_status_refused_it,
]


def version(kind: type[Client]) -> str | None:
    """The version that is installed."""
    try:
        return importlib.metadata.version(kind.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def run() -> None:
    """Print what each client does in each trial."""
    kinds = [kind for kind in CLIENTS if version(kind) and (kind is not Qt or Qt.app)]
    print(*(f"{kind.package} {version(kind)}" for kind in kinds), sep=", ")
    for trial in TRIALS:
        print(f"\n{trial.__name__.replace('_', ' ')}")
        for kind in kinds:
            try:
                answer = trial(kind)
            except Exception as exc:
                answer = f"{type(exc).__name__}: {exc}"
            print(f"  {kind.package:17} {answer[:150]}", flush=True)


def main() -> None:
    """On a thread beside Qt's loop, when there is Qt."""
    try:
        core = importlib.import_module("PySide6.QtCore")
        importlib.import_module("PySide6.QtWebSockets")
    except ImportError:
        run()
        return

    class Caller(core.QObject):  # type: ignore[misc,name-defined]
        call = core.Signal(object)

        def run(self, function: Callable[[], object]) -> None:
            function()

    Qt.app = core.QCoreApplication(sys.argv)
    Qt.caller = Caller()
    Qt.caller.call.connect(Qt.caller.run)

    def work() -> None:
        run()
        Qt.app.quit()

    worker = threading.Thread(target=work)
    worker.start()
    Qt.app.exec()
    worker.join()


if __name__ == "__main__":
    main()
