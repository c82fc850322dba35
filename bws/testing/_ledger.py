"""What an ``EchoServer`` knows of its clients, and what it was told to do to them."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from websockets.http11 import Request, Response
from websockets.protocol import State

from ._checks import brief, check_timeout, told
from ._connection import Connection

T = TypeVar("T")

Choice = Callable[[Connection], bool]


@dataclass
class Rule:
    """What is done to clients until it is taken back.

    Attributes:
        refusal: What their handshakes are answered with.
        refusals: How often; None for always.
        stalled: Whether they are not read and not answered.
        rate: How many bytes a second go in either direction; None for as many as can.
    """

    refusal: Response | None = None
    refusals: int | None = None
    stalled: bool = False
    rate: float | None = None

    def next_refusal(self) -> Response | None:
        if self.refusal is None or self.refusals == 0:
            return None
        if self.refusals is not None:
            self.refusals -= 1
        return self.refusal


class Ledger:
    """What the clients did. Written on the loop's thread, read from any other.

    ``changed`` guards all of it and is notified after each change.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running = False
        self.messages: list[str | bytes] = []
        self.unread: deque[str | bytes] = deque()  # those that no next_message() has returned
        self.closes: list[tuple[int, str]] = []
        self.unread_closes: deque[tuple[int, str]] = deque()
        self.connections: list[Connection] = []
        self.unmet: deque[Connection] = deque()  # those that no next_client() has returned
        self.request: Request | None = None
        self.rules: defaultdict[str | None, Rule] = defaultdict(Rule)  # by path; that of None is for all
        self.era = 0  # the number of forget() calls; of connections of an earlier one nothing is noted

    def arrived(self, connection: Connection, request: Request) -> Response | None:
        """Note a handshake; returns the refusal that it is to be answered with, if any."""
        with self.changed:
            self.request = request
            connection.era = self.era
            self.connections = [*self.alive(), connection]
            self.changed.notify_all()
            for key in (path_of(request), None):
                refusal = self.rules[key].next_refusal() if key in self.rules else None
                if refusal is not None:
                    return refusal
            return None

    def opened(self, connection: Connection, *, keep: bool) -> None:
        """The handshake is done, which only ``websockets`` notes, in the connection's state."""
        with self.changed:
            if keep and connection.era == self.era:
                self.unmet.append(connection)
            self.changed.notify_all()

    def received(self, connection: Connection, message: str | bytes) -> None:
        with self.changed:
            if connection.era != self.era:
                return
            for messages in (self.messages, self.unread, connection.messages, connection.unread):
                messages.append(message)
            self.changed.notify_all()

    def ended(self, connection: Connection, *, keep: bool) -> None:
        protocol = connection.protocol  # websockets 14.0 has the two only there
        close = (int(protocol.close_code or 1006), protocol.close_reason or "")
        with self.changed:
            if keep and connection.era == self.era:
                self.closes.append(close)
                self.unread_closes.append(close)
            self.changed.notify_all()

    def forget(self) -> None:
        """Be as new, but for the clients that stay."""
        with self.changed:
            self.era += 1
            for connection in self.connections:
                if connection.state in (State.CONNECTING, State.OPEN):
                    connection.era = self.era
                connection.stalled_itself, connection.own_rate = False, None
                connection.messages.clear()
                connection.unread.clear()
            self.messages.clear()
            self.unread.clear()
            self.closes.clear()
            self.unread_closes.clear()
            self.unmet.clear()
            self.rules.clear()
            self.request = None

    def orders_for(self, connection: Connection) -> tuple[bool, float | None]:
        """Whether the connection is stalled, and its rate: the strictest of all rules that are for it."""
        with self.changed:
            keys = (None, path_of(connection.request)) if connection.request is not None else (None,)
            rules = [self.rules[key] for key in keys if key in self.rules]
            rates = [rate for rate in (connection.own_rate, *(rule.rate for rule in rules)) if rate is not None]
            return connection.stalled_itself or any(rule.stalled for rule in rules), min(rates, default=None)

    def alive(self) -> list[Connection]:
        """The connections that are not CLOSED; call it with ``changed`` held."""
        return [connection for connection in self.connections if connection.state is not State.CLOSED]

    def next_of(self, waiting: deque[T], timeout: float | None, what: str, messages: list[str | bytes]) -> T:
        """The first of those that wait; ``messages`` is what to tell of when none comes."""
        limit = check_timeout(timeout)
        with self.changed:
            if not self.changed.wait_for(lambda: waiting, limit):
                here = "" if self.running else "; the server is not running"
                if self.request is None:
                    here += f"; {self.nobody_has_connected()}"
                raise TimeoutError(
                    f"no further {what} within {limit:g} s{here}; so far {told(messages, 'message', 'came')}, and "
                    f"{told(self.closes, 'connection', 'ended')}"
                )
            return waiting.popleft()

    def nobody_has_connected(self) -> str:
        return "nobody has connected" + (" since reset()" if self.era else "")

    def clients(self, timeout: float | None, choice: Choice, whom: str, gone: Callable[[], bool]) -> list[Connection]:
        """The connections that are chosen; waits for the first one when there is none, unless those are gone."""
        limit = check_timeout(timeout)

        def chosen() -> list[Connection]:
            return [connection for connection in self.alive() if choice(connection)]

        with self.changed:
            self.changed.wait_for(lambda: chosen() or not self.running or gone(), limit)
            found = chosen()
            if not found and not self.running:
                raise RuntimeError(f"no {whom} connected: the server is not running any more")
            if not found and gone():
                raise TimeoutError(f"the {whom} is not connected any more")
            if not found:
                others = ", ".join(sorted({path_of(c.request) for c in self.alive() if c.request is not None}))
                raise TimeoutError(
                    f"no {whom} connected within {limit:g} s; "
                    + (f"there are clients of: {brief(others)}" if others else "nobody is")
                )
            return found

    def set_running(self, running: bool) -> None:
        """Note that the server has started, or is about to stop; who waits for a client then gives up."""
        with self.changed:
            self.running = running
            self.changed.notify_all()


def path_of(request: Request) -> str:
    """The path of a request, without its query."""
    return request.path.partition("?")[0]
