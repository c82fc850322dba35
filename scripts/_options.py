"""The command line of ``bws``: what may stand on it, and what it means."""

from __future__ import annotations

import argparse
import math
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import bws

from ._format import Format

ABOUT = """\
Talk to the WebSocket server at URL (ws://... or wss://...), or to an echo
server that is started for it. In a pipe each line of input is a message, and
each message that arrives is a line of output; notes go to stderr."""

EPILOG = """\
Exit status: 0 clean, 1 could not connect, 2 usage, 3 closed abnormally,
4 timed out or what was expected did not come, 130 Ctrl-C."""

NEED_TLS = ("cafile", "cert", "key", "insecure")
NEED_URL = ("proxy", *NEED_TLS)
NOT_FOR_SERVE = (
    "execute", "expect", "count", "wait", "latency", "hex", "base64", "json", "jsonl",
    "header", "origin", "cookie", "proxy", "ping", "cafile", "insecure",
)  # fmt: skip

PEM = "a PEM file with -----BEGIN"

# How bws.WebSocket begins to say what it refuses, and how the command line says it.
ARGUMENTS = {
    r"url ": "URL ",
    r"protocols: ": "--subprotocol ",
    r"headers: ": "-H ",
    r"headers\[([^\]]+)\]": r"-H \1",
    r"headers has (\S+), which (origin|cookie)= ": r"-H has \1, which --\2 ",
    r"headers has (\S+), which user:password@ in url ": r"-H has \1, which user:password@ in the URL ",
    r"(origin|cookie): ": r"--\1: ",
    r"origin=": "--origin ",
    r"proxy must be .*? a URL such as \S+; ": "--proxy must be a URL such as http://user:pass@host:8080, or none; ",
}


@dataclass(frozen=True)
class Options:
    """The command line, checked.

    Attributes:
        url: The server; None for one of our own.
        serve: Host and port to serve on instead of talking.
        execute: What ``-x`` sends; empty to read standard input.
        expect: Messages that must come, in this order.
        count: The number of messages after which it stops.
        wait: Seconds to wait for (further) replies; None for the default of the situation.
        subprotocols: Those to ask for, or to speak as a server.
        websocket: Further arguments of ``bws.WebSocket``.
        server_tls: The server's side of TLS, for ``serve``.
        format: How messages are typed and shown.
        latency: Whether to send one message at a time and measure.
        jsonl: Whether to print events as JSON.
    """

    url: str | None
    serve: tuple[str, int] | None
    execute: tuple[str, ...]
    expect: tuple[str, ...]
    count: int | None
    wait: float | None
    subprotocols: tuple[str, ...]
    format: Format
    latency: bool
    jsonl: bool
    websocket: dict[str, Any] = field(default_factory=dict)
    server_tls: ssl.SSLContext | None = None

    @property
    def has_goal(self) -> bool:
        """Whether the command line says when it is done."""
        return self.count is not None or bool(self.expect)


def parse(argv: Sequence[str] | None) -> Options:
    """Read the command line; ``SystemExit`` (2, or 0 for ``--help``) when that is the end of it."""
    parser = make_parser()
    given = parser.parse_args(argv)
    if given.serve is not None:
        refuse(parser, given, NOT_FOR_SERVE, "does not go with --serve")
        if given.url is not None:
            parser.error("--serve takes no URL")
    elif given.url is None:
        refuse(parser, given, NEED_URL, "needs a URL")
    elif plain := re.match(r"\s*(ws|http):", given.url, re.IGNORECASE):
        why = f"needs a wss: URL, and {plain[1].lower()}: is not encrypted; use wss:// or drop the option"
        refuse(parser, given, NEED_TLS, why)
    chosen = Format(next((name for name in ("hex", "base64", "json") if getattr(given, name)), "text"))
    for option, texts in (("-x", given.execute), ("--expect", given.expect)):
        for text in texts:
            try:
                chosen.read(text)
            except ValueError as error:
                parser.error(f"{option} {text!r}: {error}")
    return Options(
        url=given.url,
        serve=given.serve,
        execute=tuple(given.execute),
        expect=tuple(given.expect),
        count=given.count,
        wait=given.wait,
        subprotocols=tuple(given.subprotocol),
        format=chosen,
        latency=given.latency,
        jsonl=given.jsonl,
        websocket={} if given.serve else websocket_options(parser, given),
        server_tls=server_tls(parser, given) if given.serve else None,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bws", usage="bws [options] [URL]", description=ABOUT, epilog=EPILOG, formatter_class=Layout,
        add_help=False, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("url", nargs="?", help=argparse.SUPPRESS)

    messages = parser.add_argument_group("messages")
    add = messages.add_argument
    add("-x", dest="execute", action="append", default=[], metavar="TEXT", help="send TEXT, not stdin (repeatable)")
    add("--expect", action="append", default=[], metavar="TEXT", help="stop when TEXT has come (repeatable, in order)")
    add("--count", type=positive(int), metavar="N", help="stop after N messages")
    add("--wait", type=positive(float), metavar="S", help="stop after S s of silence (1; 10 if more must come)")
    add("--latency", action="store_true", help="one at a time, -x over and over until --count; times")
    form = messages.add_mutually_exclusive_group().add_argument
    form("--hex", action="store_true", help="binary messages, typed and shown in hexadecimal")
    form("--base64", action="store_true", help="binary messages, typed and shown in Base64")
    form("--json", action="store_true", help="JSON messages, checked and laid out")
    add("--jsonl", action="store_true", help="show every event as a line of JSON")

    add = parser.add_argument_group("connection").add_argument
    add("-H", dest="header", action="append", default=[], type=header, metavar="'NAME: VALUE'", help="request header")
    add("--subprotocol", action="append", default=[], metavar="NAME", help="ask for a subprotocol (repeatable)")
    add("--origin", metavar="URL", help="the Origin header; '' sends none")
    add("--cookie", metavar="NAME=VALUE", help="the Cookie header")
    add("--proxy", type=proxy, metavar="URL", help="http://..., socks5h://..., or none (the environment's)")
    add("--ping", type=positive(float), metavar="S", help="ping every S s; give up after S s without answer")
    add("--cafile", type=file, metavar="FILE", help="trust these certificates, not the system's")
    add("--cert", type=file, metavar="FILE", help="the certificate to show")
    add("--key", type=file, metavar="FILE", help="its private key, if it is in another file")
    add("--insecure", action="store_true", help="trust any certificate")

    add = parser.add_argument_group("other").add_argument
    add("--serve", type=address, metavar="[HOST:]PORT", help="be an echo server until Ctrl-C")
    add("--version", action="version", version=f"bws {bws.__version__}", help="show the version")
    add("-h", "--help", action="help", help="show this")
    return parser


class Layout(argparse.RawDescriptionHelpFormatter):
    """Every option on one line, on a terminal of 80 columns too."""

    def __init__(self, prog: str, **_: Any) -> None:  # Python 3.14 says more
        super().__init__(prog, max_help_position=24, width=80)


def positive(kind: type[int] | type[float]) -> Any:
    """A converter for argparse that takes positive numbers only."""

    def convert(text: str) -> int | float:
        number = kind(text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
        return number

    convert.__name__ = kind.__name__  # argparse shows it: "invalid int value"
    return convert


def header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"must be 'NAME: VALUE', not {text!r}")
    return name.strip(), value.strip()


def proxy(text: str) -> str:
    if text != "none" and "://" not in text:
        raise argparse.ArgumentTypeError(f"must be a URL such as http://proxy.example:3128, or none, not {text!r}")
    return text


def file(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a file, not ''")
    return text


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"must be [HOST:]PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def refuse(parser: argparse.ArgumentParser, given: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(given, name) not in (None, False, []):
            flag = {"execute": "-x", "header": "-H"}.get(name, f"--{name}")
            parser.error(f"{flag} {why}")


def websocket_options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``bws.WebSocket`` that were asked for."""
    options: dict[str, Any] = {"headers": given.header} if given.header else {}
    options.update({name: getattr(given, name) for name in ("origin", "cookie") if getattr(given, name) is not None})
    if given.ping is not None:
        options.update(ping_interval=given.ping, ping_timeout=given.ping)
    if given.url is None or given.proxy == "none":
        options["proxy"] = None
    elif given.proxy is not None:
        options["proxy"] = given.proxy
    if given.cafile or given.cert or given.key or given.insecure:
        options["ssl"] = client_tls(parser, given)
    return options


def client_tls(parser: argparse.ArgumentParser, given: argparse.Namespace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.cafile)
    except ssl.SSLError as error:
        parser.error(f"--cafile {given.cafile}: expected {PEM} CERTIFICATE-----; {said(error)}")
    except OSError as error:
        unreadable(parser, "--cafile", given.cafile, error)
    if given.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    load_certificate(parser, context, given)
    return context


def server_tls(parser: argparse.ArgumentParser, given: argparse.Namespace) -> ssl.SSLContext | None:
    if not (given.cert or given.key):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(parser, context, given)
    return context


def load_certificate(parser: argparse.ArgumentParser, context: ssl.SSLContext, given: argparse.Namespace) -> None:
    if given.key and not given.cert:
        parser.error("--key needs --cert")
    if given.cert:
        try:
            context.load_cert_chain(given.cert, given.key)
        except ssl.SSLError as error:
            parser.error(why_no_certificate(given.cert, given.key, error))
        except OSError as error:  # it does not say of which file
            readable = given.key and os.path.isfile(given.cert) and os.access(given.cert, os.R_OK)
            unreadable(parser, *(("--key", given.key) if readable else ("--cert", given.cert)), error)


def why_no_certificate(cert: str, key: str | None, error: ssl.SSLError) -> str:
    """What is wrong with the files of ``--cert`` and ``--key``; OpenSSL says of most of it no more than ``PEM lib``."""
    if not has(cert, b"CERTIFICATE"):
        return f"--cert {cert}: there is no certificate in it; expected {PEM} CERTIFICATE-----"
    if not has(key or cert, b"PRIVATE KEY"):
        if key is None:
            return f"--cert {cert}: there is no private key in it; name the file that has it with --key"
        return f"--key {key}: there is no private key in it; expected {PEM} PRIVATE KEY-----"
    where = f"--cert {cert}" if key is None else f"--cert {cert} --key {key}"
    return f"{where}: expected a PEM certificate and the private key that belongs to it; {said(error)}"


def has(file: str, what: bytes) -> bool:
    """Whether a PEM file has such a part; of what can be read once only, such as a pipe, it is believed."""
    path = Path(file)
    return (
        not path.is_file() or re.search(rb"-----BEGIN ([A-Z0-9]+ )*" + what + b"-----", path.read_bytes()) is not None
    )


def said(error: ssl.SSLError) -> str:
    """The words of OpenSSL, without the line of C."""
    return "OpenSSL says: " + re.sub(r" \(\w+\.c:\d+\)$", "", error.strerror or str(error))


def unreadable(parser: argparse.ArgumentParser, option: str, file: str, error: OSError) -> NoReturn:
    parser.error(f"{option} {file}: {error.strerror or error}")


def as_options(complaint: str) -> str:
    """What ``bws.WebSocket`` says of an argument, said of the option that it comes from."""
    for argument, option in ARGUMENTS.items():
        told, found = re.subn(rf"\A{argument}", option, complaint)
        if found:
            return told
    return complaint
