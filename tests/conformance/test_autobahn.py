"""How `make autobahn` judges what the suite reports, its clients, and what it says when there is no suite."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conformance import autobahn, clients, judge, wstest
from tests.wire.frames import TEXT
from tests.wire.server import Connection, ScriptedServer

TIMEOUT = 50.0  # seconds for one run of the program


def result(case: str = "1.1.1", behavior: str = "OK", closing: str = "OK", hung: bool = False) -> judge.Result:
    return judge.Result(case, behavior, closing, 0.25, hung)


def run_of(*results: judge.Result, client: str = "bws, thread mode", asynchronous: bool = False) -> judge.Run:
    return judge.Run(client, "1.0", asynchronous, "25.10.1", "2026-01-02", "2 cores", list(results))


@pytest.mark.parametrize(
    ("what", "in_thread_mode", "in_dispatch_mode"),
    [
        (result(), False, False),
        (result("7.1.6", "INFORMATIONAL", "INFORMATIONAL"), False, False),
        (result("3.2", "NON-STRICT"), True, False),
        (result("4.1.3", "NON-STRICT"), True, False),
        (result("5.15", "NON-STRICT"), True, True),
        (result("12.1.1", "UNIMPLEMENTED"), True, True),
        (result("1.1.1", "FAILED"), True, True),
        (result("1.1.1", "MISSING"), True, True),
        (result("1.1.1", "OK", "UNCLEAN"), True, True),
        (result("3.2", "NON-STRICT", "WRONG CODE"), True, True),
        (result(hung=True), True, True),
    ],
    ids=lambda value: f"{value.case} {value.behavior}" if isinstance(value, judge.Result) else None,
)
def test_what_is_a_defect(what: judge.Result, in_thread_mode: bool, in_dispatch_mode: bool) -> None:
    assert (what.defect(asynchronous=False) is not None) == in_thread_mode
    assert (what.defect(asynchronous=True) is not None) == in_dispatch_mode


def test_the_reports_of_all_servers_are_one_and_what_none_has_is_missing() -> None:
    def facts(behavior: str) -> dict[str, object]:
        return {"behavior": behavior, "behaviorClose": "OK", "duration": 1500}

    reports: list[dict[str, dict[str, dict[str, object]]]] = [
        {"thread": {"10.1.1": facts("OK")}, "dispatch": {"9.1.1": facts("FAILED")}},
        {"thread": {"9.1.1": facts("NON-STRICT")}},
    ]
    found = autobahn.merged("thread", ["10.1.1", "9.1.1", "9.1.2"], reports, {("thread", "9.1.2")})
    assert [(it.case, it.behavior, it.seconds, it.hung) for it in found] == [
        ("9.1.1", "NON-STRICT", 1.5, False),
        ("9.1.2", "MISSING", 0.0, True),
        ("10.1.1", "OK", 1.5, False),
    ]


def test_what_is_defective_is_known_by_agent_and_number() -> None:
    names = ["1.1.1", "3.2", "9.1.1"]
    results = {
        "thread": [result("1.1.1"), result("3.2", "NON-STRICT"), result("9.1.1")],
        "dispatch": [result("1.1.1"), result("3.2", "NON-STRICT"), result("9.1.1", "FAILED")],
    }
    assert autobahn.defective(results, names) == [("thread", 2), ("dispatch", 3)]


def test_the_table_counts_by_group_and_a_case_that_hung_as_failed() -> None:
    text = judge.table(run_of(result("1.1.1"), result("1.1.2", hung=True), result("12.1.1", "UNIMPLEMENTED")))
    rows = {line.split("  ")[0]: line.split()[-6:] for line in text.splitlines()[2:]}
    assert rows == {
        "1.* framing": ["1", "0", "0", "0", "1", "0"],
        "12.* compression": ["0", "0", "0", "1", "0", "0"],
        "all": ["1", "0", "0", "1", "1", "0"],
    }


def test_a_run_is_the_same_after_it_was_kept() -> None:
    run = run_of(result(), result("3.2", "NON-STRICT"), asynchronous=True)
    assert judge.Run.from_json(run.as_json()) == run


def test_the_page_gets_its_figures_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(autobahn.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    runs = [run_of(result("3.2")), run_of(result("3.2"), client="websockets")]
    for _ in range(2):
        judge.write(page, autobahn.MARKS, judge.page(runs))
        before, inside, after = (
            part
            for half in page.read_text(encoding="utf-8").split(autobahn.MARKS[0])
            for part in half.split(autobahn.MARKS[1])
        )
        assert "517 cases" in before
        assert "make autobahn" in after
        assert inside.strip() == judge.page(runs)
    assert "| websockets 1.0 | 1 | 0 | 0 | 0 | 0 | 0 |" in inside
    with pytest.raises(ValueError, match="must have the lines"):
        judge.write(page, ("<!-- a -->", "<!-- b -->"), "x")


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("WSTEST", "PYTHON27", "PYENV_ROOT")}
    return subprocess.run(
        [sys.executable, "-m", "tests.conformance.autobahn", *args],
        cwd=wstest.ROOT,
        env={**kept, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )


def test_without_wstest_it_fails_and_says_why() -> None:
    done = run("--quick", WSTEST="/no/such/wstest")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no program '/no/such/wstest'" in done.stderr


def test_without_wstest_it_says_so_in_one_line_when_asked_to_go_on() -> None:
    done = run("--quick", "--if-available", WSTEST="/no/such/wstest")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("The Autobahn TestSuite was not run: ")
    assert done.stdout.count("\n") == 1


def test_a_wstest_that_does_not_run_is_told_with_its_last_words() -> None:
    command = f'{sys.executable} -c "print(7 * 6)"'
    done = run(WSTEST=command)
    assert done.returncode == 2
    assert "does not run" in done.stderr
    assert "42" in done.stderr


def test_without_a_cpython_27_it_tells_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WSTEST", "PYTHON27"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(wstest, "CACHE", tmp_path / "cache")
    with pytest.raises(wstest.Missing, match=r"pyenv install 2\.7\.18"):
        wstest.command()
    monkeypatch.setenv("PYTHON27", sys.executable)  # not a 2.7
    with pytest.raises(wstest.Missing, match="PYTHON27="):
        wstest.command()


# Not websocket-client: it leaves TCP open.
@pytest.mark.parametrize("client", [*autobahn.MODES, "websockets"])
def test_a_client_echoes_until_the_server_closes(client: str) -> None:
    def script(c: Connection) -> None:
        c.handshake()
        c.send_message("text")
        c.send_message(b"\x00bytes")
        assert [c.read().payload for _ in range(2)] == [b"text", b"\x00bytes"]
        c.close(1000)

    with ScriptedServer(script) as server:
        assert clients.CLIENTS[client][0](server.url, TIMEOUT)
        assert server.result().messages == ["text", b"\x00bytes"]


@pytest.mark.parametrize("mode", autobahn.MODES)
def test_a_client_gives_up_at_the_deadline(mode: str) -> None:
    given_up = threading.Event()

    def script(c: Connection) -> None:
        c.handshake()
        c.send_message("text")
        assert c.read().opcode == TEXT
        c.wait_for(given_up)

    with ScriptedServer(script) as server:
        assert not clients.CLIENTS[mode][0](server.url, 0.2)
        given_up.set()
        server.result()


@pytest.mark.parametrize("mode", autobahn.MODES)
def test_a_client_that_cannot_connect_says_so(mode: str) -> None:
    with ScriptedServer(lambda c: None) as server:
        url = server.url
    with pytest.raises(clients.Unreachable, match=r"127\.0\.0\.1"):
        clients.CLIENTS[mode][0](url, TIMEOUT)
