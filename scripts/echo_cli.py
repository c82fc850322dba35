"""The command ``bws``: talk to a WebSocket server from a terminal or a pipe.

It uses only what ``bws`` makes public. In a checkout ``python scripts/echo_cli.py`` runs it too.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import threading
import types
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

if not __package__:
    # Run as a file. Its neighbours are imported relatively, so it needs a package to be in.
    _here = Path(__file__).resolve().parent
    if importlib.util.find_spec("bws") is None:
        sys.path.insert(0, str(_here.parent))
    __package__ = "bws_cli"
    _package = types.ModuleType(__package__)
    _package.__path__ = [str(_here)]
    sys.modules[__package__] = _package

from bws.testing import EchoServer

from . import _prompt
from ._format import escaped
from ._options import Options, as_options, parse
from ._output import Output, is_terminal, release_stdout
from ._session import INTERRUPTED, NOT_CONNECTED, USAGE, Session, start

__all__ = ["main"]

GOODBYE = 1.0  # s that the closing handshake is given after Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit status: 0 clean, 1 could not connect, 2 wrong usage, 3 closed abnormally, 4 timed out or what was
        expected did not come, 130 Ctrl-C.
    """
    try:
        options = parse(argv)
    except SystemExit as end:  # argparse has said all there is to say
        release_stdout()
        return end.code if isinstance(end.code, int) else USAGE
    try:
        return serve(options, *options.serve) if options.serve else talk(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, TypeError) as error:  # of bws.WebSocket
        return complain(ValueError(as_options(str(error))), USAGE)
    except ImportError as error:  # of the echo server; the extra of this program is the one to name
        needed = f'without a URL, and with --serve, this needs: pip install "bws[cli]" ({error.__cause__ or error})'
        return complain(ImportError(needed), NOT_CONNECTED)
    except (NotImplementedError, OSError) as error:
        return complain(error, NOT_CONNECTED)
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            return INTERRUPTED  # see start(): of the server's thread
        raise


def complain(error: Exception, status: int) -> int:
    if sys.stderr is not None:
        print(f"bws: {escaped(str(error))}", file=sys.stderr)
    return status


def serve(options: Options, host: str, port: int) -> int:
    """Be an echo server until Ctrl-C; its URL is the one line on stdout."""
    server = EchoServer(
        host, port, tls=options.server_tls or False, subprotocols=options.subprotocols, keep_messages=False
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(server)
        except OSError as error:
            raise OSError(error.strerror or str(error)) from error  # without the number
        print(server.url, flush=True)
        while True:
            threading.Event().wait(1.0)  # without an end Windows would not notice Ctrl-C


def talk(options: Options) -> int:
    """Talk to the server of the command line, or to one of our own."""
    interactive = not options.execute and is_terminal(sys.stdin) and is_terminal(sys.stdout)
    output = Output(options.format, jsonl=options.jsonl, interactive=interactive)
    with ExitStack() as stack:
        url = options.url
        if url is None:
            server = EchoServer(subprotocols=options.subprotocols, keep_messages=False)
            url = stack.enter_context(server).url
        session = Session(url, options, output, answers=options.url is None, interactive=interactive)
        stack.push(lambda kind, *_: output.end(wait=kind is not KeyboardInterrupt))
        try:
            if not session.connect():
                return NOT_CONNECTED
            if interactive:
                _prompt.talk(session)
                return session.finish(None)
            reader = threading.Thread(target=session.feed, args=(texts(options),), name="cli input", daemon=True)
            start(reader)
            session.wait()
            return session.finish(reader)
        except KeyboardInterrupt:
            session.ws.close()
            session.ws.wait_closed(GOODBYE)
            raise


def texts(options: Options) -> Iterable[str]:
    """What is to be sent."""
    if not options.execute:
        return _prompt.lines(sys.stdin)
    if options.latency and options.count is not None:
        return itertools.cycle(options.execute)
    return options.execute


if __name__ == "__main__":
    sys.exit(main())
