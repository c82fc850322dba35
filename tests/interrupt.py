"""Something that happens where CPython looks for signals, at each such place in turn: the same every time."""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import bws

PACKAGE = str(pathlib.Path(bws.__file__).parent)


class Interrupt(BaseException):
    """What a signal handler raises, as KeyboardInterrupt: nothing catches it by mistake."""


class Interruption:
    """Calls `act` at the place number `at` inside bws that this thread comes to, counted from 1.

    A signal handler runs where a function begins and when a call of C code has returned, not between any two
    instructions (CHECK_EVAL_BREAKER, CHECK_PERIODIC in CPython's bytecodes.c). A profile function is called at
    just these places, and what it raises comes out of them. It is not in loops, where every Python looks, and at
    jumps, where 3.10 does.
    """

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self._left, self._act = at, act
        self.place = ""  # where it was, when it was

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Let it happen in this block."""
        sys.setprofile(self._step)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _step(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_return") and self._left and frame.f_code.co_filename.startswith(PACKAGE):
            outer: FrameType | None = frame
            while outer is not None:
                if outer.f_code.co_name == "__del__":
                    return  # the garbage collector's: what is raised there comes out nowhere
                outer = outer.f_back
            self._left -= 1
            if not self._left:
                self.place = f"{pathlib.Path(frame.f_code.co_filename).name}:{frame.f_lineno} {event} {arg}"
                self._act()


def everywhere(scene: Callable[[Interruption], object], act: Callable[[], object]) -> int:
    """Play the scene once for each place in it; how many there were.

    Args:
        scene: Runs what is to be interrupted in a ``with interruption():`` block.
        act: What happens there: the signal handler.
    """
    count = 0
    while True:
        interruption = Interruption(count + 1, act)
        scene(interruption)
        if not interruption.place:
            return count
        count += 1
