"""A connection that is over leaves nothing behind in the interpreter."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tests.conftest import run_python
from tests.wire.frames import TEXT, frame
from tests.wire.server import Connection, ScriptedServer

ROUNDS, ROUND = 4, 200  # connections
PROGRAM = """
    import gc, sys, threading
    import bws

    def connection():
        def message(evt):
            if evt.data == "leave":
                ws.close(1000, "bye")
            else:
                ws.send(evt.data)
        ws = bws.WebSocket(sys.argv[1])
        ws.bind("message", message)
        ws.bind("error", lambda evt: None)
        ws.bind("close", lambda evt: None)
        assert ws.wait_closed(20)

    def some(count):
        for _ in range(count):
            connection()

    rounds, count = int(sys.argv[2]), int(sys.argv[3])
    for _ in range(rounds):
        threads = [threading.Thread(target=some, args=[count // 4]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for thread in threading.enumerate():
            if thread.name.startswith("bws"):
                thread.join(20)
        gc.collect()
        print(sys.getallocatedblocks(), len(gc.get_objects()), threading.active_count(), flush=True)
"""


def orderly(c: Connection) -> None:
    c.read_until(TEXT)
    c.close(1000, "done")


def cut(c: Connection) -> None:
    c.read_until(TEXT)
    c.reset()


def broken(c: Connection) -> None:
    c.send(frame(3))


def left(c: Connection) -> None:
    """The client closes."""


ENDS: list[tuple[str, Callable[[Connection], None]]] = [
    ("over", orderly),
    ("cut", cut),
    ("broken", broken),
    ("leave", left),
]


def test_connections_leave_nothing_behind_however_they_end() -> None:
    numbers = itertools.count()

    def script(c: Connection) -> None:
        word, end = ENDS[next(numbers) % len(ENDS)]
        c.handshake(then=frame(TEXT, word))
        end(c)

    with ScriptedServer(script) as server:
        ran = run_python(PROGRAM, server.url, str(ROUNDS), str(ROUND), measured=False)
    assert ran.returncode == 0, ran.stderr
    rounds = [tuple(map(int, line.split())) for line in ran.stdout.splitlines()]
    assert len(rounds) == ROUNDS
    _, (blocks, objects, threads), *_, last = rounds  # the first round fills caches
    # Far less than one of each for a connection: what is left is the interpreter's own.
    assert last[0] - blocks < ROUND / 4, rounds
    assert last[1] - objects < ROUND / 4, rounds
    assert last[2] == threads == 1
