"""What the logger "bws" says: states and handshakes, frames cut short, no secrets."""

from __future__ import annotations

import logging

import pytest

import bws
from tests.conftest import TIMEOUT, Mode, Recorder
from tests.wire.frames import TEXT, close_frame, frame, http
from tests.wire.server import Connection, ScriptedServer

SECRETS = {"headers": {"X-Api-Key": "s3cret"}, "cookie": "session=s3cret"}


def talk(mode: Mode, script: object, caplog: pytest.LogCaptureFixture) -> str:
    """All that is logged of one connection, in every detail."""
    caplog.set_level(logging.DEBUG, "bws")
    with ScriptedServer(script) as server:  # type: ignore[arg-type]
        url = f"ws://user:s3cret@127.0.0.1:{server.port}/"
        Recorder(mode.open(url, **SECRETS)).closed()
        assert (server.result().header("Authorization") or "").startswith("Basic ")
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("bws"))


@pytest.mark.parametrize("accepts", [True, False])
def test_no_credential_is_ever_logged(mode: Mode, accepts: bool, caplog: pytest.LogCaptureFixture) -> None:
    def script(c: Connection) -> None:
        if accepts:
            c.handshake("Set-Cookie: session=s3cret", then=frame(TEXT, "hello") + close_frame(1000))
        else:
            c.request()
            c.send(http("403 Forbidden", "Set-Cookie: session=s3cret"))
            c.half_close()

    text = talk(mode, script, caplog)
    assert text
    assert "127.0.0.1" in text
    for secret in ("s3cret", "dXNlcjpzM2NyZXQ"):  # as it is, and as Basic authorization
        assert secret not in text


def test_a_payload_is_cut(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    script = lambda c: c.handshake(then=frame(TEXT, "x" * 100_000) + close_frame(1000))  # noqa: E731
    assert len(talk(mode, script, caplog)) < 10_000


def test_one_close_frame_is_logged_as_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bws")
    with ScriptedServer(Connection.handshake) as server, bws.WebSocket(server.url) as ws:
        ws.close(1000)
        assert ws.wait_closed(TIMEOUT)
    told = [record.getMessage() for record in caplog.records if "> opcode 8" in record.getMessage()]
    assert len(told) == 1


def test_nothing_is_above_info_in_an_ordinary_connection(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    talk(mode, lambda c: c.handshake(then=frame(TEXT, "x") + close_frame(1000)), caplog)
    assert {record.levelno for record in caplog.records if record.name == "bws"} <= {logging.DEBUG, logging.INFO}
