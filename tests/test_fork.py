"""After os.fork() the child's copies are closed, the parent's connections live on, and both can make new ones."""

from __future__ import annotations

import json
import pathlib
import threading
from typing import Any

import pytest

from tests.conftest import run_python
from tests.wire.frames import Data
from tests.wire.server import Connection, ScriptedServer
from tests.wire.tls import authority_pem

PROGRAM = """
import json, os, ssl, sys, threading
import bws

url, other, authority, leave = sys.argv[1:]
options = {"ssl": ssl.create_default_context(cafile=authority)} if authority else {}
events, got = [], threading.Semaphore(0)

def connect():
    ws = bws.WebSocket(url, **options)
    ws.bind("error", lambda evt: print(evt.error, file=sys.stderr))
    for name in ("open", "message", "error", "close"):
        ws.bind(name, lambda evt: (events.append([evt.type, getattr(evt, "data", None)]), got.release()))
    assert ws.wait_open(20)
    return ws

def echo(ws, text):
    ws.send(text)
    while ["message", text] not in events:
        assert got.acquire(timeout=20)
    return text

ws = connect()
unopened = bws.WebSocket(other, **options)
echo(ws, "before")
before = list(events)
reader, writer = os.pipe()
child = os.fork()
if not child:
    facts = {"states": [ws.readyState, unopened.readyState]}
    facts["closed"] = [ws.wait_closed(20), unopened.wait_closed(20)]
    facts["returned"] = [ws.send("from the child"), ws.close(3000, "child"), unopened.close(), ws.ping()]
    facts["flushed"] = ws.flush(0)
    facts["events"] = events[len(before):]
    facts["repr"] = repr(ws)
    new = connect()
    facts["new"] = [echo(new, "new in the child"), new.readyState]
    new.close(1000, "bye")
    facts["new"].append(new.wait_closed(20))
    os.write(writer, json.dumps(facts).encode())
    if leave == "_exit":
        os._exit(0)
    sys.exit(0)
os.close(writer)
facts = json.load(os.fdopen(reader))
facts["status"] = os.waitpid(child, 0)[1]
facts["parent"] = [echo(ws, "after"), ws.readyState, unopened.wait_open(20), echo(connect(), "new in the parent")]
ws.close(1000, "parent")
facts["parent"].append(ws.wait_closed(20))
facts["count"] = [name for name, _ in events].count("close")
print(json.dumps(facts))
"""


@pytest.mark.parametrize("leave", ["_exit", "exit"])
@pytest.mark.parametrize("tls", [(), ("localhost", "127.0.0.1")])
def test_a_fork_leaves_the_parents_connection_alone(tmp_path: pathlib.Path, tls: tuple[str, ...], leave: str) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text(authority_pem())
    asked, forked = threading.Event(), threading.Event()

    def echo(c: Connection) -> None:
        def answer(data: Data) -> None:
            if data == "before":
                c.wait_for(asked)
            elif data == "after":
                forked.set()
            c.send_message(data)

        c.handshake()
        c.behave(answer)

    def late(c: Connection) -> None:
        c.request()
        asked.set()
        c.wait_for(forked)
        c.upgrade(c.response())
        c.behave(c.send_message)

    # No TLS goes on while the program forks: OpenSSL has locks of its own, which the child would find held for ever.
    with ScriptedServer(echo, tls=tls) as server, ScriptedServer(late, tls=tls) as other:
        done = run_python(PROGRAM, server.url, other.url, str(authority) if tls else "", leave)
        assert (done.stderr, done.returncode) == ("", 0)
        seen = [*server.results(3), *other.results(1)]
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts == {
        "states": [3, 3],
        "closed": [True, True],
        "returned": [None, None, None, None],
        "flushed": facts["flushed"],
        "events": [],
        "repr": f"<WebSocket {server.url} CLOSED>",
        "new": ["new in the child", 1, True],
        "status": 0,
        "parent": ["after", 1, True, "new in the parent", True],
        "count": 1,
    }
    by_messages = {tuple(one.messages): one for one in seen}
    assert by_messages["before", "after"].close == (1000, "parent")
    assert by_messages["new in the child",].close == (1000, "bye")
    assert by_messages["new in the parent",].close == (1001, "")
    assert by_messages[()].close == (1001, "")
    assert all(one.after_close == [] for one in seen)


BUFFERS_PROGRAM = """
import os, threading
from bws._engine.buffers import BUFFERS
free = len(BUFFERS)
thread = threading.Thread(target=lambda: [BUFFERS.borrow() for _ in range(free)])
thread.start()
thread.join()
child = os.fork()
os.write(1, f"{len(BUFFERS) == (0 if child else free)} {BUFFERS.borrow() is None}\\n".encode())  # in one piece
if child:
    os.waitpid(child, 0)
"""


def test_what_the_parents_threads_have_borrowed_is_not_missing_in_the_child() -> None:
    done = run_python(BUFFERS_PROGRAM)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == ["True False", "True True"]
