"""A network that loses packets, for a program of its own: ``unshare --net python -m tests.faults.packets ...``.

In the fresh network namespace either ``tc netem`` spoils the loopback device, or, since few kernels of virtual
machines have that, a TUN device whose packets are passed on here. Whoever connects to 10.9.0.2 through it reaches
10.9.0.1, which is this machine: swapping the addresses of a packet is all it takes, and its checksums stay right.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import bws
from tests.conftest import Recorder
from tests.faults.campaign import MINE, QueueThread
from tests.faults.server import Server

HERE, THERE = "10.9.0.1", "10.9.0.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCOUTQ = 0x5411  # bytes that were not acknowledged
LOSS, DOUBLED, LATE = 0.05, 0.02, 0.1  # of all packets
LATENESS = 0.01  # s


NOT_HERE = 77  # exit status: this machine cannot have such a network; why is on stderr


def shell(command: str) -> None:
    """Run a command that prepares the network."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command}: {done.stderr.strip()}")


class Tunnel:
    """The TUN device; `loss`, `doubled` and `late` are parts of all packets.

    Attributes:
        dead: Whether all is lost from now on.
        counts: Packets that were passed on, lost, doubled, late.
    """

    def __init__(self, loss: float = 0.0, doubled: float = 0.0, late: float = 0.0) -> None:
        self.dead = False
        self.counts = {"passed": 0, "lost": 0, "doubled": 0, "late": 0}
        self._parts = loss, doubled, late
        self._chance = random.Random(7)
        self._stop = False
        self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._fd, TUNSETIFF, struct.pack("16sH22x", b"bws0", IFF_TUN | IFF_NO_PI))
        for command in ("ip link set lo up", f"ip addr add {HERE}/24 dev bws0", "ip link set bws0 up"):
            shell(command)
        self._thread = threading.Thread(target=self._run, name="tunnel", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the device away."""
        self._stop = True
        self._thread.join()
        os.close(self._fd)

    def _run(self) -> None:
        waiting: list[tuple[float, int, bytes]] = []
        number = 0
        while not self._stop:
            left = waiting[0][0] - time.monotonic() if waiting else 0.1
            if select.select([self._fd], [], [], max(0.0, min(left, 0.1)))[0]:
                packet = os.read(self._fd, 65536)
                for due in self._fates() if packet[0] >> 4 == 4 else ():
                    number += 1
                    heapq.heappush(waiting, (due, number, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                packet = heapq.heappop(waiting)[2]
                with contextlib.suppress(BlockingIOError):
                    os.write(self._fd, packet[:12] + packet[16:20] + packet[12:16] + packet[20:])

    def _fates(self) -> list[float]:
        """When a packet arrives: never, once, or twice."""
        loss, doubled, late = self._parts
        now = time.monotonic()
        if self.dead or self._chance.random() < loss:
            self.counts["lost"] += 1
            return []
        self.counts["passed"] += 1
        due = now
        if self._chance.random() < late:
            self.counts["late"] += 1
            due += LATENESS
        if self._chance.random() < doubled:
            self.counts["doubled"] += 1
            return [due, now + LATENESS / 2]
        return [due]


@contextlib.contextmanager
def network(kind: str, **parts: float) -> Iterator[tuple[str, str, Tunnel | None]]:
    """Where a server listens, and where a client finds it."""
    try:
        tunnel = None if kind == "netem" else Tunnel(**parts)
        if tunnel is None:
            shell("ip link set lo up")
            shell(f"tc qdisc add dev lo root netem loss {LOSS:%} duplicate {DOUBLED:%} delay 1ms reorder {LATE:%}")
    except OSError as exc:
        print(exc, file=sys.stderr)
        sys.exit(NOT_HERE)
    if tunnel is None:
        yield "127.0.0.1", "127.0.0.1", None
        return
    try:
        yield HERE, THERE, tunnel
    finally:
        tunnel.close()


def sockets_to(port: int) -> list[socket.socket]:
    """Copies of this process's sockets that are connected to that port."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(fd)))
        except OSError:  # no socket
            continue
        with contextlib.suppress(OSError):  # it listens
            if sock.family == socket.AF_INET and sock.getpeername()[1] == port:
                found.append(sock)
                continue
        sock.close()
    return found


def traffic(kind: str) -> dict[str, Any]:
    """Sockets whose messages all have to come back, and in order."""
    messages = [f"{n} " + "x" * (n * 37 % 3000) for n in range(100)]

    def send_all(recorder: Recorder, _: object) -> None:
        for text in messages:
            recorder.ws.send(text)

    with network(kind, loss=LOSS, doubled=DOUBLED, late=LATE) as (here, there, tunnel), Server(host=here) as server:
        queue = QueueThread()
        recorders = []
        for number in range(12):
            options: dict[str, Any] = {"dispatch": queue.queue} if number % 2 else {}
            ws = bws.WebSocket(f"ws://{there}:{server.address[1]}/patient/{number}", **options)
            recorders.append(Recorder(ws, {"open": send_all}))
        good = 0
        for number, recorder in enumerate(recorders):
            recorder.wait_for("message", 2 + len(messages))
            recorder.ws.close(*MINE)
            whole = recorder.data[2:] == messages == server.got[f"/patient/{number}"]
            good += whole and recorder.closed()[-1] == ("close", 3, *MINE, True)
        queue.stop()
        return {"tried": len(recorders), "survived": good, "packets": tunnel.counts if tunnel else {}}


def vanish(kind: str) -> dict[str, Any]:
    """The peer is gone without a word: one socket has pings, one nothing but TCP keepalive."""
    with network(kind) as (here, there, tunnel), Server(host=here, patience=1) as server:
        assert tunnel is not None
        url = f"ws://{there}:{server.address[1]}/patient"
        plain = Recorder(bws.WebSocket(url))
        plain.wait_for("open")
        # An echo comes behind the server's ping, so its pong is on its way, too: nothing more will be sent.
        plain.ws.send("the last one")
        plain.wait_for("message", 3)
        (sock,) = sockets_to(server.address[1])
        options = {
            name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        }
        options["SO_KEEPALIVE"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 2)):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        pinging = Recorder(bws.WebSocket(url, ping_interval=0.5, ping_timeout=1))
        pinging.wait_for("message", 2)
        # What is under way when the peer goes is sent again and again; keepalive is for those that are silent.
        while struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQ, bytes(4)))[0]:
            time.sleep(0.01)
        sock.close()
        start = time.perf_counter()
        tunnel.dead = True
        result: dict[str, Any] = {"options": options}
        for name, recorder in (("keepalive", plain), ("pings", pinging)):
            entries = recorder.closed()
            close = recorder.events[-1]
            seconds = close.timeStamp / 1000 - start
            ends = [entry for entry in entries if entry[0] not in ("open", "message")]
            result[name] = {"entries": ends, "error": type(close.error).__name__, "seconds": seconds}
        return result


if __name__ == "__main__":
    print(json.dumps({"traffic": traffic, "vanish": vanish}[sys.argv[1]](sys.argv[2])))
