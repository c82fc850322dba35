"""Where handlers run: what can be given to ``WebSocket(..., dispatch=...)`` beside a loop's own function.

Any callable will do that takes a zero-argument callable and has it run, first in first out, on the thread of your
choice, such as ``loop.call_soon_threadsafe``, ``wx.CallAfter`` or the ``put`` of a queue.
"""

from .queue import Queue

__all__ = ["Queue"]
