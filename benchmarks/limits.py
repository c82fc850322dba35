"""Bounds."""

from __future__ import annotations

PROCESS = 90.0  # seconds that one measurement of one client may take; then it is ended and left out
WAIT = 80.0  # seconds that a client waits for what it measures


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system lets this process have: 500 connections can need 2,000."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
