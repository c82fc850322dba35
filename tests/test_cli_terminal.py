"""The program scripts/echo_cli.py on a terminal, and with signals; what Windows does not have."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bws.testing import EchoServer
from tests.program import COMMAND, SCRIPT, TIMEOUT, running
from tests.wire.frames import TEXT, frame
from tests.wire.server import Connection, ScriptedServer

if sys.platform != "win32":
    import fcntl
    import pty
    import termios

    # A session of its own makes Ctrl-C on this terminal reach the program and nobody else.
    START = """
import fcntl, os, runpy, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv.pop(1) == "plain":
    sys.modules["prompt_toolkit"] = None
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
    SEQUENCES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]")

    class Terminal:
        """A person at a terminal with the program on it."""

        def __init__(self, master: int, program: subprocess.Popen[bytes], kind: str = "plain") -> None:
            self.program = program
            self._kind = kind
            self._master = master
            self._raw = b""

        @property
        def screen(self) -> str:
            """All that was printed so far, without escape sequences."""
            return SEQUENCES.sub(b"", self._raw).decode("utf-8", "replace")

        @property
        def raw(self) -> bytes:
            """All that was printed so far, every byte."""
            return self._raw

        def type(self, keys: str) -> None:
            self.type_bytes(keys.encode())

        def type_bytes(self, keys: bytes) -> None:
            os.write(self._master, keys)

        def wait_for(self, pattern: str) -> None:
            """Read what the program prints until a pattern has appeared."""
            end = time.monotonic() + TIMEOUT
            while not re.search(pattern, self.screen):
                assert self._read(end), f"no {pattern!r} on the screen: {self.screen!r}"

        def wait_for_prompt(self) -> None:
            """Wait until the program reads what is typed."""
            self.wait_for(">")
            end = time.monotonic() + TIMEOUT
            while self._kind == "toolkit" and termios.tcgetattr(self._master)[3] & termios.ICANON:
                assert time.monotonic() < end, "no prompt"
                self._read(time.monotonic() + 0.01)

        def ends_with(self) -> int:
            """Wait for the end; the exit status."""
            end = time.monotonic() + TIMEOUT
            while self._read(end):
                pass
            return self.program.wait(TIMEOUT)

        def _read(self, end: float) -> bool:
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            try:
                data = os.read(self._master, 65536) if ready else b""
            except OSError:  # Linux says so when the program has left
                data = b""
            self._raw += data
            return bool(data)

    @contextmanager
    def terminal(kind: str, home: Path, *args: str, **env: str) -> Iterator[Terminal]:
        """The program on a terminal; kind is 'plain' or 'toolkit', the latter with prompt_toolkit."""
        master, slave = pty.openpty()
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", START, kind, str(SCRIPT), *args]
        settings = {"HOME": str(home), "TERM": "xterm", "NO_COLOR": "1", "PROMPT_TOOLKIT_NO_CPR": "1", **env}
        environment = {name: value for name, value in os.environ.items() if name != "XDG_STATE_HOME"} | settings
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as program:
            os.close(slave)
            try:
                yield Terminal(master, program, kind)
            finally:
                program.kill()
                os.close(master)

    @pytest.fixture(params=["plain", "toolkit"])
    def kind(request: pytest.FixtureRequest) -> str:
        """Both prompts."""
        return str(request.param)

    def test_what_is_typed_is_sent_and_what_comes_stands_above_the_prompt(kind: str, tmp_path: Path) -> None:
        with terminal(kind, tmp_path) as person:
            person.wait_for(r"\d\d:\d\d:\d\d \* connected to ws://127\.0\.0\.1:\d+/; /help lists the commands")
            person.wait_for_prompt()
            person.type("hello\r")
            person.wait_for(r"\d\d:\d\d:\d\d < hello")
            person.type("//slash\r")
            person.wait_for("< /slash")
            person.wait_for_prompt()  # between two of them Ctrl-D is not the program's
            person.type("\x04")
            assert person.ends_with() == 0
            assert re.search(r"\* closed: 1005", person.screen)

    def test_quit_leaves(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            person.type("/quit\r")
            assert person.ends_with() == 0
        assert echo_server.next_close() == (1005, "")
        assert echo_server.messages == []

    def test_ctrl_c_leaves_with_130(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            person.type("\x03")
            assert person.ends_with() == 130
            assert "Traceback" not in person.screen
        assert echo_server.next_close() == (1005, "")

    def test_a_terminal_that_takes_nothing_holds_up_the_server(kind: str, tmp_path: Path) -> None:
        total, taken, prompted, over = 150_000_000, [0], threading.Event(), threading.Event()
        message = frame(TEXT, "x" * 15_000)

        def push(c: Connection) -> None:
            c.handshake()
            c.wait_for(prompted)
            c.sock.settimeout(1.5)
            try:
                while taken[0] < total:
                    c.sock.sendall(message)
                    taken[0] += len(message)
            except TimeoutError:
                pass
            over.set()
            c.reset()

        with ScriptedServer(push) as server, terminal(kind, tmp_path, server.url) as person:
            person.wait_for_prompt()  # and from now on the terminal is not read
            prompted.set()
            assert over.wait(TIMEOUT)
            assert taken[0] < total

    def test_what_is_typed_may_be_no_utf_8(tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal("toolkit", tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            person.type_bytes(b"caf\xe9\r")
            person.wait_for("< caf")
            person.wait_for_prompt()
            person.type("/quit\r")
            assert person.ends_with() == 0
            assert "Traceback" not in person.screen
        history = tmp_path / ".local" / "state" / "bws" / "history"
        assert "+caf" in history.read_text("utf-8")

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_ctrl_c_leaves_when_nobody_reads_the_output(unbuffered: str) -> None:
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with EchoServer(echo=False) as server:
            command = [*COMMAND, server.url]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as program:
                try:
                    for _ in range(100):
                        server.send("x" * 10_000, TIMEOUT)
                    assert program.stdout is not None
                    waiting = bytearray(4)
                    end = time.monotonic() + TIMEOUT
                    while int.from_bytes(waiting, sys.byteorder) < 50_000:
                        assert time.monotonic() < end
                        fcntl.ioctl(program.stdout, termios.FIONREAD, waiting)
                        time.sleep(0.01)
                    program.send_signal(signal.SIGINT)
                    assert program.wait(TIMEOUT) == 130
                finally:
                    program.kill()

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_an_output_that_does_not_block_loses_nothing(unbuffered: str) -> None:
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        message, count = "x" * 10_000, 30
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with EchoServer(echo=False) as server:
            command = [*COMMAND, server.url, "--count", str(count)]
            with (
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writer, env=env) as program,
                open(reader) as pipe,
            ):
                os.close(writer)
                for _ in range(count):
                    server.send(message, TIMEOUT)
                assert pipe.read() == f"{message}\n" * count
                assert program.wait(TIMEOUT) == 0

    def test_a_reader_that_takes_its_time_gets_the_last_line_too() -> None:
        reader, writer = os.pipe()
        with EchoServer(echo=False) as server, open(reader) as pipe:
            command = [*COMMAND, server.url, "--jsonl"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writer) as program:
                os.close(writer)
                for _ in range(20):
                    server.send("x" * 10_000, TIMEOUT)  # more than a pipe holds
                server.close(1000)
                with pytest.raises(subprocess.TimeoutExpired):
                    program.wait(1)  # it waits for its reader
                lines = pipe.read().splitlines()
                assert program.wait(TIMEOUT) == 0
        assert len(lines) == 22
        assert '"type": "close"' in lines[-1]

    def test_close_takes_a_code_and_a_reason(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            person.type("/close 1\r")
            person.wait_for(r"\* /close: .*1000")
            person.type("/close 4001 see you later\r")
            assert person.ends_with() == 0
        assert echo_server.next_close() == (4001, "see you later")

    def test_a_close_code_that_is_no_number_is_told_in_words(kind: str, tmp_path: Path) -> None:
        with terminal(kind, tmp_path) as person:
            person.wait_for_prompt()
            person.type("/close enough\r")
            person.wait_for(r"\* /close: the code comes first, and is a number, not 'enough'")

    def test_ping_tells_the_round_trip_time(kind: str, tmp_path: Path) -> None:
        with terminal(kind, tmp_path) as person:
            person.wait_for_prompt()
            person.type("/ping\r")
            person.wait_for(r"\* pong after \d+\.\d{3} ms")
            person.type(f"/ping {'x' * 126}\r")
            person.wait_for(r"\* /ping: .*125")

    def test_help_lists_the_commands_and_others_are_unknown(kind: str, tmp_path: Path) -> None:
        with terminal(kind, tmp_path) as person:
            person.wait_for_prompt()
            person.type("/help\r")
            for command in ("/ping", "/close", "/quit", "/help"):
                person.wait_for(rf"\* {command}")
            person.type("/nonsense\r")
            person.wait_for("there is no command /nonsense")

    def test_the_prompt_ends_when_the_server_closes(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            echo_server.send("last words")
            person.wait_for("< last words")
            echo_server.close(1011, "broken")
            assert person.ends_with() == 3
            assert "* closed: 1011 broken" in person.screen
            assert person.screen.count("closed") == 1

    def test_a_connection_that_is_lost_is_told_once_with_its_cause(
        kind: str, tmp_path: Path, echo_server: EchoServer
    ) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            echo_server.drop()
            assert person.ends_with() == 3
            assert re.search(r"\* closed abnormally: 1006 \(.+\)", person.screen)
            assert person.screen.count("closed") == 1

    def test_what_did_not_come_is_told_at_the_prompt_without_the_end_again(
        tmp_path: Path, echo_server: EchoServer
    ) -> None:
        with terminal("plain", tmp_path, echo_server.url, "--expect", "bye") as person:
            person.wait_for_prompt()
            echo_server.close(1000, "early")
            assert person.ends_with() == 4
            assert "* closed: 1000 early" in person.screen
            assert "* timed out: 'bye' did not come\r\n" in person.screen

    def test_an_end_that_json_lines_tell_is_told_a_person_too(tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal("plain", tmp_path, echo_server.url, "--jsonl") as person:
            person.wait_for('"type": "open"')
            echo_server.drop()
            assert person.ends_with() == 3
            assert "bws: closed abnormally: 1006 (" in person.screen

    def test_a_goal_ends_the_prompt(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url, "--count", "1") as person:
            person.wait_for_prompt()
            echo_server.send("enough")
            assert person.ends_with() == 0

    def test_control_characters_of_the_server_are_spelled_out(
        kind: str, tmp_path: Path, echo_server: EchoServer
    ) -> None:
        evil = "\x1b]0;title\x07\x1b[2J\r\n\x9b31m\u202eend\ttab"
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            echo_server.send(evil)
            person.wait_for(r"< \\x1b\]0;title\\x07\\x1b\[2J\\r\\n\\x9b31m\\u202eend\s+tab")
            assert b"\x1b]0;" not in person.raw
            assert b"\x1b[2J" not in person.raw
            echo_server.close(4000, evil[:20])
            assert person.ends_with() == 3
            assert b"\x1b]0;" not in person.raw
            assert b"\x1b[2J" not in person.raw

    def test_binary_messages_are_shown_with_their_size(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            echo_server.send(b"\x00\xff")
            person.wait_for("< <2 bytes> 00ff")

    def test_json_is_laid_out_and_wrong_input_is_told_and_not_sent(kind: str, tmp_path: Path) -> None:
        with terminal(kind, tmp_path, "--json") as person:
            person.wait_for_prompt()
            person.type("{nope\r")
            person.wait_for(r"\* this is not JSON")
            person.type('{"a": [1, 2]}\r')
            person.wait_for(r'< \{\s+"a": \[\s+1,\s+2\s+\]\s+\}')

    def test_a_dumb_terminal_gets_a_plain_prompt(tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal("toolkit", tmp_path, echo_server.url, TERM="dumb") as person:
            person.wait_for("> ")
            person.type("half a li")
            person.wait_for("half a li")
            echo_server.send("news")
            person.wait_for(r"half a li\r\n\S+ < news\r\n> $")
            person.type("ne\r")
            person.wait_for("< half a line")
            assert b"\x1b" not in person.raw

    def test_a_very_long_message_is_cut(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal(kind, tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            echo_server.send("x" * 30_000)
            person.wait_for(r"x\.\.\. \(30,000 characters\)")

    def test_colour_is_used_unless_it_is_not_wanted(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        for wanted, no_color in ((True, ""), (False, "1")):
            with terminal(kind, tmp_path, echo_server.url, NO_COLOR=no_color) as person:
                person.wait_for_prompt()
                echo_server.send("colourful")
                person.wait_for("< colourful")
                assert (b"\x1b[32m<\x1b[0m" in person.raw) is wanted

    def test_nothing_to_connect_to_is_told(kind: str, tmp_path: Path, echo_server: EchoServer) -> None:
        echo_server.refuse(404)
        with terminal(kind, tmp_path, echo_server.url) as person:
            assert person.ends_with() == 1
            assert re.search(r"\* cannot connect to ws://\S+: .*404", person.screen)
            assert "closed" not in person.screen  # it was never open

    def test_what_was_typed_is_remembered_for_the_next_time(tmp_path: Path) -> None:
        with terminal("toolkit", tmp_path) as person:
            person.wait_for_prompt()
            person.type("remember me\r")
            person.wait_for("< remember me")
            person.type("/quit\r")
            assert person.ends_with() == 0
        history = tmp_path / ".local" / "state" / "bws" / "history"
        assert "remember me" in history.read_text()
        assert history.stat().st_mode & 0o777 == 0o600
        with terminal("toolkit", tmp_path) as person:
            person.wait_for_prompt()
            person.type("\x1b[A")  # the arrow up
            person.wait_for("/quit")
            person.type("\x1b[A\r")
            person.wait_for("< remember me")

    def test_a_prompt_without_a_home_works(tmp_path: Path) -> None:
        (tmp_path / ".local").write_text("a file where a folder should be")
        with terminal("toolkit", tmp_path) as person:
            person.wait_for_prompt()
            person.type("hello\r")
            person.wait_for("< hello")
            person.type("/quit\r")
            assert person.ends_with() == 0

    def test_commands_are_completed(tmp_path: Path, echo_server: EchoServer) -> None:
        with terminal("toolkit", tmp_path, echo_server.url) as person:
            person.wait_for_prompt()
            person.type("/cl\t")
            person.wait_for("/close")
            person.type(" 4002\r")
            assert person.ends_with() == 0
        assert echo_server.next_close() == (4002, "")

    def test_a_terminal_that_shows_the_output_of_a_pipe_is_not_controlled_by_it(tmp_path: Path) -> None:
        master, slave = pty.openpty()
        with subprocess.Popen([*COMMAND], stdin=subprocess.PIPE, stdout=slave) as program:
            os.close(slave)
            person = Terminal(master, program)
            assert program.stdin is not None
            program.stdin.write(b"\x1b[2J\x07\n")
            program.stdin.close()
            assert person.ends_with() == 0
            os.close(master)
        assert person.raw == b"\\x1b[2J\\x07\r\n"

    # --- signals and pipes ---

    def test_ctrl_c_in_a_pipe_closes_and_says_nothing(echo_server: EchoServer) -> None:
        with running(echo_server.url) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            echo_server.send("here")
            assert program.stdout.readline() == b"here\n"
            program.send_signal(signal.SIGINT)
            assert program.wait(TIMEOUT) == 130
            assert program.stderr.read() == b""
        assert echo_server.next_close() == (1005, "")

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the threads of a process, with their numbers")
    def test_ctrl_c_that_another_thread_gets_is_heard(echo_server: EchoServer) -> None:
        """The system may choose any; and one that comes just before the main thread waits does not wake it either."""
        with running(echo_server.url) as program:
            assert program.stdout is not None
            echo_server.send("here")
            assert program.stdout.readline() == b"here\n"
            threads = Path(f"/proc/{program.pid}/task")
            end, still = time.monotonic() + TIMEOUT, 0
            while still < 10:  # looks in a row at which the main thread sleeps: then it waits
                assert time.monotonic() < end
                time.sleep(0.01)
                state = (threads / str(program.pid) / "stat").read_text().rpartition(")")[2].split()[0]
                still = still + 1 if state == "S" else 0
            other = max({int(thread.name) for thread in threads.iterdir()} - {program.pid})
            assert ctypes.CDLL(None).tgkill(program.pid, other, signal.SIGINT) == 0
            assert program.wait(TIMEOUT) == 130

    def test_ctrl_c_stops_the_server(echo_server: EchoServer) -> None:
        with running("--serve", "0") as server:
            assert server.stdout is not None
            assert server.stderr is not None
            assert server.stdout.readline().startswith(b"ws://")
            server.send_signal(signal.SIGINT)
            assert server.wait(TIMEOUT) == 130
            assert server.stderr.read() == b""

    @pytest.mark.parametrize("closed", [0, 1, 2])
    def test_a_closed_standard_stream_is_no_trouble(closed: int) -> None:
        close = f"import os, sys; os.close({closed}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        done = subprocess.run(
            [sys.executable, "-c", close, str(SCRIPT)],
            input=b"hello\n",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"" if closed != 2 else b"hello\n", b"")

    def test_an_input_that_somebody_made_non_blocking_is_read_to_its_end() -> None:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        with (
            os.fdopen(ours, "rb") as input,
            os.fdopen(theirs, "wb", buffering=0) as output,
            running(stdin=input) as program,
        ):
            assert program.stdout is not None
            for line in (b"one\n", b"two\n"):
                output.write(line)
                assert program.stdout.readline() == line
            output.close()
            assert program.wait(TIMEOUT) == 0

    def test_input_is_not_read_faster_than_the_server_takes_it() -> None:
        limit = 100_000_000
        with EchoServer(compression=False) as server, running(server.url) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            server.send("open")
            assert program.stdout.readline() == b"open\n"
            server.stall()
            pipe = program.stdin.fileno()
            fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_NONBLOCK)
            taken = 0
            while taken < limit and select.select([], [pipe], [], 1.0)[1]:
                taken += os.write(pipe, b"x" * 4095 + b"\n")
            assert taken < limit  # what it has read and not sent would fill the memory
