"""Short waits: when a thread watches for what is to come, when it sleeps, and what that may cost at most."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field

import pytest

from bws import _system
from bws._engine import watch as watching
from bws._engine.watch import LONGEST, LONGEST_REST, LOOK, REST, SHORT, Watch

WAKING = 50e-6  # s that it takes until a sleeping thread runs


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
            self.now = max(self.now, self.due) + WAKING
        return [1] if self.now >= self.due else []

    def comes(self, watch: Watch, after: float, timeout: float | None = None) -> tuple[int, int]:
        """Wait for bytes that come so much later: how often was looked, and how often slept."""
        self.due = self.now + after
        looks, slept = self.looks, len(self.slept)
        assert watch.wait(self.poll, timeout) == [1]
        assert self.now >= self.due
        return self.looks - looks, len(self.slept) - slept


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(watching, "perf_counter", world.clock)
    monkeypatch.setattr(watching, "_turn", watching._Turn())
    return world


@pytest.fixture
def watch(world: World) -> Watch:
    """Whose last wait was short."""
    watch = Watch(possible=True)
    assert world.comes(watch, 20e-6) == (0, 1)
    return watch


def test_after_a_short_wait_the_next_one_is_watched(world: World, watch: Watch) -> None:
    for _ in range(100):
        looks, slept = world.comes(watch, 20e-6)
        assert 15 < looks < 25
        assert slept == 0
    assert world.comes(watch, 0) == (1, 0)  # what is there already


def test_after_a_long_wait_the_next_one_is_not_watched(world: World) -> None:
    watch = Watch(possible=True)
    for _ in range(100):
        assert world.comes(watch, SHORT) == (0, 1)


def test_without_a_second_processor_nothing_is_watched(world: World) -> None:
    watch = Watch(possible=False)
    for _ in range(100):
        assert world.comes(watch, 0) == (0, 1)


def test_who_watches_sleeps_in_the_end_for_as_long_as_was_asked(world: World, watch: Watch) -> None:
    start = world.now
    looks, slept = world.comes(watch, 1.0, timeout=2.5)
    assert slept == 1
    assert world.slept[-1] == 2.5
    assert looks == pytest.approx(LONGEST / world.look, abs=3)
    assert world.now - start == pytest.approx(1.0 + WAKING)


def test_a_timeout_is_told(world: World, watch: Watch) -> None:
    world.due = world.now + 3600

    def poll(timeout: float | None) -> list[int]:
        world.now += 1e-6 if timeout == 0 else 10e-6
        return []

    assert watch.wait(poll, 0.01) == []


def test_the_more_is_watched_in_vain_the_longer_is_the_rest(world: World, watch: Watch) -> None:
    rests = []
    for _ in range(8):
        while world.comes(watch, 20e-6)[1]:  # until it watches
            pass
        start = world.now
        assert world.comes(watch, 2 * LONGEST)[1] == 1
        while world.comes(watch, 20e-6)[1]:
            pass
        rests.append(world.now - start)
    assert rests[0] == pytest.approx(REST, rel=0.5)
    assert rests[:5] == sorted(rests[:5])
    assert rests[-1] == pytest.approx(LONGEST_REST, rel=0.3)


def test_watching_that_is_always_in_vain_takes_less_than_a_thousandth_of_the_time(world: World, watch: Watch) -> None:
    for _ in range(20_000):
        world.comes(watch, LONGEST)  # as bad as it can be: what comes next does so when watching has just ended
        world.comes(watch, 20e-6)
    start, looks = world.now, world.looks
    for _ in range(20_000):
        world.comes(watch, LONGEST + 2 * world.look)
        world.comes(watch, 20e-6)
    assert (world.looks - looks) * world.look < (world.now - start) / 1000


def test_watching_that_pays_makes_the_rests_short_again(world: World, watch: Watch) -> None:
    for _ in range(10):
        while world.comes(watch, 20e-6)[1]:
            pass
        world.comes(watch, 10 * LONGEST)
    while world.comes(watch, 20e-6)[1]:
        pass
    for _ in range(200):
        assert world.comes(watch, 20e-6)[1] == 0
    world.comes(watch, 10 * LONGEST)
    start = world.now
    while world.comes(watch, 20e-6)[1]:
        pass
    assert world.now - start < 4 * REST


def test_a_look_that_takes_long_ends_watching(world: World, watch: Watch) -> None:
    world.look = LOOK * 1.5  # somebody else has the GIL
    looks, slept = world.comes(watch, 1.0)
    assert looks == 2  # the first one is free
    assert slept == 1


def test_when_two_would_watch_both_rest(world: World, watch: Watch) -> None:
    other = Watch(possible=True)
    world.comes(other, 0)
    first: list[tuple[int, int]] = []

    def poll(timeout: float | None) -> list[int]:
        if timeout == 0 and world.looks == 10:
            first.append(world.comes(other, 0.5e-3))
            world.due = world.now + 0.5e-3
        return world.poll(timeout)

    world.looks, world.due = 0, world.now + 50e-6
    assert watch.wait(poll, None) == [1]
    assert first == [(1, 1)]
    assert world.slept[-1] is None
    for resting in (watch, other):
        start = world.now
        world.comes(resting, 0)
        assert world.comes(resting, 0) == (0, 1)
        assert world.now - start < LONGEST_REST / 2
    world.now += LONGEST_REST
    for rested in (watch, other):
        world.comes(rested, 0)
        assert world.comes(rested, 20e-6)[1] == 0


def test_a_watcher_that_a_fork_has_left_behind_is_taken_away_once(world: World, watch: Watch) -> None:
    watching._turn.watcher = Watch(possible=True)
    assert world.comes(watch, 20e-6)[1] == 1
    world.now += LONGEST_REST
    world.comes(watch, 0)
    assert world.comes(watch, 20e-6)[1] == 0
    assert watching._turn.watcher is None


def test_threads_that_would_watch_at_once_hear_of_all_that_comes() -> None:
    """Two pairs talk over sockets, 10,000 waits in all."""
    heard: list[int] = []

    def talk(sock: socket.socket, begins: bool) -> None:
        waker = _system.Waker()
        poller = _system.Poller(waker, Watch(possible=True).wait)
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


def test_the_processors_that_this_process_may_use_are_counted() -> None:
    assert _system.processors() >= 1
