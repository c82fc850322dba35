"""The stress programs, short. With BWS_STRESS=1 threads get 60 s each; `make soak` and `make load` have the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stress.peer import ROOT

pytest.importorskip("resource", reason="what the programs measure is not there on Windows")

FULL = os.environ.get("BWS_STRESS") == "1"
SECONDS = "60" if FULL else "2"
PATIENCE = 900 if FULL else 170  # s; it is a matter of the machine
PROGRAMS = [
    "tests.stress.threads one",
    "tests.stress.threads one --dispatch --tls",
    "tests.stress.threads one --compress --tls",
    "tests.stress.threads many",
    "tests.stress.threads many --dispatch --compress --tls",
    "tests.stress.load --sockets 300",
]


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run one of them, as strictly as Python can."""
    seconds = ["--seconds", SECONDS] if "threads" in program else []
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", *program.split(), *seconds],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.timeout(1000 if FULL else 180)
def test_many_threads_and_many_sockets_lose_nothing_double_nothing_and_do_not_hang() -> None:
    """They run at the same time: each then also gets the processor at odd moments."""
    with ThreadPoolExecutor(len(PROGRAMS)) as pool:
        for program, done in zip(PROGRAMS, pool.map(run, PROGRAMS), strict=True):
            assert (done.returncode, done.stderr) == (0, ""), f"{program}:\n{done.stdout}\n{done.stderr}"
            assert "passed" in done.stdout
            if FULL:
                print(done.stdout, file=sys.stderr)
