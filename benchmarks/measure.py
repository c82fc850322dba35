"""One job with one client, in a process of its own: `python -m benchmarks.measure SPEC` prints the figures as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import ssl
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter as now
from time import process_time
from typing import Any

from . import payloads
from .clients import Client, Target, client
from .clients.base import Post
from .jobs import JOBS, Job
from .limits import PROCESS, WAIT, raise_descriptor_limit
from .peers import PEERS, Peer

ROOT = Path(__file__).parent.parent
IDLE, QUICK_IDLE = 3.0, 0.5  # seconds in which the CPU time of idle connections is taken
SETTLE = 0.5  # seconds before that: threads that were just started come to rest


@dataclass(frozen=True)
class Spec:
    """What to measure, and where the server is."""

    job: str
    peer: str
    count: int
    plain: int  # port
    tls: int | None  # port
    ca: str | None
    quick: bool

    def dump(self) -> str:
        return json.dumps(asdict(self))


def target(spec: Spec, job: Job) -> Target:
    deflate = "deflate" in job.needs
    count = -(-spec.count // job.connections)
    path = {
        "receive": f"flood/{job.payload}/{job.size}/{count}" + f"/{job.piece}" * bool(job.piece),
        "hand_over": f"flood/{job.payload}/{job.size}/{count}",
        "send": f"sink/messages/{count}" if deflate else f"sink/bytes/{count * frame_size(job)}",
    }.get(job.kind, "echo")
    if "tls" in job.needs or job.group == "tls":
        context = ssl.create_default_context(cadata=spec.ca)
        return Target(f"wss://127.0.0.1:{spec.tls}/{path}", context, deflate)
    return Target(f"ws://127.0.0.1:{spec.plain}/{path}" + "?deflate" * deflate, None, deflate)


def frame_size(job: Job) -> int:
    """Bytes of a client's frame: head, key and payload."""
    return job.size + (6 if job.size < 126 else 8 if job.size < 65536 else 14)


def measure(spec: Spec) -> dict[str, float | None]:
    """The figures of the job's rows, in their units."""
    job, peer = JOBS[spec.job], PEERS[spec.peer]
    if job.kind == "importing":
        return {job.name: importing(peer, spec.count)}
    if "masking" in peer.features:
        # what the extra "speed" would bring is not there
        sys.modules["websockets"] = None  # type: ignore[assignment]
    under_test = client(peer.module, target(spec, job))
    if job.kind == "hold":
        return hold(under_test, spec)
    return {job.name: KINDS[job.kind](under_test, job, spec.count) / spec.count}


def echo(under_test: Client, job: Job, count: int) -> float:
    return under_test.echo(payloads.make(job.payload, job.size), count)


def receive(under_test: Client, job: Job, count: int) -> float:
    return under_test.receive(count)


def send(under_test: Client, job: Job, count: int) -> float:
    return under_test.send(payloads.make(job.payload, job.size), count)


def connect(under_test: Client, job: Job, count: int) -> float:
    under_test.open_all(1)  # the first one imports and resolves what the others find
    under_test.close_all()
    begin = now()
    for _ in range(count):
        under_test.open_all(1)
        under_test.close_all()
    return now() - begin


def importing(peer: Peer, count: int) -> float:
    """The median time of an import, each in a new interpreter."""
    code = f"import time; begin = time.perf_counter(); {peer.imports}; print(time.perf_counter() - begin)"
    # As installed: pip compiles what it installs, and what is imported from a checkout is compiled by the first import.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    times = []
    for _ in range(count + 1):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT, env=environment)
        times.append(float(done.stdout))
    return statistics.median(times[1:])  # the first one may have compiled and fetched from the disk


# -- messages that are handed to this thread


class LoopPump:
    """asyncio's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self.over = self.loop.create_future()
        self.post: Post = self.loop.call_soon_threadsafe

    def stop(self) -> None:
        self.over.set_result(None)

    def run(self) -> None:
        self.loop.run_until_complete(asyncio.wait_for(self.over, WAIT))


class QueuePump:
    """What a script or a game does: takes callables from a queue and calls them."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.going = True
        self.post: Post = self.calls.put

    def stop(self) -> None:
        self.going = False

    def run(self) -> None:
        while self.going:
            self.calls.get(timeout=WAIT)()


def hand_over(under_test: Client, job: Job, count: int) -> float:
    pump = QueuePump() if "queue" in job.needs else LoopPump(getattr(under_test, "loop", None))
    begun: list[float] = []
    # each connection brings the same number of messages
    left = -(-count // job.connections) * job.connections

    def handler(data: str | bytes) -> None:
        nonlocal left
        left -= 1
        if not left:
            begun.append(now())
            pump.stop()

    under_test.hand_over(job.connections, pump.post, lambda: begun.append(now()), handler)
    pump.run()
    return begun[-1] - begun[0]


# -- many connections


def hold(under_test: Client, spec: Spec) -> dict[str, float | None]:
    under_test.open_all(1)  # what the first one imports is not counted
    memory, descriptors, threads = resident_kib(), open_descriptors(), threading.active_count()
    begin = now()
    under_test.open_all(spec.count)
    opened = now() - begin
    under_test.idle(SETTLE)
    figures = {
        "connection_memory": each(resident_kib(), memory, spec.count),
        "connection_descriptors": each(open_descriptors(), descriptors, spec.count),
        "connection_threads": each(threading.active_count(), threads, spec.count),
        "connections_open": opened,
    }
    seconds, busy = QUICK_IDLE if spec.quick else IDLE, process_time()
    under_test.idle(seconds)
    figures["connections_idle"] = (process_time() - busy) / seconds * 1000
    begin = now()
    under_test.close_all()
    figures["connections_close"] = now() - begin
    return figures


def each(after: float | None, before: float | None, count: int) -> float | None:
    return None if after is None or before is None else (after - before) / count


def resident_kib() -> float | None:
    """What this process holds of the memory, where the system says so in a file."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return float(next(line for line in status if line.startswith("VmRSS")).split()[1])
    except OSError:
        return None


def open_descriptors() -> int | None:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return None


KINDS: dict[str, Callable[[Client, Job, int], float]] = {
    "echo": echo,
    "receive": receive,
    "send": send,
    "connect": connect,
    "hand_over": hand_over,
}


def run(spec: Spec) -> dict[str, float | None]:
    """The same in a process of its own.

    Raises:
        RuntimeError: It failed or took too long; says why.
    """
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-m", "benchmarks.measure", spec.dump()]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROCESS,
            check=False,
        )
        figures: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no end within {PROCESS:g} s") from None
    except (IndexError, ValueError):
        why = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(why[-1]) from None
    return figures


def main() -> None:
    raise_descriptor_limit()
    fields: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(measure(Spec(**fields))), flush=True)
    os._exit(0)  # how long a client takes to end is not measured


if __name__ == "__main__":
    main()
