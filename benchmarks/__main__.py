"""`python -m benchmarks`: measures, prints the table, writes the results and draws the charts."""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import charts, table
from .jobs import GROUPS, JOBS, Job
from .measure import ROOT, Spec, run
from .peers import PEERS, Peer, missing
from .results import FILE, Results, begin

PUBLISHED = ROOT / "benchmarks" / "results"
SCRATCH = ROOT / "build" / "benchmarks"  # what is not a full run does not take the place of one
PAGE = ROOT / "docs" / "performance.md"
MARKS = ("<!-- figures: written by python -m benchmarks -->", "<!-- end of figures -->")
ROUNDS = 5
BUSY = 0.5  # of the cores: with more than that running before, the figures say little


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    jobs: list[Job]
    taking_part: list[Peer]
    rounds: int
    quick: bool


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status is 1 when a measurement failed."""
    parser = arguments()
    args = parser.parse_args(argv)
    try:
        jobs, wanted = chosen_jobs(args.only, args.quick), chosen_peers(args.clients)
    except ValueError as exc:
        parser.error(str(exc))
    if args.redraw:
        publish(Results.load((args.out or PUBLISHED) / FILE), args.out or PUBLISHED)
        return 0
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    plan = Plan(jobs, [peer for peer in wanted if not missing(peer)], rounds, args.quick)
    results = begin(plan.taking_part, plan.rounds, plan.quick)
    results.notes += warnings(wanted, results)
    failures = measure_all(plan, results)
    results.notes += failures
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a multiplication sign shows a "?"
    print(table.as_text(results))
    full = not (args.quick or args.only or args.clients)
    publish(results, args.out or (PUBLISHED if full else SCRATCH))
    return 1 if failures else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure bws beside other clients.")
    parser.add_argument("--quick", action="store_true", help="a part of the jobs, one round, under a minute")
    parser.add_argument("--rounds", type=int, choices=range(1, 101), metavar="N", help=f"default {ROUNDS}; quick: 1")
    parser.add_argument("--only", metavar="JOB,...", help=f"jobs or groups; groups: {', '.join(GROUPS)}")
    parser.add_argument("--clients", metavar="NAME,...", help=", ".join(PEERS))
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: benchmarks/results, if everything is measured"
    )
    parser.add_argument("--redraw", action="store_true", help="measure nothing; write table and charts of a run again")
    return parser


def chosen_jobs(only: str | None, quick: bool) -> list[Job]:
    """Jobs by name or group.

    Raises:
        ValueError: There is no such job.
    """
    if not only:
        return [job for job in JOBS.values() if job.quick or not quick]
    names = only.split(",")
    if unknown := [name for name in names if name not in JOBS and name not in GROUPS]:
        raise ValueError(f"no job {', '.join(unknown)}; there are {', '.join(JOBS)}")
    return [job for job in JOBS.values() if job.name in names or job.group in names]


def chosen_peers(clients: str | None) -> list[Peer]:
    """Clients by name.

    Raises:
        ValueError: There is no such client.
    """
    if not clients:
        return list(PEERS.values())
    names = [name.replace("-", "_") for name in clients.split(",")]
    if unknown := [name for name in names if name not in PEERS]:
        raise ValueError(f"no client {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return [peer for peer in PEERS.values() if peer.key in names]


def warnings(wanted: list[Peer], results: Results) -> list[str]:
    """What makes the figures less than they should be."""
    found = [f"{peer.label} is not installed: left out" for peer in wanted if missing(peer)]
    if importlib.util.find_spec("wsaccel"):
        found.append("wsaccel is installed and speeds websocket-client up: uninstall it for figures that compare")
    if results.machine.get("load", 0) > BUSY * results.machine["cores"]:
        found.append(f"the machine was busy (load {results.machine['load']}): measure again when it is quiet")
    for note in found:
        say(f"Note: {note}")
    return found


@contextmanager
def server(tls: bool) -> Iterator[dict[str, Any]]:
    """The far end: where it listens."""
    command = [sys.executable, "-m", "benchmarks.server", *(["--tls"] if tls else [])]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def measure_all(plan: Plan, results: Results) -> list[str]:
    """Fill in the results; what failed."""
    failures: list[str] = []
    with server(any("tls" in job.needs for job in plan.jobs)) as where:
        for number, job in enumerate(plan.jobs, 1):
            say(f"[{number}/{len(plan.jobs)}] {job.name}")
            failures += measure_one(job, plan, where, results)
    return failures


def measure_one(job: Job, plan: Plan, where: dict[str, Any], results: Results) -> list[str]:
    """All rounds of a job, the clients in turn."""
    taking_part = [peer for peer in plan.taking_part if job.suits(peer)]
    found: dict[tuple[str, str], list[float]] = {}
    failures: dict[Peer, str] = {}
    for turn in range(plan.rounds):
        for place in range(len(taking_part)):
            # another one begins in each round
            peer = taking_part[(place + turn) % len(taking_part)]
            if peer in failures:
                continue
            spec = Spec(job.name, peer.key, job.count_for(peer, plan.quick), quick=plan.quick, **where)
            try:
                figures = run(spec)
            except RuntimeError as exc:
                failures[peer] = f"{peer.label}, {job.name}: {exc}"
                say(f"Note: {failures[peer]}")
                continue
            for name, figure in figures.items():
                if figure is not None:
                    found.setdefault((name, peer.key), []).append(figure)
    for row in job.figures:
        for peer in taking_part:
            if rounds := found.get((row.name, peer.key)):
                results.add(row.name, row.title, job.group, row.unit, peer.key, rounds)
    return list(failures.values())


def publish(results: Results, folder: Path) -> None:
    """Write results and charts; and the page of the documentation, if they are the ones it shows."""
    written = [results.save(folder), *charts.draw(results, folder)]
    if folder.resolve() == PUBLISHED and PAGE.exists():
        text = PAGE.read_text(encoding="utf-8")
        before, (_, after) = text.split(MARKS[0])[0], text.split(MARKS[1])
        PAGE.write_text(f"{before}{MARKS[0]}\n\n{table.as_markdown(results)}\n\n{MARKS[1]}{after}", encoding="utf-8")
        written.append(PAGE)
    say(f"Wrote {len(written)} files, {written[0]} the first")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
