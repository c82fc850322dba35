"""Buffers for large frames, of which all sockets of the process share a few."""

from __future__ import annotations

from collections import deque

from .._system import forget_at_fork
from .frames import LARGE_BUFFER

__all__ = ["BUFFERS", "Buffers"]


class Buffers:
    """Buffers of one size, made when they are first used, and kept.

    Any thread may borrow one: each step is one of C's, so no lock is needed.

    Args:
        count: How many there are at most.
        size: Bytes of each.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._forget()

    def _forget(self) -> None:
        """Be as new, in the child of a fork, where the threads are gone that had borrowed some."""
        self._free: deque[memoryview | None] = deque([None] * self._count)  # None: not made yet

    def borrow(self) -> memoryview | None:
        """One of them, for the caller alone; None when all are in use, or there is no memory for another."""
        try:
            buffer = self._free.pop()
        except IndexError:
            return None
        if buffer is None:
            try:
                buffer = memoryview(bytearray(self._size))
            except MemoryError:
                self._free.append(None)
        return buffer

    def give_back(self, buffer: memoryview) -> None:
        """Let others have it again."""
        self._free.append(buffer)

    def __len__(self) -> int:
        """How many are not in use."""
        return len(self._free)


BUFFERS = Buffers(4, LARGE_BUFFER)
forget_at_fork(BUFFERS)
