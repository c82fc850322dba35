"""Short waits: when a thread watches for what is to come, when it sleeps, and what that may cost at most."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

import bws
from bws import _system
from bws._engine import threaded
from bws._engine import watch as watching
from bws._engine.frames import LARGE_REST
from bws._engine.watch import LONGEST, LONGEST_REST, LOOK, MOST, REST, SHORT, Watch
from tests.conftest import TIMEOUT
from tests.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.wire.server import Connection, ScriptedServer

WAKING = 50e-6  # s that it takes until a sleeping thread runs
SOON = 20e-6  # s


@dataclass
class World:
    """A clock, and something that is polled."""

    now: float = 100.0
    due: float = 0.0  # when the next bytes come
    look: float = 1e-6  # s that one look takes
    slept: list[float | None] = field(default_factory=list)  # the timeouts of polls that might sleep
    looks: int = 0

    def clock(self) -> float:
        return self.now

    def poll(self, timeout: float | None) -> list[int]:
        if timeout == 0:
            self.looks += 1
            self.now += self.look
        else:
            self.slept.append(timeout)
            end = self.due if timeout is None else min(self.due, self.now + timeout)
            self.now = max(self.now, end) + WAKING
        return [1] if self.now >= self.due else []

    def comes(self, watch: Watch, after: float, timeout: float | None = None) -> tuple[int, int]:
        """Wait for bytes that come so much later: how often was looked, and how often slept."""
        self.due = self.now + after
        looks, slept = self.looks, len(self.slept)
        assert watch.wait(self.poll, timeout) == [1]
        assert self.now >= self.due
        return self.looks - looks, len(self.slept) - slept

    def until_watched(self, watch: Watch) -> float:
        """Have bytes come soon until they are watched for: how many seconds that takes."""
        start = self.now
        while self.comes(watch, SOON)[1]:
            pass
        return self.now - start


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(watching, "perf_counter", world.clock)
    monkeypatch.setattr(watching, "_turn", watching._Turn())
    return world


def able() -> Watch:
    watch = Watch()
    watch.possible = True
    return watch


def expecting(world: World) -> Watch:
    """One whose last wait was short, and who expects an answer."""
    watch = able()
    watch.expects = True
    assert world.comes(watch, SOON) == (0, 1)
    return watch


@pytest.fixture
def watch(world: World) -> Watch:
    return expecting(world)


def test_after_a_short_wait_the_next_one_is_watched(world: World, watch: Watch) -> None:
    for _ in range(100):
        looks, slept = world.comes(watch, SOON)
        assert 15 < looks < 25
        assert slept == 0
    assert world.comes(watch, 0) == (1, 0)  # what is there already


@pytest.mark.parametrize(("after", "looks"), [(SHORT - WAKING - 1e-6, True), (SHORT - WAKING + 1e-6, False)])
def test_after_a_long_wait_the_next_one_is_not_watched(world: World, after: float, looks: bool) -> None:
    watch = able()
    watch.expects = True
    assert world.comes(watch, after) == (0, 1)
    assert (world.comes(watch, SOON)[0] > 0) is looks


def test_a_wait_that_told_nothing_was_not_short(world: World, watch: Watch) -> None:
    world.now += LONGEST_REST
    world.due = world.now + 3600
    assert watch.wait(world.poll, 0) == []  # a look
    watch.wait(world.poll, 10e-6)
    assert world.comes(watch, 0) == (0, 1)


def test_a_look_is_a_look(world: World, watch: Watch) -> None:
    world.due = world.now + 3600
    start = world.now
    assert watch.wait(world.poll, 0) == []
    assert world.looks == 1
    assert world.now - start == pytest.approx(world.look)


def test_what_follows_an_answer_does_not_keep_the_next_one_from_being_watched(world: World, watch: Watch) -> None:
    for turn in range(200):
        watch.expects = True
        world.now += 8e-6
        slept = world.comes(watch, 40e-6)[1]
        assert not slept or turn < 3
        watch.expects = False
        world.now += 8e-6
        world.comes(watch, 40e-6)


def test_without_a_second_processor_nothing_is_watched(world: World) -> None:
    watch = Watch()
    watch.expects = True
    for _ in range(100):
        assert world.comes(watch, 0) == (0, 1)


def test_what_comes_by_itself_is_watched_for_as_long_as_the_thread_has_worked(world: World, watch: Watch) -> None:
    watch.expects = False
    world.now += 30e-6
    looks, slept = world.comes(watch, SOON)
    assert 15 < looks < 25
    assert slept == 0
    world.now += 10e-6
    looks, slept = world.comes(watch, SOON)
    assert 8 < looks < 13
    assert slept == 1


@pytest.mark.parametrize("every", [30e-6, 60e-6, 80e-6, 95e-6, 140e-6, 250e-6])  # s
@pytest.mark.parametrize("work", [3e-6, 10e-6, 25e-6])  # s
def test_a_stream_that_nobody_asks_for_costs_at_most_twice_its_time(world: World, every: float, work: float) -> None:
    watch = able()
    for _ in range(30_000):
        world.now += work
        world.comes(watch, every - work)
    start, looks = world.now, world.looks
    for _ in range(30_000):
        world.now += work
        world.comes(watch, every - work)
    assert (world.looks - looks) * world.look <= 30_000 * (work + 3 * world.look)
    assert world.now - start > 30_000 * every * 0.9


def test_who_watches_sleeps_in_the_end_for_as_long_as_was_asked(world: World, watch: Watch) -> None:
    start = world.now
    looks, slept = world.comes(watch, 1.0, timeout=2.5)
    assert slept == 1
    assert world.slept[-1] == 2.5
    assert looks == pytest.approx(LONGEST / world.look, abs=3)
    assert world.now - start == pytest.approx(1.0 + WAKING)


def test_a_timeout_is_told(world: World, watch: Watch) -> None:
    world.due = world.now + 3600
    assert watch.wait(world.poll, 0.01) == []
    assert world.slept[-1] == 0.01


def test_the_more_is_watched_in_vain_the_longer_is_the_rest(world: World, watch: Watch) -> None:
    rests = []
    for _ in range(8):
        world.until_watched(watch)
        assert world.comes(watch, LONGEST + SOON)[1] == 1
        rests.append(world.until_watched(watch))
    assert rests[0] == pytest.approx(REST, rel=0.3)
    assert rests[1] == pytest.approx(4 * REST, rel=0.3)
    assert rests == sorted(rests)
    assert rests[-1] == pytest.approx(LONGEST_REST, rel=0.25)


def test_watching_that_is_always_in_vain_takes_less_than_a_thousandth_of_the_time(world: World, watch: Watch) -> None:
    for turn in range(40_000):
        if turn == 20_000:
            start, looks = world.now, world.looks
        world.comes(watch, LONGEST + 2 * world.look)  # as bad as it can be: it comes when watching has just ended
        watch._soon = True  # as if the wait had been a short one
    assert (world.looks - looks) * world.look < (world.now - start) / 1000


def test_watching_that_pays_makes_the_rests_short_again(world: World, watch: Watch) -> None:
    for _ in range(10):
        world.until_watched(watch)
        world.comes(watch, 10 * LONGEST)
    world.until_watched(watch)
    for _ in range(200):
        assert world.comes(watch, SOON)[1] == 0
    world.comes(watch, LONGEST + SOON)
    assert world.until_watched(watch) < 1.3 * REST


@pytest.mark.parametrize(("factor", "looks"), [(1.1, 1), (0.9, 4)])
def test_a_look_that_takes_long_ends_watching(world: World, watch: Watch, factor: float, looks: int) -> None:
    world.look = LOOK * factor  # somebody else has the GIL
    assert world.comes(watch, 1.0) == (looks, 1)


def test_a_clock_that_stands_still_ends_watching(world: World, watch: Watch) -> None:
    world.look = 0
    assert world.comes(watch, 1.0) == (MOST + 1, 1)
    world.now -= 1000  # backwards
    world.comes(watch, SOON)
    assert world.comes(watch, 1.0) == (0, 1)


def test_who_looks_faster_than_that_rests_as_after_any_watch_in_vain(world: World, watch: Watch) -> None:
    world.look = LONGEST / MOST / 2
    assert world.comes(watch, LONGEST) == (MOST + 1, 1)
    assert world.until_watched(watch) == pytest.approx(REST, rel=0.3)


def test_when_two_would_watch_both_rest(world: World, watch: Watch) -> None:
    other = expecting(world)
    first: list[tuple[int, int]] = []

    def poll(timeout: float | None) -> list[int]:
        if timeout == 0 and world.looks == 10:
            first.append(world.comes(other, SOON))
            world.due = world.now + 50e-6
        return world.poll(timeout)

    world.looks, world.due = 0, world.now + 50e-6
    assert watch.wait(poll, None) == [1]
    assert first == [(1, 1)]
    assert world.looks == 12  # the first one's last look was on its way
    for resting in (watch, other):
        world.comes(resting, 0)
        assert world.comes(resting, SOON) == (0, 1)
    world.now += LONGEST_REST
    for rested in (watch, other):
        world.comes(rested, 0)
        assert world.comes(rested, SOON)[1] == 0


def test_who_has_lost_his_turn_does_not_end_that_of_another(world: World, watch: Watch) -> None:
    third = expecting(world)

    def poll(timeout: float | None) -> list[int]:
        if world.looks == 10:
            watching._turn.watcher = third  # a second one has taken it away, and a third one has taken it
            world.due = world.now
        return world.poll(timeout)

    world.looks, world.due = 0, world.now + 50e-6
    assert watch.wait(poll, None) == [1]
    assert world.looks == 11
    assert watching._turn.watcher is third


def test_a_look_that_raises_leaves_no_watcher_behind(world: World, watch: Watch) -> None:
    def poll(timeout: float | None) -> list[int]:
        if world.looks == 10:
            raise OSError("no look")
        return world.poll(timeout)

    world.looks, world.due = 0, world.now + 50e-6
    with pytest.raises(OSError, match="no look"):
        watch.wait(poll, None)
    assert watching._turn.watcher is None


def test_a_watcher_that_a_fork_has_left_behind_is_taken_away_once(world: World, watch: Watch) -> None:
    watching._turn.watcher = able()
    assert world.comes(watch, SOON)[1] == 1
    world.now += LONGEST_REST
    world.comes(watch, 0)
    assert world.comes(watch, SOON)[1] == 0
    assert watching._turn.watcher is None


def test_threads_that_would_watch_at_once_hear_of_all_that_comes() -> None:
    """Two pairs talk over sockets, 10,000 waits in all."""
    heard: list[int] = []

    def talk(sock: socket.socket, begins: bool) -> None:
        waker = _system.Waker()
        poller = _system.Poller(waker, able().wait)
        if begins:
            sock.send(b"x")
        for _ in range(2_500):
            if not poller.wait(sock.fileno(), True, False, 30)[0]:
                return
            heard.append(len(sock.recv(2)))
            sock.send(b"x")
        waker.close()

    pairs = [socket.socketpair() for _ in range(2)]
    threads = [threading.Thread(target=talk, args=(end, not i)) for pair in pairs for i, end in enumerate(pair)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for pair in pairs:
        for end in pair:
            end.close()
    assert heard == [1] * 10_000


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux tells")
@pytest.mark.parametrize("count", [1, 2])
def test_the_processors_that_this_process_may_use_are_counted(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)  # Python 3.13
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 9} if count == 2 else {9})
    assert _system.processors() == count


def test_a_system_that_does_not_tell_its_processors_is_taken_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> set[int]:
        raise PermissionError

    monkeypatch.setattr(os, "process_cpu_count", refused, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", refused, raising=False)
    assert _system.processors() == 1


@pytest.mark.parametrize("processors", [1, 2])
def test_answers_are_expected_and_watched_for_where_there_are_two_processors(
    monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    last: list[tuple[bool, bool]] = []  # of the last wait

    class Noting(Watch):
        def wait(self, poll: Any, timeout: float | None) -> Any:
            last[:] = [(self.possible, self.expects)]
            return super().wait(poll, timeout)

    monkeypatch.setattr(threaded, "Watch", Noting)
    monkeypatch.setattr(threaded, "processors", lambda: processors)
    bound, silence = threading.Event(), 0.05  # s, so that the client waits

    def script(c: Connection) -> None:
        c.wait_for(bound)
        c.handshake()
        for _ in range(2):
            assert c.read_until(TEXT).payload == b"question"
            answer = frame(TEXT, "answer")
            for part in (frame(PING), answer[:4], answer[4:]):  # the answer is still to come
                c.send(part)
                c.pause(silence)
        c.send(frame(TEXT, "unasked"))
        c.pause(silence)
        c.send(frame(BINARY, bytes(LARGE_REST + 1)))
        c.read_until(CLOSE)
        c.close(1000)

    def on_message(evt: bws.events.MessageEvent) -> None:
        noted.append((evt.data if isinstance(evt.data, str) else "large", *last))
        if len(noted) == 1:
            ws.send("question")
        elif len(noted) == 4:
            ws.close()

    noted: list[Any] = []
    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url)
        ws.bind("message", on_message)
        ws.bind("open", lambda evt: ws.send("question"))
        bound.set()
        assert ws.wait_closed(TIMEOUT)
    possible = processors == 2
    assert noted == [
        ("answer", (possible, True)),
        ("answer", (possible, True)),
        ("unasked", (possible, False)),
        ("large", (possible, False)),
    ]


def test_a_pong_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[bool] = []

    class Noting(Watch):
        def wait(self, poll: Any, timeout: float | None) -> Any:
            last[:] = [self.expects]
            return super().wait(poll, timeout)

    monkeypatch.setattr(threaded, "Watch", Noting)
    noted: list[bool] = []
    bound = threading.Event()

    def script(c: Connection) -> None:
        c.wait_for(bound)
        c.handshake()
        c.pause(0.05)
        c.send(frame(PONG, c.read_until(PING).payload))
        c.read_until(CLOSE)
        c.close(1000)

    def on_pong(rtt: float) -> None:
        noted.extend(last)
        ws.close()

    with ScriptedServer(script) as server:
        ws = bws.WebSocket(server.url)
        ws.bind("open", lambda evt: ws.ping(b"", on_pong))
        bound.set()
        assert ws.wait_closed(TIMEOUT)
    assert noted == [True]
