"""wstest, the program of the Autobahn TestSuite: found, or built with a CPython 2.7, and run as a fuzzing server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["CACHE", "FuzzingServer", "Missing", "command", "version"]

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".autobahn"  # what was built, and the reports; git ignores it
BUILD_TIMEOUT = 480.0  # seconds; it takes one minute on an idle machine
START_TIMEOUT = 60.0  # seconds until the server listens

# The newest versions that work together under Python 2.7. --no-build-isolation: pip would take build tools of today.
STEPS: tuple[tuple[str, ...], ...] = (
    ("incremental==16.10.1",),
    (
        "pyOpenSSL==19.1.0", "cryptography==3.3.2", "setuptools==44.0.0", "txaio==2.1.0", "zope.interface==4.6.0",
        "jinja2==2.11.3", "markupsafe==1.1.1", "Werkzeug==1.0.1", "klein==17.10.0", "service_identity==18.1.0",
        "unittest2==1.1.0", "six==1.16.0",
    ),
    ("--no-build-isolation", "Twisted==19.10.0"),
    ("--no-build-isolation", "autobahn[twisted,accelerate]==0.10.9"),
    ("--no-build-isolation", "--no-deps", "autobahntestsuite==25.10.1"),
)  # fmt: skip

HOW = """There is no wstest, and no CPython 2.7 to build it with. One of these helps:
  - WSTEST=/path/to/wstest, or a command that runs it, such as
    WSTEST="docker run --rm --init --network=host -v $PWD:$PWD -w $PWD crossbario/autobahn-testsuite wstest"
  - a CPython 2.7: `pyenv install 2.7.18`, or PYTHON27=/path/to/python2.7; the network is needed too"""


class Missing(Exception):
    """wstest cannot be had here."""


def command() -> list[str]:
    """How to run wstest: $WSTEST, or what was built into the cache, now or before.

    Raises:
        Missing: It is not there and cannot be built.
    """
    given = os.environ.get("WSTEST")
    if given:
        words = shlex.split(given)
        if shutil.which(words[0]) is None:
            raise Missing(f"WSTEST={given!r}: there is no program {words[0]!r}")
        return words
    folder = CACHE / "wstest"
    program, stamp = folder / "bin" / "wstest", folder / ".built"
    recipe = json.dumps(STEPS)
    if not (program.is_file() and stamp.is_file() and stamp.read_text() == recipe):
        python = python27()
        if python is None:
            raise Missing(HOW)
        build(python, folder)
        stamp.write_text(recipe)
    return [str(program)]


def python27() -> str | None:
    """A CPython 2.7: $PYTHON27, one in PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [os.environ.get("PYTHON27"), "python2.7", "python2"]
    candidates += sorted(map(str, pyenv.glob("2.7*/bin/python2.7")), reverse=True)
    probe = "import sys, platform; print(platform.python_implementation(), sys.version_info[:2] == (2, 7))"
    for candidate in candidates:
        path = shutil.which(candidate) if candidate else None
        if path is None:
            continue
        done = subprocess.run([path, "-c", probe], capture_output=True, text=True, check=False)
        if "CPython" in done.stdout and "True" in done.stdout:  # pyenv's shim is there for interpreters it has not
            return path
    return None


def build(python: str, folder: Path) -> None:
    """Make an environment with wstest in `folder`; takes about a minute.

    Raises:
        Missing: A step failed.
    """
    print(f"Building wstest with {python} into {folder}", file=sys.stderr, flush=True)
    maker = CACHE / "virtualenv"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(maker, ignore_errors=True)
    CACHE.mkdir(exist_ok=True)
    end = time.monotonic() + BUILD_TIMEOUT
    _step(end, [sys.executable, "-m", "venv", maker])
    # The last line of virtualenv that makes environments for Python 2.
    _step(end, [maker / "bin" / "python", "-m", "pip", "install", "virtualenv<20.22"])
    _step(end, [maker / "bin" / "python", "-m", "virtualenv", "-p", python, folder])
    for step in STEPS:
        try:
            _step(end, [folder / "bin" / "python", "-m", "pip", "install", *step])
        except Missing:
            if not any("accelerate" in word for word in step):
                raise
            # Without a C compiler it is slower, and the same otherwise.
            _step(
                end, [folder / "bin" / "python", "-m", "pip", "install", *(w.replace(",accelerate", "") for w in step)]
            )
    _step(end, [folder / "bin" / "wstest", "-a"])


def _step(end: float, words: Sequence[str | Path]) -> None:
    shown = shlex.join(map(str, words))
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            timeout=max(1.0, end - time.monotonic()),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Missing(f"wstest could not be built: {shown}: {exc}") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.strip() and "DEPRECATION" not in line]
        raise Missing(f"wstest could not be built (is the network there?): {shown} failed:\n" + "\n".join(errors[-6:]))


def version(words: Sequence[str]) -> str:
    """The version of the TestSuite.

    Raises:
        Missing: wstest does not run.
    """
    done = subprocess.run([*words, "-a"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"AutobahnTestSuite ([0-9.]+)", done.stdout)
    if found is None:
        raise Missing(f"{shlex.join(words)} does not run:\n{(done.stdout + done.stderr).strip()[-600:]}")
    return found[1]


class FuzzingServer:
    """A running `wstest -m fuzzingserver` on a free port.

    Attributes:
        url: Where it listens, without a slash at the end.
    """

    def __init__(self, words: Sequence[str], cases: Sequence[str], folder: Path) -> None:
        self._folder = folder
        self._log = folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self._port}"
        folder.mkdir(parents=True)
        spec = folder / "spec.json"
        spec.write_text(
            json.dumps(
                {
                    "url": self.url,
                    "outdir": str(folder / "reports"),
                    "cases": list(cases),
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*words, "-m", "fuzzingserver", "-s", str(spec), "-u", "0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def wait(self) -> None:
        """Wait until it listens.

        Raises:
            Missing: It ended, or does not listen in time.
        """
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end:
            self.check()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            time.sleep(0.1)  # between two looks; nothing tells when another program listens
        raise Missing(f"wstest does not listen after {START_TIMEOUT:.0f} s:\n{self._end_of_log()}")

    def check(self) -> None:
        """See that it runs.

        Raises:
            Missing: It has ended.
        """
        status = self._process.poll()
        if status is not None:
            raise Missing(f"wstest ended with status {status}:\n{self._end_of_log()}")

    def results(self) -> dict[str, dict[str, dict[str, object]]]:
        """What it has reported: agent, case, and the facts."""
        index = self._folder / "reports" / "index.json"
        found: dict[str, dict[str, dict[str, object]]] = json.loads(index.read_text()) if index.is_file() else {}
        return found

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end_of_log(self) -> str:
        return self._log.read_text(errors="replace")[-1000:].strip()


@contextlib.contextmanager
def servers(words: Sequence[str], cases: Sequence[str], number: int) -> Iterator[list[FuzzingServer]]:
    """That many fuzzing servers; each is a single thread and needs most of a core for the large cases."""
    folder = CACHE / f"run-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    running: list[FuzzingServer] = []
    try:
        for i in range(number):
            running.append(FuzzingServer(words, cases, folder / str(i)))
        for server in running:
            server.wait()
        yield running
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
