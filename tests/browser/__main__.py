"""Runs every scenario in Chromium and in CPython and compares; the exit status is 0 when they agree.

python -m tests.browser [--filter WORD] [--verbose]
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import http.server
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.browser import cpython, differences, scenarios
from tests.browser.server import serve
from tests.wire.frames import Seen
from tests.wire.server import ScriptedServer

HERE = pathlib.Path(__file__).parent
BRYTHON = HERE / "node_modules" / "brython"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><title>bws</title>
<script src="brython.js"></script><script src="brython_stdlib.js"></script>
<script>
window.stackOf = error => String(error.stack)
window.octetsOf = data => Array.from(new Uint8Array(data)).join(" ")
</script>
<script type="text/python">import page</script>"""
FILES = {
    "/brython.js": BRYTHON / "brython.js",
    "/brython_stdlib.js": BRYTHON / "brython_stdlib.js",
    "/page.py": HERE / "page.py",
    "/scenarios.py": HERE / "scenarios.py",
}
START = 60.0  # seconds for Brython to be ready

Trace = list[list[Any]]
# takes a scenario's name, the server's URL, one where nobody listens, and what to call when all handlers are bound
Runner = Callable[[str, str, str, Callable[[], object]], Trace]


class Pages(http.server.BaseHTTPRequestHandler):
    """The page and its files."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        known = path == "/" or path in FILES
        body = PAGE.encode() if path == "/" else FILES[path].read_bytes() if known else b""
        kind = "text/html" if path == "/" else "text/javascript" if path.endswith(".js") else "text/plain"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


def missing() -> list[str]:
    """What has to be installed first."""
    lacks = []
    if not chromium():
        lacks.append("Chromium: apt install chromium, or say where it is with CHROMIUM=")
    if not chromedriver():
        lacks.append("its driver: apt install chromium-driver, or say where it is with CHROMEDRIVER=")
    if not FILES["/brython.js"].exists():
        lacks.append(
            f"Brython: npm install --prefix {HERE} (make browser does that when npm is there: apt install npm)"
        )
    with contextlib.suppress(ImportError):
        import selenium  # noqa: F401

        return lacks
    return [*lacks, 'selenium: pip install -e ".[browser]"']


def chromium() -> str | None:
    """Where the browser is."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def chromedriver() -> str | None:
    """Where its driver is."""
    return os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")


@contextlib.contextmanager
def browser() -> Iterator[Runner]:
    """A browser with the page, and the function that runs a scenario in it."""
    from selenium import webdriver
    from selenium.webdriver.support.wait import WebDriverWait

    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=pages.serve_forever, daemon=True)
    thread.start()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium() or ""
    with tempfile.TemporaryDirectory(prefix="bws-browser", ignore_cleanup_errors=True) as profile:
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver()))
        try:
            driver.set_script_timeout(30)
            driver.get(f"http://127.0.0.1:{pages.server_port}/")
            WebDriverWait(driver, START).until(lambda d: d.execute_script("return Boolean(window.runScenario)"))
            print(f"Chromium {driver.capabilities['browserVersion']}, {implementation(driver)}")

            def run(name: str, base: str, refused: str, bound: Callable[[], object]) -> Trace:
                bound()  # a page's program has returned before the first of its events
                trace: Trace = json.loads(driver.execute_async_script("runScenario(...arguments)", name, base, refused))
                return trace

            yield run
        finally:
            driver.quit()
            pages.shutdown()
            pages.server_close()
            thread.join()


def implementation(driver: Any) -> str:
    """Which Brython it is."""
    return "Brython " + ".".join(map(str, driver.execute_script("return __BRYTHON__.implementation.slice(0, 3)")))


def observed(name: str, run: Runner) -> list[str]:
    """Run a scenario against a server of its own: its trace, and what the server saw, a line each."""
    bound = threading.Event()  # on a thread of its own a socket is open before its second handler is bound
    with socket.socket() as unused, ScriptedServer(serve, gate=bound) as server:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        trace = run(name, server.url, f"ws://127.0.0.1:{unused.getsockname()[1]}/", bound.set)
        try:
            seen = server.results(len(server.connections))
        except AssertionError as exc:
            trace.append(["the server", str(exc)])
            seen = []
    failed = any(entry[0] == "error" for entry in trace)
    lines = [json.dumps(entry, ensure_ascii=False) for entry in trace]
    if not hasattr(scenarios.SCENARIOS[name], "needs_tasks"):
        lines += [f"server {n}: {fact}" for n, one in enumerate(seen, 1) for fact in facts(one, failed)]
    return [line.replace(str(server.port), "PORT") for line in lines]


def facts(seen: Seen, failed: bool) -> list[str]:
    """What of a connection both must show the server alike."""
    close = None if seen.close is None else seen.close[0] if failed else list(seen.close)
    facts = {
        seen.request_line: "",
        "Authorization": bool(seen.header("Authorization")),
        "subprotocols": seen.header("Sec-WebSocket-Protocol"),
        "extensions": seen.header("Sec-WebSocket-Extensions"),
        "messages": [shown(data) for data in seen.messages],
        "pongs": [pong.hex() for pong in seen.pongs],
        "close": close,  # of a failure the code alone: the reason is the client's own text
        "after the close": len(seen.after_close),
        "unmasked": len(seen.unmasked),
    }
    return [f"{name} {value}" for name, value in facts.items()]


def shown(data: str | bytes) -> str:
    """A message, if it is not too long."""
    text = data if isinstance(data, str) else data.hex()
    return text if len(text) < 100 else f"{len(text)} of {text[:10]}"


def compare(theirs: list[str], mine: list[str]) -> list[str]:
    """The lines in which they differ, sorted: `+` those of bws, `-` the browser's."""
    return sorted(line for line in difflib.ndiff(theirs, mine) if line[0] in "+-")


def main(argv: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description="Compare bws with Chromium.")
    parser.add_argument("--filter", default="", help="only scenarios with this in their name")
    parser.add_argument("--verbose", action="store_true", help="print the traces")
    args = parser.parse_args(argv)
    if lacks := missing():
        print("make browser needs", *lacks, sep="\n  ", file=sys.stderr)
        return 2
    chosen = [name for name in scenarios.SCENARIOS if args.filter in name]
    wrong, known, began = 0, 0, time.monotonic()
    with browser() as in_browser:
        for name in chosen:
            theirs = observed(name, in_browser)
            if args.verbose:
                print(name, *theirs, sep="\n    ")
            for dispatch in [True] if hasattr(scenarios.SCENARIOS[name], "needs_tasks") else [True, False]:
                mine = observed(name, functools.partial(cpython.run, dispatch=dispatch))
                lines = compare(theirs, mine)
                expected = differences.lines_of(name)
                if lines == expected:
                    known += bool(expected)
                    continue
                wrong += 1
                print(f"DIFFERS {name}, {'with' if dispatch else 'without'} dispatch=", *lines, sep="\n    ")
                if expected:
                    print("  expected", *expected, sep="\n    ")
    took = time.monotonic() - began
    print(f"{len(chosen)} scenarios in {took:.0f} s: {wrong} runs differ, {known} as documented")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
