"""The program scripts/echo_cli.py in a pipe: lines, when it stops, and its exit status."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bws.testing import EchoServer
from scripts._session import start
from scripts.echo_cli import main
from tests.program import SCRIPT, TIMEOUT, run, running
from tests.wire.frames import TEXT, close_frame, frame
from tests.wire.server import Connection, ScriptedServer

# --- pipes ---


def test_hello_comes_back_and_nothing_else() -> None:
    assert run(input="hello\n") == (0, "hello\n", "")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"one\ntwo\nthree\n", "one\ntwo\nthree\n"),
        (b"no line end", "no line end\n"),
        (b"\n\nafter empty ones\n", "\n\nafter empty ones\n"),
        (b"from\r\nWindows\r\n", "from\nWindows\n"),
        ("żółw \U0001f422\n".encode(), "żółw \U0001f422\n"),
        (b"\xff is not UTF-8\n", "\ufffd is not UTF-8\n"),
        (b"/quit\n", "/quit\n"),
        (b"x" * 1_000_000, "x" * 1_000_000 + "\n"),
        (b"", ""),
    ],
    ids=["lines", "no end", "empty", "CRLF", "unicode", "bad UTF-8", "no command", "long", "nothing"],
)
def test_a_line_of_input_is_a_message_and_a_message_a_line_of_output(given: bytes, shown: str) -> None:
    assert run(input=given, env={"PYTHONIOENCODING": "ascii"}) == (0, shown, "")


def test_many_lines_come_back_in_order() -> None:
    numbers = "".join(f"{number}\n" for number in range(20_000))
    assert run(input=numbers) == (0, numbers, "")


def test_each_reply_is_there_before_the_next_line_is_typed() -> None:
    with running() as program:
        assert program.stdin is not None
        assert program.stdout is not None
        for line in (b"first\n", b"second\n"):
            program.stdin.write(line)
            program.stdin.flush()
            assert program.stdout.readline() == line
        program.stdin.close()
        assert program.wait(TIMEOUT) == 0


def test_it_runs_from_anywhere_and_as_a_module(tmp_path: Path) -> None:
    assert run(input="hello\n", cwd=tmp_path) == (0, "hello\n", "")
    module = [sys.executable, "-m", "scripts.echo_cli", "-x", "hello"]
    done = subprocess.run(module, cwd=SCRIPT.parent.parent, capture_output=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_x_sends_texts_instead_of_the_input() -> None:
    assert run("-x", "one", "-x", "", "-x", "/two", input="not this\n") == (0, "one\n\n/two\n", "")


def test_line_ends_in_a_message_are_spelled_out() -> None:
    assert run("-x", "a\nb\r\tc") == (0, "a\\nb\\r\tc\n", "")


def test_a_server_gets_the_lines_and_is_listened_to_until_it_is_silent(echo_server: EchoServer) -> None:
    assert run(echo_server.url, "--wait", "2", input="one\ntwo\n") == (0, "one\ntwo\n", "")
    assert echo_server.messages == ["one", "two"]
    assert echo_server.next_close() == (1005, "")


def test_a_server_that_sends_unasked_is_shown_too() -> None:
    with EchoServer(echo=False) as server, running(server.url) as program:
        assert program.stdout is not None
        server.send("news")
        assert program.stdout.readline() == b"news\n"
        server.send(b"\x00\xff")
        assert program.stdout.readline() == b"00ff\n"
        server.close(1000)
        assert program.wait(TIMEOUT) == 0


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    with EchoServer(echo=False) as server, running(server.url) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        server.send("first")
        assert program.stdout.readline() == b"first\n"
        program.stdout.close()
        server.send("second")
        assert program.wait(TIMEOUT) == 0
        assert program.stderr.read() == b""


# --- when it stops, and the exit status ---


def test_count_stops_after_so_many_messages(echo_server: EchoServer) -> None:
    assert run("--count", "2", "-x", "a", "-x", "b", "-x", "c") == (0, "a\nb\n", "")
    with running(echo_server.url, "--count", "1") as program:
        echo_server.send("one", TIMEOUT)
        assert program.wait(TIMEOUT) == 0  # though its input is still open


def test_too_few_messages_are_a_time_out() -> None:
    status, out, err = run("--count", "3", "--wait", "1", "-x", "a")
    assert (status, out, err) == (4, "a\n", "bws: timed out: 1 of 3 messages came\n")


@pytest.mark.parametrize(("count", "shown", "missing"), [("3", "1\n2\n3\n", "zz"), ("1", "1\n", "2")])
def test_count_stops_also_when_what_is_expected_has_not_come(count: str, shown: str, missing: str) -> None:
    status, out, err = run("--count", count, "--expect", "2", "--expect", "zz", input="1\n2\n3\n4\n5\n")
    assert (status, out, err) == (4, shown, f"bws: '{missing}' did not come within --count {count}\n")


def test_with_a_count_what_is_expected_has_to_be_among_them() -> None:
    assert run("--count", "3", "--expect", "b", "-x", "a", "-x", "b", "-x", "c", "-x", "d") == (0, "a\nb\nc\n", "")


def test_the_last_of_the_count_may_be_what_is_expected() -> None:
    assert run("--count", "2", "--expect", "b", "-x", "a", "-x", "b", "-x", "c") == (0, "a\nb\n", "")


def test_what_did_not_come_within_the_count_is_told_however_the_server_closes() -> None:
    def hello_and_a_complaint(c: Connection) -> None:
        c.handshake(then=frame(TEXT, "hello") + close_frame(1011, "broken"))

    with ScriptedServer(hello_and_a_complaint) as server:
        status, out, err = run(server.url, "--count", "1", "--expect", "bye")
        assert (status, out, err) == (4, "hello\n", "bws: 'bye' did not come within --count 1\n")


def test_expect_stops_when_the_messages_have_come_in_order(echo_server: EchoServer) -> None:
    with running(echo_server.url, "--expect", "b", "--expect", "a") as program:
        for text in ("a", "b", "x", "a"):
            echo_server.send(text, TIMEOUT)
        assert program.wait(TIMEOUT) == 0
        assert program.stdout is not None
        assert program.stdout.read() == b"a\nb\nx\na\n"


def test_a_message_that_does_not_come_is_a_time_out() -> None:
    status, out, err = run("--expect", "bye", "--wait", "1", "-x", "hello")
    assert (status, out, err) == (4, "hello\n", "bws: timed out: 'bye' did not come\n")


def test_replies_that_do_not_come_do_not_fail_an_unknown_server() -> None:
    with EchoServer(echo=False) as server:
        assert run(server.url, "--wait", "0.2", "-x", "hello") == (0, "", "")


def test_a_server_that_closes_before_the_expected_came_is_a_failure(echo_server: EchoServer) -> None:
    with running(echo_server.url, "--expect", "bye") as program:
        echo_server.close(1000, "early", TIMEOUT)
        assert program.wait(TIMEOUT) == 4
        assert program.stderr is not None
        assert program.stderr.read() == b"bws: timed out: 'bye' did not come; the server closed: 1000 early\n"


@pytest.mark.parametrize("code", [1000, 1001, None])
def test_a_server_that_has_finished_is_a_clean_end(echo_server: EchoServer, code: int | None) -> None:
    with running(echo_server.url) as program:
        echo_server.close(code, timeout=TIMEOUT)
        assert program.wait(TIMEOUT) == 0
        assert program.stderr is not None
        assert program.stderr.read() == b""


@pytest.mark.parametrize("code", [1008, 1011, 4000])
def test_a_server_that_closes_with_a_complaint_is_an_abnormal_end(echo_server: EchoServer, code: int) -> None:
    with running(echo_server.url) as program:
        echo_server.close(code, "no\x1b[2Jway", TIMEOUT)
        assert program.wait(TIMEOUT) == 3
        assert program.stderr is not None
        assert program.stderr.read() == f"bws: closed abnormally: {code} no\\x1b[2Jway\n".encode()


def test_a_lost_connection_is_an_abnormal_end(echo_server: EchoServer) -> None:
    with running(echo_server.url) as program:
        echo_server.send("still there", TIMEOUT)
        assert program.stdout is not None
        assert program.stdout.readline() == b"still there\n"
        echo_server.drop()
        assert program.wait(TIMEOUT) == 3
        assert program.stderr is not None
        assert program.stderr.read().startswith(b"bws: closed abnormally: 1006")


def test_input_that_the_server_does_not_take_any_more_is_an_abnormal_end(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"more\n" * 1_000_000)
    with EchoServer(echo=False) as server, lines.open("rb") as input, running(server.url, stdin=input) as program:
        server.next_message()
        server.close(1000, "enough")
        assert program.wait(TIMEOUT) == 3
        assert program.stderr is not None
        assert program.stderr.read() == b"bws: the server closed before all was sent: 1000 enough\n"


def test_no_connection_is_told_with_its_cause(echo_server: EchoServer) -> None:
    echo_server.refuse(404)
    status, out, err = run(echo_server.url, "-x", "hello")
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"bws: cannot connect to {echo_server.url}/: .*404.*\n", err)


def test_a_server_that_is_not_there_cannot_be_connected_to() -> None:
    with EchoServer() as server:
        url = server.url
    status, out, err = run(url)
    assert (status, out) == (1, "")
    assert err.startswith(f"bws: cannot connect to {url}/: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("url", ["", "gopher://example/", "ws://", "ws://host/#fragment", "ws://[::1", "/path"])
def test_a_wrong_url_is_wrong_usage_in_one_line(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([url]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"bws: .+\n", err)


def test_what_cannot_work_here_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bws.WebSocket", fails(NotImplementedError("websocket-client is missing")))
    assert main(["ws://127.0.0.1/"]) == 1
    assert capfd.readouterr() == ("", "bws: websocket-client is missing\n")


def fails(error: BaseException) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def cut_in_two() -> RuntimeError:
    """What comes of Ctrl-C inside `threading.Thread.start`."""
    error = RuntimeError("release unlocked lock")
    error.__context__ = KeyboardInterrupt()
    return error


def test_ctrl_c_while_a_thread_is_started_is_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], echo_server: EchoServer
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "cli input":
            raise cut_in_two()
        begin(thread)

    begin = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    assert main(["-x", "hello", echo_server.url]) == 130
    assert capfd.readouterr() == ("", "")
    assert echo_server.next_close() == (1005, "")


@pytest.mark.parametrize("which", ["bws.WebSocket", "scripts.echo_cli.EchoServer"])
def test_ctrl_c_while_something_else_is_started_is_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], which: str
) -> None:
    monkeypatch.setattr(which, fails(cut_in_two()))
    assert main(["ws://127.0.0.1/"] if which == "bws.WebSocket" else []) == 130
    assert capfd.readouterr() == ("", "")


def test_an_error_of_another_kind_is_not_hidden(monkeypatch: pytest.MonkeyPatch, echo_server: EchoServer) -> None:
    monkeypatch.setattr("bws.WebSocket", fails(RuntimeError("no more threads")))
    with pytest.raises(RuntimeError, match="no more threads"):
        main([echo_server.url])
    monkeypatch.undo()
    monkeypatch.setattr(threading.Thread, "start", fails(RuntimeError("no more threads")))
    with pytest.raises(RuntimeError, match="no more threads"):
        start(threading.Thread())
