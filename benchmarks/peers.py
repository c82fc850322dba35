"""Who takes part."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

FEATURES = frozenset({"tls", "deflate", "loop", "queue", "connections", "import", "small"})


@dataclass(frozen=True)
class Peer:
    """A client, without importing it."""

    key: str
    label: str  # in tables and charts
    module: str  # in benchmarks.clients
    needs: str | None  # what must be importable
    distribution: str | None  # whose version is noted
    features: frozenset[str]  # what it is measured at, beside a round trip, receiving and sending
    imports: str = ""  # the statement whose time is taken


PEERS = {
    peer.key: peer
    for peer in (
        Peer("bws", "bws", "bws_client", "bws", None, FEATURES, "import bws"),
        # what is sent is masked in Python: as `pip install bws` has it, without the extra "speed"
        Peer("bws_pure", "bws, no [speed]", "bws_client", "bws", None, frozenset({"masking"})),
        Peer(
            "websocket_client", "websocket-client", "websocket_client", "websocket", "websocket-client",
            FEATURES - {"deflate"}, "import websocket",
        ),
        Peer(
            "websockets", "websockets, threads", "websockets_threads", "websockets", "websockets",
            FEATURES, "from websockets.sync.client import connect",
        ),
        # its handlers run on the event loop anyway, so nothing is handed to a queue
        Peer(
            "picows", "picows, asyncio", "picows_client", "picows", "picows",
            FEATURES - {"deflate", "queue"}, "import picows",
        ),
        Peer("raw_tcp", "raw TCP", "raw_tcp", None, None, frozenset({"tls", "connections", "small"})),
    )
}  # fmt: skip

REFERENCE = "bws"  # ratios are to this one
FLOOR = "raw_tcp"


def missing(peer: Peer) -> bool:
    """Whether a peer cannot take part because it is not installed."""
    return peer.needs is not None and importlib.util.find_spec(peer.needs) is None


def version(peer: Peer) -> str | None:
    """The version of a peer that is installed."""
    if peer.needs == "bws":
        import bws

        return bws.__version__
    return importlib.metadata.version(peer.distribution) if peer.distribution else None
