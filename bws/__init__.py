"""The browser's WebSocket for Python programs: ``import bws as websocket``, and Brython's examples run.

::

    import bws

    ws = bws.WebSocket("wss://example.com/chat")
    ws.bind("open", lambda: ws.send("hello"))
    ws.bind("message", lambda evt: print(evt.data))
    ws.bind("close", lambda evt: print(evt.code, evt.reason))

``supported`` is False when websocket-client cannot be imported; then ``WebSocket(...)`` raises NotImplementedError.
"""

from . import dispatch
from ._engine import supported
from ._version import __version__
from ._websocket import WebSocket
from .errors import DOMException, DOMSyntaxError, InvalidAccessError, InvalidStateError
from .events import CloseEvent, DOMEvent, MessageEvent

__all__ = [
    "CloseEvent",
    "DOMEvent",
    "DOMException",
    "DOMSyntaxError",
    "InvalidAccessError",
    "InvalidStateError",
    "MessageEvent",
    "WebSocket",
    "__version__",
    "dispatch",
    "supported",
]
