"""Networks that lose, double and reorder packets, and peers that vanish from them (see packets.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.faults.conftest import Ledger

NOT_HERE = 77  # the program's exit status where the machine does not let it have such a network
Run = Callable[..., Any]

ROOT = Path(__file__).parents[2]
OVERHEAD = 10.0  # s; what a machine that is busy with other things may add to a time that was promised

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are a thing of Linux"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def run() -> Run:
    """What a program found out, in a network namespace of its own. All run at once, as they mostly wait."""
    programs: dict[tuple[str, ...], subprocess.Popen[str]] = {}
    for args in (("traffic", "tun"), ("traffic", "netem"), ("vanish", "tun")):
        command = ["unshare", "--net", sys.executable, "-W", "error", "-m", "tests.faults.packets", *args]
        programs[args] = subprocess.Popen(command, cwd=ROOT, stdout=PIPE, stderr=PIPE, text=True)
    try:
        outputs = {args: program.communicate(timeout=100) for args, program in programs.items()}
    finally:
        for program in programs.values():
            with program:
                program.kill()

    def result(*args: str) -> Any:
        out, err = outputs[args]
        if programs[args].returncode == NOT_HERE or "unshare failed" in err:
            pytest.skip(f"no such network here: {err.strip()}")
        assert err == ""
        return json.loads(out)

    return result


@pytest.mark.parametrize("kind", ["tun", "netem"])
def test_packets_that_are_lost_doubled_and_late_cost_no_message(run: Run, kind: str, ledger: Ledger) -> None:
    result = run("traffic", kind)
    wrong = ["not all came back"] * (result["tried"] - result["survived"])
    ledger.add("5 % of packets lost, 2 % doubled, 10 % late", f"both ways, ws, {kind}", result["tried"], wrong)
    if kind == "tun":
        assert min(result["packets"].values()) > 0, f"nothing happened to any packet: {result['packets']}"


def test_a_peer_that_vanishes_is_found_out_by_pings_and_by_tcp_keepalive(run: Run, ledger: Ledger) -> None:
    result = run("vanish", "tun")
    assert result["options"] == {
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 6,
        "TCP_NODELAY": 1,
    }
    pings, keepalive = result["pings"], result["keepalive"]
    assert pings["entries"] == [["error", 3], ["close", 3, 1006, "", False]]
    assert 0.5 <= pings["seconds"] <= 1.5 + OVERHEAD
    # The program lowered the options to 1 s + 2 x 1 s. A connection that is merely lost has no error event.
    assert keepalive["entries"] == [["close", 3, 1006, "", False]]
    assert 1 <= keepalive["seconds"] <= 3 + OVERHEAD
    assert pings["error"] == keepalive["error"] == "TimeoutError"
    ledger.add("peer vanishes, TCP keepalive (lowered) and ping_timeout", "ws, tun", 2, [])
