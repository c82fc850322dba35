"""Pings of the client's own: ping_interval and ping_timeout."""

from __future__ import annotations

import threading
import time

from tests.conftest import TIMEOUT, Play, Recorder
from tests.wire.frames import BINARY, PING, PONG, TEXT, frame
from tests.wire.server import Connection


def test_pings_go_out_at_the_interval_and_pongs_keep_the_connection(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for _ in range(5):
            c.send(frame(PONG, c.read_until(PING).payload))
        c.close(1000, "enough")

    played = play(script, ping_interval=0.05, ping_timeout=10)
    assert played.entries == [("open", 1), ("close", 3, 1000, "enough", True)]
    assert len(played.seen.pings) >= 5


def test_without_a_pong_the_connection_fails_at_ping_timeout(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello"))
        c.drain()

    played = play(script, ping_interval=0.05, ping_timeout=0.2)
    assert played.entries == [("open", 1), ("message", 1, "hello"), ("error", 3), ("close", 3, 1006, "", False)]
    assert isinstance(played.recorder.error, TimeoutError)


def test_after_close_a_ping_that_was_not_answered_is_of_no_matter(play: Play) -> None:
    pinged = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.read_until(PING)
        pinged.set()
        c.drain()

    def start(r: Recorder) -> None:
        threading.Thread(target=close, args=[r], daemon=True).start()

    def close(r: Recorder) -> None:
        pinged.wait(TIMEOUT)
        r.ws.close(1000)

    # The pong is due before the next ping, and both before close_timeout, whose end is no failure.
    played = play(script, start=start, ping_interval=0.6, ping_timeout=0.5, close_timeout=1)
    assert played.entries == [("open", 1), ("close", 3, 1006, "", False)]
    assert "close_timeout" in str(played.recorder.events[-1].error)


def test_any_frame_counts_as_life(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        for n in range(20):
            c.pause(0.05)
            c.send_text(str(n))
        c.close(1000, "done")

    played = play(script, ping_interval=0.1, ping_timeout=0.5)
    assert played.recorder.data == [str(n) for n in range(20)]
    assert played.entries[-1] == ("close", 3, 1000, "done", True)


def test_without_the_option_there_is_no_ping(play: Play) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.pause(0.3)
        c.close(1000)

    assert play(script).seen.pings == []


def test_pings_do_not_pile_up_behind_what_the_peer_does_not_read(play: Play) -> None:
    interval = 0.01
    reading = 0.0

    def script(c: Connection) -> None:
        nonlocal reading
        c.handshake()
        c.pause(0.5)
        start = time.monotonic()
        c.read_until(BINARY)
        reading = time.monotonic() - start
        c.close(1000)

    def start(r: Recorder) -> None:
        r.ws.bind("open", lambda evt: r.ws.send(bytes(16 << 20)))

    played = play(script, start=start, ping_interval=interval)
    assert played.entries[-1] == ("close", 3, 1000, "", True)
    assert len(played.seen.pings) <= 10 + reading / interval  # and none for the intervals of the pause
