"""A signal handler that raises anywhere inside send(), as Ctrl-C does: the server sees whole messages, each once."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
from typing import Any

import pytest

from tests.conftest import TIMEOUT, run_python
from tests.wire.server import Connection, ScriptedServer
from tests.wire.tls import authority_pem

INTERRUPTIONS = 2000 if os.environ.get("BWS_STRESS") == "1" else 250
TLS_CONNECTIONS = 40 if os.environ.get("BWS_STRESS") == "1" else 4

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="setitimer() is POSIX"),
    pytest.mark.timeout(600 if os.environ.get("BWS_STRESS") == "1" else 60),
]

# In a process of its own: pytest's time-outs have the same signal.
CLIENT = """
import json, random, signal, ssl, struct, sys
import bws

class Interruption(BaseException):
    pass

def interrupt(*_):
    raise Interruption

def disarm():
    while True:
        try:
            return signal.setitimer(signal.ITIMER_REAL, 0)
        except Interruption:
            pass

class OfAnotherMake(ssl.SSLContext):
    def wrap_socket(self, *args, **options):
        return super().wrap_socket(*args, **options)

url, authority, wanted, own = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
context = None
if authority:
    context = (OfAnotherMake if own else ssl.SSLContext)(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority)
ws = bws.WebSocket(url, ssl=context)
ends = []
ws.bind("close", lambda evt: ends.append((evt.code, evt.wasClean, repr(evt.error))))
ws.bind("error", lambda evt: ends.append(repr(evt.error)))
assert ws.wait_open(15)
signal.signal(signal.SIGALRM, interrupt)
chance = random.Random(42)
number = interruptions = 0
sure = []
while interruptions < wanted and ws.readyState == 1:
    number += 1
    data = struct.pack("!I", number) + b"ab" * (chance.choice((10, 100, 1000, 20_000, 200_000)) // 2)
    sent = False
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-6, 300e-6))
        ws.send(data)
        sent = True
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Interruption:
        interruptions += 1
    disarm()
    if sent:
        sure.append(number)
    if ws.bufferedAmount > 8e6:
        ws.flush(15)
flushed = ws.flush(15)
left = ws.bufferedAmount
ws.close()
assert ws.wait_closed(15)
print(json.dumps([interruptions, sure, flushed, left, ends]))
"""


def interrupted(url: str, authority: str, count: int, *more: str) -> list[Any]:
    """What the program tells: interruptions, messages surely sent, flush(), bufferedAmount, how it ended."""
    done = run_python(CLIENT, url, authority, str(count), *more, measured=False)
    assert (done.returncode, done.stderr) == (0, "")
    told: list[Any] = json.loads(done.stdout)
    return told


def numbers(messages: list[Any]) -> list[int]:
    """The numbers of the messages, all of which are undamaged."""
    for message in messages:
        assert message[4:] == b"ab" * ((len(message) - 4) // 2)
        assert len(message) - 4 in (10, 100, 1000, 20_000, 200_000)
    return [struct.unpack_from("!I", message)[0] for message in messages]


def check(got: list[int], sure: list[int]) -> None:
    """Each at most once, in order, and none of the sure ones lost."""
    assert got == sorted(set(got))
    assert set(sure) <= set(got)


@pytest.mark.parametrize("tls", [False, True])
def test_whole_messages_arrive_in_order_at_most_once_and_none_that_was_surely_sent_is_lost(tls: bool) -> None:
    with ScriptedServer(Connection.handshake, tls=["127.0.0.1"] if tls else ()) as server:
        interruptions, sure, flushed, left, ends = interrupted(
            server.url, authority_pem() if tls else "", INTERRUPTIONS
        )
        seen = server.result()
    assert (interruptions, flushed, left) == (INTERRUPTIONS, True, 0)
    assert sure
    check(numbers(seen.messages), sure)
    assert ends == [[1005, True, "None"]]


def test_compressed_messages_refer_to_nothing_that_was_not_sent() -> None:
    server_module = pytest.importorskip("websockets.sync.server")
    got: list[Any] = []
    with server_module.serve(got_by(got), "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            interruptions, sure, flushed, left, ends = interrupted(f"ws://127.0.0.1:{port}/", "", INTERRUPTIONS)
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
    assert (interruptions, flushed, left) == (INTERRUPTIONS, True, 0)
    assert sure
    check(numbers(got), sure)
    assert ends == [[1005, True, "None"]]


def got_by(got: list[Any]) -> Any:
    """A handler of websockets that notes what comes."""

    def handler(connection: Any) -> None:
        got.extend(connection)

    return handler


def test_with_a_socket_of_another_context_it_goes_on_or_ends_with_an_error_that_names_the_signal_handler() -> None:
    with ScriptedServer(Connection.handshake, tls=["127.0.0.1"]) as server:
        for n in range(TLS_CONNECTIONS):
            interruptions, sure, flushed, _, ends = interrupted(server.url, authority_pem(), 20, "own")
            seen = server.results(n + 1)[n]
            got = numbers(seen.messages)
            assert got == sorted(set(got))
            if flushed and interruptions == 20:
                check(got, sure)
            if len(ends) != 1 or ends[0][:2] != [1005, True]:
                assert ends[-1][:2] == [1006, False]
                assert "a signal handler raised inside a TLS write" in ends[-1][2]
