"""The prompt on a terminal, and standard input as lines."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._session import Session, start

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History

COMMANDS = {
    "/ping": "/ping [TEXT]: send a ping, and tell when the answer comes",
    "/close": "/close [CODE [REASON]]: close, with a code of 1000 or 3000-4999",
    "/quit": "/quit: close and leave; so does the end of input (Ctrl-D)",
    "/help": "/help: this; a message that starts with a slash is typed with two",
}
PROMPT = "> "
AHEAD = 1 << 20  # characters that prompt_toolkit may have before it is waited for
_PAUSE = 0.25  # s; it writes to the terminal five times a second
_CHUNK = 65536


def lines(stream: Any) -> Iterator[str]:
    """The lines of standard input as they come, without their ends.

    It reads below Python's buffer: a thread that waits inside it keeps the interpreter from ending.
    """
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if raw is None:
        return
    parts: list[bytes] = []
    while chunk := _read(raw):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield _text(b"".join([*parts, end]))
            parts.clear()
        if rest:
            parts.append(rest)
    if parts:
        yield _text(b"".join(parts))


def _read(raw: Any) -> bytes:
    while True:
        with suppress(OSError, ValueError):  # an input that was closed has ended
            chunk: bytes | None = raw.read(_CHUNK)
            if chunk is not None:
                return chunk
            select.select([raw], [], [])  # somebody has made it non-blocking
            continue
        return b""


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


def obey(session: Session, line: str) -> bool:
    """Do what a person has typed: a command, or a message to send.

    Returns:
        False when that was the last line.
    """
    if not line:
        return True
    if not line.startswith("/") or line.startswith("//"):
        try:
            return session.send(session.options.format.read(line.removeprefix("/")))
        except ValueError as error:
            session.output.note(str(error))
            return True
    command, _, rest = line.partition(" ")
    try:
        if command == "/quit":
            return False
        if command == "/close":
            code, _, reason = rest.strip().partition(" ")
            if code and not code.isdecimal():
                raise ValueError(f"the code comes first, and is a number, not {code!r}")
            session.close(int(code) if code else None, reason or None)
        elif command == "/ping":
            session.ws.ping(rest.encode(), lambda s: session.output.note(f"pong after {s * 1000:.3f} ms"))
        elif command == "/help":
            for text in COMMANDS.values():
                session.output.note(text)
        else:
            session.output.note(f"there is no command {command}; /help lists them, // sends a slash")
    except ValueError as error:
        session.output.note(f"{command}: {error}")
    return True


def talk(session: Session) -> None:
    """Read what a person types until there is no more of it, or the connection has ended."""
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.utils import is_dumb_terminal
    except ImportError:
        _talk_plainly(session)
        return
    if is_dumb_terminal():  # where it would write over the line that is being typed
        _talk_plainly(session)
    else:
        prompt: PromptSession[str] = PromptSession(
            history=_history(),
            completer=_completer(),
            complete_while_typing=False,  # what is typed is mostly no command
            reserve_space_for_menu=len(COMMANDS),
        )
        _talk_nicely(session, prompt)


def _talk_plainly(session: Session) -> None:
    def read() -> None:
        for line in lines(sys.stdin):
            if not obey(session, line):
                break
            session.output.start_prompt(PROMPT)
        session.stop()

    session.output.start_prompt(PROMPT)
    start(threading.Thread(target=read, name="cli input", daemon=True))
    session.wait()


def _talk_nicely(session: Session, prompt: PromptSession[str]) -> None:
    from prompt_toolkit.patch_stdout import patch_stdout

    over = threading.Event()

    def leave() -> None:
        if prompt.app.is_running and not prompt.app.is_done:
            prompt.app.exit(exception=EOFError())

    def watch() -> None:
        session.wait()
        over.set()
        loop = prompt.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(leave)

    handed = 0

    def pace(size: int) -> None:
        """Wait for the terminal, which gets the text later: a slow one holds up the server, and fills no memory."""
        nonlocal handed
        handed += size
        loop = prompt.app.loop
        if handed < AHEAD or loop is None:
            return
        handed = 0
        taken = threading.Event()
        with suppress(RuntimeError):  # it was closed just now
            loop.call_soon_threadsafe(loop.call_later, _PAUSE, taken.set)
        while not taken.wait(0.1) and not over.is_set() and prompt.app.loop is loop:
            pass

    def check() -> None:
        if over.is_set():  # between two prompts
            leave()

    watcher = threading.Thread(target=watch, name="cli watch", daemon=True)
    session.output.pace = pace
    with patch_stdout(raw=True):
        start(watcher)
        try:
            while not over.is_set() and obey(session, prompt.prompt(PROMPT, pre_run=check)):
                pass
        except EOFError:
            pass
        session.stop()
        watcher.join()


def _completer() -> Any:
    from prompt_toolkit.completion import WordCompleter

    return WordCompleter(list(COMMANDS), sentence=True)


def _history() -> History:
    """What was typed earlier; in a file that nobody else can read, if there can be one."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        file = Path(state) / "bws" / "history"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except (OSError, RuntimeError):  # read-only, or nobody's home
        return InMemoryHistory()

    class Typed(FileHistory):
        def store_string(self, string: str) -> None:
            # What was typed may be no UTF-8, and the disk may be full: the message is sent all the same.
            with suppress(OSError, ValueError):
                super().store_string(string.encode("utf-8", "replace").decode())

    return Typed(str(file))
