"""Through proxies that others wrote: tinyproxy (HTTP CONNECT) and microsocks (SOCKS 5), on loopback."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

import bws
from bws.errors import ProxyError
from tests.conftest import TIMEOUT, Recorder
from tests.wire.server import Connection, ScriptedServer

FAILED = [("error", 3), ("close", 3, 1006, "", False)]
NAMES = "localhost", "127.0.0.1"


def _tinyproxy(port: int, folder: pathlib.Path, credentials: str) -> list[str]:
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 20", "Allow 127.0.0.1", "LogLevel Error"]
    if credentials:
        lines.append("BasicAuth " + credentials.replace(":", " "))
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join([*lines, ""]))
    return ["-d", "-c", str(config)]


def _microsocks(port: int, folder: pathlib.Path, credentials: str) -> list[str]:
    user, _, password = credentials.partition(":")
    return ["-i", "127.0.0.1", "-p", str(port), *(["-u", user, "-P", password] if credentials else [])]


# program: the schemes that it understands, its arguments
PROGRAMS: dict[str, tuple[list[str], Callable[[int, pathlib.Path, str], list[str]]]] = {
    "tinyproxy": (["http"], _tinyproxy),
    "microsocks": (["socks5", "socks5h", "socks"], _microsocks),
}
SCHEMES = [(program, scheme) for program, (schemes, _) in PROGRAMS.items() for scheme in schemes]


@contextlib.contextmanager
def running(program: str, folder: pathlib.Path, credentials: str = "") -> Iterator[str]:
    """The program on a free port; host and port as in a URL."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed; apt install {program}"
        if os.environ.get("BWS_TEST_PROXIES"):
            pytest.fail(message)
        pytest.skip(message)
    for _ in range(5):  # another process may take the port before it does
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with subprocess.Popen(
            [path, *PROGRAMS[program][1](port, folder, credentials)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                if _listens(process, port):
                    yield f"127.0.0.1:{port}"
                    return
            finally:
                process.kill()
    pytest.fail(f"{program} did not start")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("credentials", ["", "user:pass-word"])
@pytest.mark.parametrize(("program", "scheme"), SCHEMES)
def test_a_connection_goes_through(
    program: str, scheme: str, credentials: str, secure: bool, tmp_path: pathlib.Path
) -> None:
    text = "é" * 300_000
    with (
        running(program, tmp_path, credentials) as proxy,
        ScriptedServer(Connection.echo, tls=NAMES if secure else ()) as server,
    ):
        userinfo = f"{credentials}@" if credentials else ""
        ws = bws.WebSocket(
            server.url.replace("127.0.0.1", "localhost"),
            proxy=f"{scheme}://{userinfo}{proxy}",
            ssl=server.ssl_context if secure else None,
        )
        recorder = Recorder(ws, {"open": lambda r, _: r.ws.send(text), "message": lambda r, _: r.ws.close(1000, "bye")})
        assert recorder.closed() == [("open", 1), ("message", 1, text), ("close", 3, 1000, "bye", True)]
        seen = server.result()
    assert (seen.messages, seen.close) == ([text], (1000, "bye"))
    assert seen.header("Proxy-Authorization") is None


@pytest.mark.parametrize("userinfo", ["", "user:wrong-secret@"])
@pytest.mark.parametrize(("program", "scheme"), SCHEMES)
def test_wrong_credentials_are_refused(program: str, scheme: str, userinfo: str, tmp_path: pathlib.Path) -> None:
    with running(program, tmp_path, "user:pass") as proxy, ScriptedServer(Connection.echo) as server:
        recorder = Recorder(bws.WebSocket(server.url, proxy=f"{scheme}://{userinfo}{proxy}"))
        assert recorder.closed() == FAILED
        assert server.connections == []
    host, _, port = proxy.partition(":")
    assert isinstance(recorder.error, ProxyError)
    assert f"proxy {host!r} port {port}" in str(recorder.error)
    assert "secret" not in str(recorder.error)
    assert recorder.error.status in ((401, 407) if program == "tinyproxy" else (None,))


@pytest.mark.parametrize(("program", "scheme"), SCHEMES)
def test_a_server_that_the_proxy_does_not_reach_is_an_error(program: str, scheme: str, tmp_path: pathlib.Path) -> None:
    with running(program, tmp_path) as proxy, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{nobody.getsockname()[1]}/"
        recorder = Recorder(bws.WebSocket(url, proxy=f"{scheme}://{proxy}"))
        assert recorder.closed() == FAILED
    assert isinstance(recorder.error, ProxyError)
    assert "proxy '127.0.0.1'" in str(recorder.error)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_proxy_that_dies_loses_the_connection(program: str, tmp_path: pathlib.Path) -> None:
    with ScriptedServer(Connection.handshake) as server:
        with running(program, tmp_path) as proxy:
            ws = bws.WebSocket(server.url, proxy=f"{PROGRAMS[program][0][0]}://{proxy}")
            recorder = Recorder(ws)
            recorder.wait_for("open")
        assert recorder.closed() == [("open", 1), ("close", 3, 1006, "", False)]
