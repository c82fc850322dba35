"""One file a client: what its documentation shows, and nothing that its users would not write."""

from __future__ import annotations

import importlib

from .base import Client, Target

__all__ = ["Client", "Target", "client"]


def client(module: str, target: Target) -> Client:
    """The client in one of the files here."""
    found: Client = importlib.import_module(f"{__name__}.{module}").Client(target)
    return found
