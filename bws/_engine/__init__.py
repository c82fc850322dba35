"""The network: the only folder that knows sockets and websocket-client."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder

from .._settings import Settings
from .interface import Engine, Listener
from .threaded import ThreadedEngine

__all__ = ["supported", "threaded_engine"]


def _find_websocket_client() -> bool:
    """Whether the module `websocket` is websocket-client.

    It is looked up and not imported: that takes longer than all of bws, and the first socket's thread does it.
    """
    loaded = sys.modules.get("websocket")
    if loaded is not None:
        return hasattr(loaded, "WebSocketApp")
    try:
        package = importlib.util.find_spec("websocket")
    except (ImportError, ValueError):
        return False
    places = None if package is None else package.submodule_search_locations
    return places is not None and PathFinder.find_spec("websocket._app", places) is not None


supported = _find_websocket_client()


def threaded_engine(settings: Settings, listener: Listener) -> Engine:
    """An engine that is not started yet; it reports to `listener`."""
    return ThreadedEngine(settings, listener)
