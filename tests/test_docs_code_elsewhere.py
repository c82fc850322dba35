"""Code on the pages that cannot run as it is printed: a window that stays, a host that is not there.

It runs here with an end for the window, or with a server in the host's place. What is left is for wxPython, PyGObject
and a proxy.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from bws.testing import EchoServer
from tests.dispatch.conftest import display
from tests.test_docs_code import BLOCKS, PLACEHOLDER, Block, run

__all__ = ["display"]  # the fixture

WINDOWS = [block for block in BLOCKS if block.no_run == "needs a display"]
HOSTS = [block for block in BLOCKS if str(block.no_run).endswith("a foreign host") and "proxy" not in str(block.no_run)]
HOST = re.compile(r"wss://(?:intranet\.example/feed|192\.0\.2\.1/)")

# What a program around a part of one would have.
TK_AROUND = """
import tkinter
import bws
root = tkinter.Tk()
label = tkinter.Label(root)
"""
TK_END = """
ws.bind("open", lambda: ws.send("hello"))
def look():
    if label["text"] == "hello":
        root.destroy()
    else:
        root.after(5, look)
look()
root.mainloop()
"""
QT_END = """
ws.bind("message", lambda evt: app.exit(0 if label.text() == "hello" else 1))
sys.exit(app.exec())
"""
OPENS = """
assert ws.wait_open(10), "no connection"
ws.close()
assert ws.wait_closed(10)
"""


def replaced(block: Block, code: str) -> Block:
    return Block(block.page, block.line, code, None, None)


def name_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", WINDOWS, ids=name_of)
def test_code_for_a_window_shows_the_echo(
    block: Block, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "PySide6" in block.code:
        monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
        code = block.code.replace("sys.exit(app.exec())\n", QT_END)
    else:
        request.getfixturevalue("display")
        around = "" if "tkinter.Tk()" in block.code else TK_AROUND
        code = around + block.code.replace("root.mainloop()\n", "") + TK_END
    with EchoServer() as server:
        done = run(replaced(block, code), server.url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert server.messages[0] == "hello"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the code reads, under the names that it uses."""
    authority = trustme.CA()
    client = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(tmp_path / "company-ca.pem")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    for number, blob in enumerate(client.cert_chain_pems):
        blob.write_to_path(tmp_path / "client.pem", append=number > 0)
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[EchoServer]:
    """A server whose certificate is of the authority in the folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(folder / "company-ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL  # and then it has to hold
    with EchoServer(tls=context) as server:
        yield server


@pytest.mark.parametrize("block", HOSTS, ids=name_of)
def test_code_for_a_host_opens_a_connection_to_a_server_in_its_place(
    block: Block, folder: Path, server: EchoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "company-ca.pem" not in block.code:  # the system is meant to know the authority
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "company-ca.pem"))
    code, count = HOST.subn(server.url, PLACEHOLDER.sub(server.url, block.code))
    assert count
    done = run(replaced(block, code + OPENS), server.url, folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_there_is_code_of_both_kinds() -> None:
    assert len(WINDOWS) >= 4
    assert len(HOSTS) >= 3
