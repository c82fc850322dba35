"""`python -m tests.conformance.autobahn`: bws as the echo client of the Autobahn TestSuite's fuzzing server."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from . import wstest
from .clients import CLIENTS, Unreachable, now, version_of
from .judge import ALL_CASES, Result, Run, order, page, table, write

MODES = ("thread", "dispatch")
PAGE = wstest.ROOT / "docs" / "conformance.md"
MARKS = ("<!-- results: written by make autobahn -->", "<!-- end of results -->")
KEPT = wstest.CACHE / "results"  # the last full run of each client
DEADLINE = 300.0  # seconds for one case; the slowest took 14 on two cores, and 116 on the same when they were busy
QUICK = (
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.2.*", "6.3.*", "6.4.*", "6.22.*", "6.23.*", "7.*", "9.1.1", "9.2.1",
    "9.3.1", "9.5.1", "9.7.1", "10.*", "12.1.1", "12.1.4", "12.2.5", "12.3.3", "12.5.8", "13.1.3", "13.2.3", "13.3.3",
    "13.4.3", "13.5.3", "13.6.3", "13.7.3",
)  # fmt: skip


@dataclass
class Work:
    """What is left to do, for several threads, each with a server of its own."""

    left: deque[tuple[str, int]]  # agent and number of the case
    deadline: float
    total: int
    hung: set[tuple[str, str]] = field(default_factory=set)  # agent and case
    failure: BaseException | None = None

    def run(self, server: wstest.FuzzingServer) -> None:
        """Run cases until there are none left; a failure ends all threads."""
        try:
            with contextlib.suppress(IndexError):
                while self.failure is None:
                    self.case(server, *self.left.popleft())
            if self.failure is None:
                ask(f"{server.url}/updateReports?agent=x", timeout=300)
        except BaseException as exc:
            self.failure = exc

    def case(self, server: wstest.FuzzingServer, agent: str, number: int) -> None:
        client, _ = CLIENTS[agent]
        url = f"{server.url}/runCase?case={number}&agent={quote(agent)}"
        try:
            over = client(url, self.deadline)
        except Unreachable:
            server.check()
            raise
        if not over:
            name = json.loads(ask(f"{server.url}/getCaseInfo?case={number}", 60))["id"]
            self.hung.add((agent, name))
            say(f"{agent}: case {name} was not over after {self.deadline:.0f} s")
        done = self.total - len(self.left)
        if done % 50 == 0:
            say(f"{done} of {self.total} done")


def ask(url: str, timeout: float) -> str:
    """The message that the server sends before it closes, or ''.

    Raises:
        Unreachable: There is no connection, or it does not end.
    """
    import bws

    got: list[str] = []
    errors: list[str] = []
    ws = bws.WebSocket(url)
    ws.bind("message", lambda evt: got.append(evt.data))
    ws.bind("error", lambda evt: errors.append(evt.message))
    if not ws.wait_closed(timeout) or errors:
        ws.close()
        raise Unreachable(f"{url}: {'; '.join(errors) or f'not over after {timeout:g} s'}")
    return got[0] if got else ""


def run_all(words: Sequence[str], agents: Sequence[str], args: argparse.Namespace) -> dict[str, list[Result]]:
    """The results of each agent, in order of the cases' numbers."""
    cases = QUICK if args.quick else args.cases.split(",")
    jobs = 1 if args.timing else args.jobs
    with wstest.servers(words, cases, jobs) as running:
        count = int(ask(f"{running[0].url}/getCaseCount", 60))
        if not count:
            raise ValueError(f"no case matches {args.cases}")
        numbers = [(agent, number) for agent in agents for number in range(1, count + 1)]
        say(f"{count} cases for each of: {', '.join(agents)}")
        work = Work(deque(numbers), args.deadline, len(numbers))
        threads = [threading.Thread(target=work.run, args=(server,), daemon=True) for server in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if work.failure is not None:
            raise work.failure
        names = [json.loads(ask(f"{running[0].url}/getCaseInfo?case={n}", 60))["id"] for n in range(1, count + 1)]
        results = collected(agents, names, running, work)
        if args.retry and (again := defective(results, names)):
            say(f"Once more, one at a time: {', '.join(f'{names[number - 1]} ({agent})' for agent, number in again)}")
            work = Work(deque(again), args.deadline, len(again))
            work.run(running[-1])
            if work.failure is not None:
                raise work.failure
            results = collected(agents, names, running, work)
    return results


def collected(
    agents: Sequence[str], names: Sequence[str], running: Sequence[wstest.FuzzingServer], work: Work
) -> dict[str, list[Result]]:
    """The results of each agent; the last server's take precedence."""
    reports = [server.results() for server in running]
    return {agent: merged(agent, names, reports, work.hung) for agent in agents}


def defective(results: dict[str, list[Result]], names: Sequence[str]) -> list[tuple[str, int]]:
    """Agent and number of the cases that are not as they should be."""
    return [
        (agent, names.index(result.case) + 1)
        for agent, of_agent in results.items()
        for result in of_agent
        if result.defect(agent == "dispatch")
    ]


def merged(agent: str, names: Sequence[str], reports: Sequence[dict[str, dict[str, dict[str, object]]]],
           hung: set[tuple[str, str]]) -> list[Result]:  # fmt: skip
    """What the servers together say of one agent; a case that none reported is MISSING."""
    found = {}
    for report in reports:
        found.update(report.get(agent, {}))
    results = []
    for name in sorted(names, key=order):
        facts = found.get(name, {})
        behavior = str(facts.get("behavior", "MISSING"))
        closing = str(facts.get("behaviorClose", "MISSING"))
        seconds = float(str(facts.get("duration", 0))) / 1000
        results.append(Result(name, behavior, closing, seconds, (agent, name) in hung))
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status is 1 when bws did anything wrong, 2 when the suite could not be run."""
    args = arguments().parse_args(argv)
    if args.write_docs == "kept":
        return write_docs()
    if args.without_speed:
        sys.modules["websockets"] = None  # type: ignore[assignment]  # as if it were not installed
    agents = list(args.client or args.mode or MODES)
    try:
        words = wstest.command()
        suite = wstest.version(words)
        results = run_all(words, agents, args)
    except (wstest.Missing, Unreachable, ValueError) as exc:
        if args.if_available and isinstance(exc, wstest.Missing):
            print(f"The Autobahn TestSuite was not run: {str(exc).splitlines()[0]}")
            return 0
        print(exc, file=sys.stderr)
        return 2
    runs = [
        Run(shown(agent, args.without_speed), version_of(agent), agent == "dispatch", suite, now(), machine(), of_agent)
        for agent, of_agent in results.items()
    ]
    for run in runs:
        keep(run)
        print(table(run), end="\n\n")
        if args.timing:
            seconds = sum(result.seconds for result in run.results if result.group == "9")
            print(f"{run.client}: the cases 9.* took {seconds:.1f} s\n")
    if args.json:
        args.json.write_text(json.dumps([run.as_json() for run in runs], indent=1) + "\n", encoding="utf-8")
    defects = [f"{run.client}: {defect}" for run in runs for defect in run.defects()]
    print("\n".join(defects) or "No defect.")
    if args.write_docs:
        write_docs()
    return 1 if any(defect.startswith("bws") for defect in defects) else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.autobahn",
        description="Run the Autobahn TestSuite against bws, and print what it found.",
    )
    parser.add_argument("--cases", default="*", metavar="PATTERN,...", help="such as '1.*,7.*'; default: all")
    parser.add_argument("--quick", action="store_true", help="a selection of all groups, about a minute")
    parser.add_argument("--mode", action="append", choices=MODES, help="where bws calls its handlers; default: both")
    parser.add_argument("--client", action="append", choices=list(CLIENTS), help="another client than bws, to compare")
    parser.add_argument("--without-speed", action="store_true", help="as if bws[speed] were not installed")
    parser.add_argument("--jobs", type=int, default=2, choices=range(1, 17), metavar="N", help="servers; default: 2")
    parser.add_argument("--deadline", type=float, default=DEADLINE, metavar="S", help=f"of a case; default: {DEADLINE}")
    parser.add_argument(
        "--retry", action="store_true", help="what is not right is run once more: some cases allow one second"
    )
    parser.add_argument("--timing", action="store_true", help="print the sum of 9.*; one case at a time")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every result there")
    parser.add_argument("--if-available", action="store_true", help="wstest cannot be had: say so, and succeed")
    parser.add_argument(
        "--write-docs",
        nargs="?",
        const="run",
        choices=["run", "kept"],
        help="put the last full run of each client into docs/conformance.md; kept: run nothing now",
    )
    return parser


def shown(agent: str, without_speed: bool) -> str:
    if agent not in MODES:
        return agent
    return f"bws, {agent} mode" + (", without bws[speed]" if without_speed else "")


def machine() -> str:
    return f"{os.cpu_count()} cores {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def keep(run: Run) -> None:
    """Full runs are kept for the page."""
    if len(run.results) == ALL_CASES:
        KEPT.mkdir(parents=True, exist_ok=True)
        file = KEPT / ("".join(c if c.isalnum() else "-" for c in run.client) + ".json")
        file.write_text(json.dumps(run.as_json(), indent=1) + "\n", encoding="utf-8")


def write_docs() -> int:
    runs = [Run.from_json(json.loads(file.read_text(encoding="utf-8"))) for file in sorted(KEPT.glob("*.json"))]
    if not runs:
        print("There is no full run to write about.", file=sys.stderr)
        return 2
    runs.sort(key=lambda run: (not run.client.startswith("bws"), run.client))
    write(PAGE, MARKS, page(runs))
    print(f"Written to {PAGE}")
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
