"""The open sockets of this process: what becomes of them when the interpreter exits, or forks."""

from __future__ import annotations

import atexit
import os
import time
from typing import Protocol

__all__ = ["add", "discard", "exiting"]

EXIT_TIMEOUT = 2.0  # s, for all sockets together


class Resident(Protocol):
    """An open socket."""

    def _leave_at_exit(self) -> None: ...

    def _join_at_exit(self, timeout: float) -> None: ...

    def _forget_after_fork(self) -> None: ...


# By identity, as a subclass may say that two sockets are equal. What is done with a dict here are single steps, so no
# lock is needed, and none can be held at a fork.
_residents: dict[int, Resident] = {}
_exiting = False


def add(resident: Resident) -> None:
    """Note a socket that has a thread, from before the thread is started."""
    _residents[id(resident)] = resident


def discard(resident: Resident) -> None:
    """The socket's thread is about to end."""
    _residents.pop(id(resident), None)


def exiting() -> bool:
    """Whether the interpreter is going away, so that no handler may start any more."""
    return _exiting


def _at_exit() -> None:
    """Send close 1001 and what is queued everywhere, and wait for all together."""
    global _exiting
    _exiting = True
    end = time.monotonic() + EXIT_TIMEOUT
    for resident in _residents.copy().values():
        resident._leave_at_exit()
    for resident in _residents.copy().values():
        resident._join_at_exit(max(0.0, end - time.monotonic()))


def _after_fork() -> None:
    """In the child: its copies are closed without a word; the parent's connections are not touched."""
    for resident in _residents.copy().values():
        resident._forget_after_fork()
    _residents.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
