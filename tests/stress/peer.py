"""Starts the server of the stress programs, and compares what it saw with what the client did."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import NamedTuple

import trustme

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 60.0  # s; only what fails waits so long


class Ended(NamedTuple):
    """What the server says about a connection that is over."""

    received: int
    sent: int
    trouble: str


class Server:
    """Its URLs, and what it says."""

    def __init__(self, process: subprocess.Popen[str], context: ssl.SSLContext) -> None:
        assert process.stdout is not None
        self._process, self.context = process, context
        plain, tls = process.stdout.readline().split()
        self.url, self.tls_url = f"ws://127.0.0.1:{plain}", f"wss://127.0.0.1:{tls}"
        self._changed = threading.Condition()
        self._ended: dict[str, Ended] = {}
        self._reader = threading.Thread(target=self._read, name="what the server says", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            path, received, sent, trouble = line.rstrip("\n").split(" ", 3)
            with self._changed:
                self._ended[path] = Ended(int(received), int(sent), trouble)
                self._changed.notify_all()

    def ended(self, path: str, timeout: float = TIMEOUT) -> Ended:
        """What the server saw of the connection with that path, once it is over; it is then forgotten."""
        with self._changed:
            assert self._changed.wait_for(lambda: path in self._ended, timeout), f"{path} goes on at the server"
            return self._ended.pop(path)


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server in a process of its own, which ends with the block."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with tempfile.TemporaryDirectory() as folder:
        certificate = pathlib.Path(folder, "certificate.pem")
        with certificate.open("wb") as file:
            issued = authority.issue_cert("127.0.0.1")
            file.writelines(part.bytes() for part in (issued.private_key_pem, *issued.cert_chain_pems))
        with subprocess.Popen(
            [sys.executable, "-m", "tests.stress.server", str(certificate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            atexit.register(process.kill)
            try:
                yield Server(process, context)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    status = process.wait(TIMEOUT)
                finally:
                    process.kill()
                    atexit.unregister(process.kill)
            assert status == 0, f"the server ended with {status}"


class Sample(NamedTuple):
    """What this process has; zeros where the system does not tell."""

    memory: int  # bytes that are resident
    used: int  # bytes of them that malloc() has given out: the rest is free, and kept for later
    blocks: int  # small pieces of memory that Python has given out, which it does not take from malloc() one by one
    files: int
    threads: int


def sample() -> Sample:
    """Look at this process."""
    memory = used = files = 0
    with contextlib.suppress(OSError):
        memory = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = len(os.listdir("/proc/self/fd")) - 1  # one is that of listdir
    if _mallinfo is not None:
        info = _mallinfo()
        used = info.uordblks + info.hblkhd
    return Sample(memory, used, sys.getallocatedblocks(), files, threading.active_count())


class _MallInfo(ctypes.Structure):
    """See mallinfo2(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None  # glibc 2.33
if _mallinfo is not None:
    _mallinfo.restype = _MallInfo


def bws_threads() -> list[threading.Thread]:
    """The threads of the library."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("bws")]


def settle() -> list[threading.Thread]:
    """Wait until the library's threads have ended; those that have not."""
    for thread in bws_threads():
        thread.join(TIMEOUT)
    return bws_threads()
