"""The benchmarks measure, and write what they say they write. How fast anything is is not tested here."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import charts, table
from benchmarks.__main__ import MARKS, PAGE, PUBLISHED
from benchmarks.jobs import GROUPS, JOBS
from benchmarks.peers import PEERS
from benchmarks.results import FILE, Results

ROOT = Path(__file__).parent.parent
TIMEOUT = 50.0  # seconds for one run; it takes one or two


def run(*args: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m benchmarks`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def invented(*peers: str) -> Results:
    """Results with a figure in every row for each of the peers."""
    results = Results(
        date="2026-01-02T03:04:05+00:00",
        rounds=2,
        quick=False,
        machine={"cpu": "Abacus & Sons", "cores": 2, "os": "Linux", "python": "3.10.0"},
        versions={"bws": "1.0"},
        labels={peer: PEERS[peer].label for peer in peers},
    )
    for job in JOBS.values():
        for row in job.figures:
            for place, peer in enumerate(peers, 1):
                results.add(row.name, row.title, job.group, row.unit, peer, [0.001 * place, 0.002 * place])
    return results


def test_a_quick_run_prints_a_table_and_writes_results_and_charts(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    status, stdout, stderr = run("--quick", "--only", "rtt", "--clients", "bws,raw-tcp", "--rounds", "2", "--out", out)
    assert status == 0, stderr
    assert "round trip" in stdout
    assert "Python" in stdout
    results = Results.load(out / FILE)
    assert results.rounds == 2
    assert results.quick
    assert results.machine["cores"] == os.cpu_count()
    assert results.machine["cpu"]
    assert set(results.versions) == {"bws"}
    assert list(results.rows) == ["rtt"]
    clients = results.rows["rtt"].clients
    assert list(clients) == ["bws", "raw_tcp"]
    assert all(len(figure.rounds) == 2 and figure.median > 0 for figure in clients.values())
    for theme in ("light", "dark"):
        ElementTree.parse(out / f"latency-{theme}.svg")
    assert {path.name for path in out.iterdir()} == {FILE, "latency-light.svg", "latency-dark.svg"}


@pytest.mark.parametrize("job", ["recv_1M_utf8", "json_recv_deflate", "send_4K_utf8", "json_send_deflate", "queue_4"])
def test_bws_does_every_kind_of_job(job: str, tmp_path: Path) -> None:
    status, _, stderr = run("--quick", "--only", job, "--clients", "bws", "--out", tmp_path)
    assert status == 0, stderr
    assert Results.load(tmp_path / FILE).rows[job].clients["bws"].median > 0


def test_tls_is_measured_too(tmp_path: Path) -> None:
    status, _, stderr = run("--quick", "--only", "rtt_tls", "--clients", "bws,raw_tcp", "--out", tmp_path)
    assert status == 0, stderr
    assert set(Results.load(tmp_path / FILE).rows["rtt_tls"].clients) == {"bws", "raw_tcp"}


@pytest.mark.parametrize("args", [("--only", "no_such_job"), ("--clients", "netscape"), ("--rounds", "0")])
def test_a_wrong_argument_is_a_usage_error_that_names_it(args: tuple[str, str]) -> None:
    status, stdout, stderr = run(*args)
    assert status == 2
    assert not stdout
    assert args[1] in stderr


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    results = invented("bws", "websockets")
    assert Results.load(results.save(tmp_path)) == results


def test_every_group_has_a_light_and_a_dark_chart_and_so_has_the_overview(tmp_path: Path) -> None:
    written = charts.draw(invented(*PEERS), tmp_path)
    names = {f"{group}-{theme}.svg" for group in [*GROUPS, "overview"] for theme in ("light", "dark")}
    assert {path.name for path in written} == names
    for path in written:
        root = ElementTree.parse(path).getroot()
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        bars = [bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.attrib["class"] == "ours"]
        assert bars
        for bar in bars:
            assert 0 < float(bar.attrib["x"]) + float(bar.attrib["width"]) < width
            assert 0 < float(bar.attrib["y"]) < height
        assert "Abacus &amp; Sons" in path.read_text(encoding="utf-8")


def test_the_table_gives_each_peer_as_a_multiple_of_bws() -> None:
    text = table.as_text(invented("bws", "websockets"))
    line = next(line for line in text.splitlines() if "round trip, 32 B " in line)
    assert line.split()[-5:] == ["1.50", "ms", "3.00", "ms", "2.00\N{MULTIPLICATION SIGN}"]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.00000109, "s", "1.09 µs"),
        (0.0001418, "s", "142 µs"),
        (0.0099994, "s", "10.0 ms"),
        (12.04, "s", "12.0 s"),
        (36.04, "KiB", "36.0 KiB"),
        (2.0, "", "2"),
        (1.004, "", "1"),
        (1.01, "", "1.01"),
    ],
)
def test_a_figure_is_shown_with_three_digits_and_its_unit(value: float, unit: str, shown: str) -> None:
    assert table.amount(value, unit) == shown


def test_the_page_shows_the_published_figures() -> None:
    results = Results.load(PUBLISHED / FILE)
    shown = PAGE.read_text(encoding="utf-8").split(MARKS[0])[1].split(MARKS[1])[0]
    assert shown.strip() == table.as_markdown(results)
    assert not results.quick
    assert results.rounds >= 5


def test_every_chart_that_the_page_shows_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for group in GROUPS:
        for theme in ("light", "dark"):
            name = f"benchmarks/results/{group}-{theme}.svg"
            assert f"../{name}" in text
            assert (ROOT / name).is_file()
