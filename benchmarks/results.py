"""What a run has found, and on what machine, as it is kept in JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import peers

FILE = "results.json"


@dataclass
class Figure:
    """The figure of one client in one row."""

    median: float
    rounds: list[float]


@dataclass
class Line:
    """A row of the table."""

    title: str
    group: str
    unit: str
    clients: dict[str, Figure] = field(default_factory=dict)


@dataclass
class Results:
    """Everything that a run has found."""

    date: str
    rounds: int
    quick: bool
    machine: dict[str, Any]
    versions: dict[str, str]
    labels: dict[str, str]  # of the clients that took part, in their order
    notes: list[str] = field(default_factory=list)
    rows: dict[str, Line] = field(default_factory=dict)

    def add(self, name: str, title: str, group: str, unit: str, peer: str, rounds: list[float]) -> None:
        line = self.rows.setdefault(name, Line(title, group, unit))
        kept = [float(f"{value:.6g}") for value in rounds]
        line.clients[peer] = Figure(statistics.median(kept), kept)

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["rows"] = {
            name: Line(**{**line, "clients": {peer: Figure(**figure) for peer, figure in line["clients"].items()}})
            for name, line in data["rows"].items()
        }
        return cls(**data)

    @property
    def where(self) -> str:
        """The machine and the run in a line."""
        day, machine = self.date[:10], self.machine
        what = "one round" if self.rounds == 1 else f"medians of {self.rounds} rounds"
        return f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}, Python {machine['python']}, {day}, {what}"


def begin(taking_part: list[peers.Peer], rounds: int, quick: bool) -> Results:
    """Results without figures."""
    return Results(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        rounds=rounds,
        quick=quick,
        machine=machine(),
        versions={
            peer.key: version
            for peer in taking_part
            if "masking" not in peer.features and (version := peers.version(peer))
        },
        labels={peer.key: peer.label for peer in taking_part},
    )


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {
        "cpu": cpu(),
        "cores": os.cpu_count() or 1,
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)  # processes that ran before the first job did
    return found


def cpu() -> str:
    """The model of the processor."""
    try:
        if platform.system() == "Linux":
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, StopIteration, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()
