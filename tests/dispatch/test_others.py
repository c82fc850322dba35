"""The lines of docs/howto/dispatch.md for other loops."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conftest import run_python

PROMPT_TOOLKIT = """
    import threading
    import bws
    from bws.testing import EchoServer
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import create_app_session, get_app
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    def begin():
        app = get_app()
        ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())
        ws.bind("open", lambda: ws.send("hello"))
        ws.bind("message", lambda evt: print(evt.data, get_app() is app))
        ws.bind("message", lambda: app.exit(result="bye"))

    with EchoServer() as server, create_pipe_input() as pipe:
        with create_app_session(input=pipe, output=DummyOutput()):
            print(PromptSession().prompt("> ", pre_run=begin))
"""

GLIB = """
    import threading
    import bws
    from bws.testing import EchoServer
    from gi.repository import GLib

    loop = GLib.MainLoop()
    with EchoServer() as server:
        ws = bws.WebSocket(server.url, dispatch=GLib.idle_add)
        ws.bind("open", lambda: ws.send("hello"))
        ws.bind("message", lambda evt: print(evt.data, threading.current_thread() is threading.main_thread()))
        ws.bind("message", lambda: ws.close())
        ws.bind("close", lambda: (print("bye"), loop.quit()))
        loop.run()
"""

TEXTUAL = """
    import bws
    from bws.testing import EchoServer
    from textual.app import App
    from textual.widgets import Label

    class Window(App):
        def compose(self):
            yield Label("-")

        def on_mount(self):
            self.ws = bws.WebSocket(server.url, dispatch=bws.dispatch.asyncio())
            self.ws.bind("open", lambda: self.ws.send("hello"))
            self.ws.bind("message", self.got)

        def got(self, evt):
            self.query_one(Label).update(evt.data)
            self.data = evt.data
            self.exit()

    with EchoServer() as server:
        window = Window()
        window.run(headless=True)
        print(window.data, window.ws.wait_closed(20))
        print("bye")
"""


@pytest.mark.parametrize(
    ("module", "code"), [("prompt_toolkit", PROMPT_TOOLKIT), ("gi", GLIB), ("textual", TEXTUAL)], ids=lambda x: x[:14]
)
def test_the_documented_line_works(module: str, code: str) -> None:
    if module == "gi" and importlib.util.find_spec(module) is None:
        pytest.skip("PyGObject is not installed: it has no wheels, and needs GTK's headers to be built")
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line in ("hello True", "bye")] == ["hello True", "bye"]
