"""Where handlers run: what can be given to ``WebSocket(..., dispatch=...)``.

`tk`, `qt` and `asyncio` are for programs that run such a loop; `Queue` is for those that look after their events now
and then. No toolkit is imported before it is asked for.

Any callable will do that takes a zero-argument callable and has it run, first in first out, on the thread of your
choice, such as ``wx.CallAfter``, ``GLib.idle_add`` or the ``put`` of a queue.
"""

from .aio import asyncio
from .qt import qt
from .queue import Queue
from .tk import tk

__all__ = ["Queue", "asyncio", "qt", "tk"]
