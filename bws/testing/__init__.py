"""What a test suite may borrow: a real server on a thread, and a recorder of events.

>>> from bws.testing import EchoServer, record
>>> with EchoServer() as server, bws.WebSocket(server.url) as ws:
...     seen = record(ws)
...     ws.send("hello")
...     seen.wait_for("message").data
'hello'

The server comes with the extra ``pip install "bws[testing]"``; ``import bws.testing`` and ``record`` need nothing.
Fixtures for pytest are in ``bws.testing.pytest_plugin``.
"""

from .controls import Client, Route
from .echo_server import EchoServer
from .record import Record, record

__all__ = ["Client", "EchoServer", "Record", "Route", "record"]
