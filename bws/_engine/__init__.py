"""The network: the only folder that knows sockets and websocket-client."""

from __future__ import annotations

from .._settings import Settings
from .interface import Engine, Listener

__all__ = ["supported", "threaded_engine"]

try:
    from websocket import WebSocketApp as _App

    supported = isinstance(_App, type)
except ImportError:  # not installed, or another package's module of this name
    supported = False

if supported:
    from .threaded import ThreadedEngine


def threaded_engine(settings: Settings, listener: Listener) -> Engine:
    """An engine that is not started yet; it reports to `listener`."""
    return ThreadedEngine(settings, listener)
