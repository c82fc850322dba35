"""The options of the program scripts/echo_cli.py."""

from __future__ import annotations

import re
import ssl
import sys
import time
import tracemalloc
from array import array
from pathlib import Path

import pytest
import trustme

import bws
from bws.testing import EchoServer
from scripts._format import Format
from scripts._session import statistics
from scripts.echo_cli import main
from tests.program import TIMEOUT, lines_of, run, running

# --- options of the connection ---


def test_options_of_the_request_reach_the_server(echo_server: EchoServer) -> None:
    options = ["-H", "X-One: 1", "-H", "X-Two:a:b ", "--origin", "https://example.org", "--cookie", "a=1; b=2"]
    assert run(f"{echo_server.url}/path?query", *options, "-x", "hi", "--count", "1") == (0, "hi\n", "")
    assert echo_server.path == "/path?query"
    wanted = {"X-One": "1", "X-Two": "a:b", "Origin": "https://example.org", "Cookie": "a=1; b=2"}
    assert {name: echo_server.headers[name] for name in wanted} == wanted


def test_subprotocols_are_asked_for() -> None:
    with EchoServer(subprotocols=["b"]) as server:
        status, out, _ = run(server.url, "--subprotocol", "a", "--subprotocol", "b", "--jsonl", "--wait", "0.1")
    assert status == 0
    assert lines_of(out)[0]["protocol"] == "b"


def test_the_embedded_server_speaks_the_subprotocol_that_is_asked_for() -> None:
    status, out, _ = run("--subprotocol", "chat", "--jsonl")
    assert status == 0
    assert lines_of(out)[0]["protocol"] == "chat"


def test_a_proxy_is_used_unless_there_is_to_be_none(echo_server: EchoServer) -> None:
    with EchoServer() as gone:
        nobody = f"http://127.0.0.1:{gone.port}"
    assert run(echo_server.url, "--proxy", nobody, "-x", "hi")[0] == 1
    assert run(echo_server.url, "--proxy", "none", "-x", "hi", "--count", "1", env={"http_proxy": nobody})[0] == 0


def test_a_tls_server_is_trusted_by_its_authority_or_blindly(echo_server_tls: EchoServer, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(echo_server_tls.ca_pem)
    send = (echo_server_tls.url, "-x", "secret", "--count", "1")
    assert run(*send, "--cafile", str(ca_file)) == (0, "secret\n", "")
    assert run(*send, "--insecure") == (0, "secret\n", "")
    status, out, err = run(*send)
    assert (status, out) == (1, "")
    assert "certificate" in err


def test_a_certificate_of_the_client_is_shown(tmp_path: Path) -> None:
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = ca.issue_cert("me@example.org")
    files = {"--cafile": ca.cert_pem, "--cert": mine.cert_chain_pems[0], "--key": mine.private_key_pem}
    options = []
    for option, pem in files.items():
        pem.write_to_path(str(tmp_path / option))
        options += [option, str(tmp_path / option)]
    with EchoServer(tls=context) as server:
        assert run(server.url, "-x", "secret", "--count", "1", *options) == (0, "secret\n", "")
        assert run(server.url, "-x", "secret", *options[:2])[0] in (1, 3)  # TLS 1.3 tells after the handshake


def test_a_ping_without_an_answer_is_an_abnormal_end(echo_server: EchoServer) -> None:
    with running(echo_server.url, "--ping", "1") as program:
        echo_server.send("up", TIMEOUT)
        assert program.stdout is not None
        assert program.stdout.readline() == b"up\n"
        echo_server.stall()
        assert program.wait(TIMEOUT) == 3


# --- forms of messages ---


def test_json_may_write_a_number_in_another_way() -> None:
    assert run("--json", "-x", '{"a": 1, "b": [2e1]}', "--expect", '{"b": [20], "a": 1.0}')[0] == 0


@pytest.mark.parametrize(("sent", "expected"), [("true", "1"), ("[0]", "[false]"), ("1", "1.5")])
def test_json_of_another_type_is_not_what_was_expected(sent: str, expected: str) -> None:
    status, _, err = run("--json", "-x", sent, "--expect", expected, "--wait", "0.2")
    assert status == 4
    assert "did not come" in err


@pytest.mark.parametrize(
    ("option", "text", "shown"),
    [
        ("--hex", "00 FF 7f", "00ff7f"),
        ("--base64", "AP9/ AA==", "AP9/AA=="),
        ("--json", '{"a":  1}', '{"a":  1}'),
        ("--json", '{"a":\n [1.0]}', '{"a":[1.0]}'),
    ],
)
def test_messages_are_typed_and_shown_in_the_form_asked_for(option: str, text: str, shown: str) -> None:
    assert run(option, "-x", text, "--expect", text) == (0, f"{shown}\n", "")


@pytest.mark.parametrize(
    ("option", "bad", "why"),
    [
        ("--hex", "0g", "this is not hexadecimal"),
        ("--base64", "A", "this is not Base64"),
        ("--json", "{", "this is not JSON: .+"),
        ("--json", "NaN", "this is not JSON: NaN is not JSON"),
    ],
)
def test_a_wrong_line_of_input_is_wrong_usage(option: str, bad: str, why: str) -> None:
    good = {"--hex": "00", "--base64": "AA==", "--json": "1"}[option]
    status, _, err = run(option, input=f"{good}\n{bad}\n{good}\n")
    assert status == 2
    assert re.fullmatch(f"bws: input line 2: {why}\n", err)


def test_json_lines_tell_every_event() -> None:
    with EchoServer(echo=False) as server, running(server.url, "--jsonl") as program:
        server.send("line\none")
        server.send(b"\x00")
        server.close(4001, "bye")
        assert program.wait(TIMEOUT) == 3
        assert program.stdout is not None
        events = lines_of(program.stdout.read().decode("ascii"))
        assert all(isinstance(event.pop("time"), float) for event in events)
        assert events.pop(0)["url"] == f"{server.url}/"
        assert events == [
            {"type": "message", "data": "line\none"},
            {"type": "message", "base64": "AA=="},
            {"type": "close", "code": 4001, "reason": "bye", "wasClean": True},
        ]


def test_json_lines_stay_as_they_are_documented() -> None:
    """Programs read them: what is there keeps its name, its place and its form."""
    with EchoServer(subprotocols=["chat"], compression=False) as server:
        status, out, err = run(server.url, "--jsonl", "--subprotocol", "chat", "-x", "é\n\x1b", "--count", "1")
        assert (status, err) == (0, "")
        assert re.sub(r'"time": \d+\.\d+', '"time": T', out) == (
            f'{{"type": "open", "time": T, "url": "{server.url}/", "protocol": "chat", "extensions": ""}}\n'
            '{"type": "message", "time": T, "data": "\\u00e9\\n\\u001b"}\n'
            '{"type": "close", "time": T, "code": 1005, "reason": "", "wasClean": true}\n'
        )
        status, out, _ = run(server.url, "--jsonl", "--hex", "-x", "00ff", "--count", "1")
        assert (status, lines_of(out)[1]["hex"]) == (0, "00ff")
        server.refuse(404)
        status, out, _ = run(server.url, "--jsonl")
        assert status == 1
        assert re.sub(r'"time": \d+\.\d+', '"time": T', out) == (
            '{"type": "error", "time": T, "message": "the server answered HTTP 404 Not Found instead of 101"}\n'
            '{"type": "close", "time": T, "code": 1006, "reason": "", "wasClean": false}\n'
        )


def test_json_output_stays_as_it_is_documented() -> None:
    with EchoServer() as server:
        sent = ("-x", '{"b" :1,\n"a":[1.0, "é"]}', "-x", " [ ] ")
        assert run(server.url, "--json", *sent, "--count", "2") == (0, '{"b":1,"a":[1.0,"é"]}\n [ ] \n', "")


def test_latencies_are_told_by_rank() -> None:
    times = array("d", (n / 1000 for n in range(1, 201)))
    assert statistics(times) == (
        "latency: count 200, min 1.000 ms, median 100.000 ms, p95 190.000 ms, p99 198.000 ms, max 200.000 ms"
    )
    assert statistics(times[:1]) == (
        "latency: count 1, min 1.000 ms, median 1.000 ms, p95 1.000 ms, p99 1.000 ms, max 1.000 ms"
    )


def test_json_lines_tell_a_failure(echo_server: EchoServer) -> None:
    echo_server.refuse(503)
    status, out, _ = run(echo_server.url, "--jsonl")
    assert status == 1
    error, close = lines_of(out)
    assert error["type"] == "error"
    assert "503" in error["message"]
    assert (close["type"], close["code"], close["wasClean"]) == ("close", 1006, False)


def test_latency_measures_one_message_at_a_time() -> None:
    status, out, err = run("--latency", "--count", "50", "-x", "a", "-x", "b")
    assert (status, out) == (0, "a\nb\n" * 25)
    times = r"min \d+\.\d{3} ms, median \d+\.\d{3} ms, p95 \d+\.\d{3} ms, p99 \d+\.\d{3} ms, max \d+\.\d{3} ms"
    assert re.fullmatch(rf"bws: latency: count 50, {times}\n", err)


def test_latency_ends_with_the_count_also_when_what_is_expected_has_not_come() -> None:
    status, out, err = run("--latency", "--count", "3", "-x", "a", "--expect", "b")
    assert (status, out) == (4, "a\na\na\n")
    assert re.fullmatch(r"bws: latency: count 3, .+\nbws: 'b' did not come within --count 3\n", err)


def test_latency_ends_with_the_last_reply() -> None:
    with EchoServer() as server:
        start = time.monotonic()
        assert run(server.url, "--latency", "--wait", "20", "-x", "a", "-x", "b")[:2] == (0, "a\nb\n")
        assert time.monotonic() - start < 15


def test_an_endless_wait_is_no_error() -> None:
    assert run("--wait", "1e300", "-x", "a", "--count", "1") == (0, "a\n", "")


def test_an_endless_wait_for_a_reply_is_no_error() -> None:
    assert run("--latency", "--wait", "1e300", "-x", "a", "--count", "1")[:2] == (0, "a\n")


def test_an_option_may_be_larger_than_any_float() -> None:
    status, _, err = run("--count", "1" * 401, "--wait", "0.1", "-x", "a")
    assert status == 4
    assert "messages came" in err


def test_an_empty_file_name_is_a_mistake() -> None:
    for option in ("--cafile=", "--cert="):
        status, _, err = run("wss://127.0.0.1:9/", option)
        assert status == 2
        assert option[:-1] in err


def test_json_in_a_pipe_loses_nothing_but_white_space() -> None:
    text = '{"a" : 1.10,\n"a": 2, "b": 0.1000000000000000055511151231257827,\r\n\t"c  d": "\\ud800 \\" x"}'
    kept = '{"a":1.10,"a":2,"b":0.1000000000000000055511151231257827,"c  d":"\\ud800 \\" x"}'
    assert Format("json").line(text) == kept


@pytest.mark.parametrize("text", ["[" * 900 + "1," * 20_000 + "1" + "]" * 900, "[" * 100_000, "[" * 1200 + "]" * 1200])
def test_json_is_not_laid_out_where_the_indents_are_most_of_it(text: str) -> None:
    assert sum(map(len, Format("json").lines(text))) < 5 * len(text) + 210_000


def test_an_everyday_document_is_laid_out() -> None:
    text = '{"result":{"XBT":[' + ",".join(["[1,2,3,4]"] * 200) + "]}}"
    assert len(Format("json").lines(text)) > 1000


def test_json_with_a_long_string_takes_no_multiple_of_its_size() -> None:
    text = '{"a" :\n"' + "x \\\\" * 500_000 + '"}'
    tracemalloc.start()
    try:
        assert Format("json").line(text) == text.replace(" :\n", ":")
        assert tracemalloc.get_traced_memory()[1] < 40 * len(text)
    finally:
        tracemalloc.stop()


def test_latency_without_a_reply_is_a_time_out() -> None:
    with EchoServer(echo=False) as server:
        status, out, err = run(server.url, "--latency", "--wait", "0.2", "-x", "a", "-x", "b")
        assert (status, out) == (4, "")
        assert err == "bws: latency: no replies\nbws: timed out: 0 replies to 1 messages came\n"
        assert server.messages == ["a"]


# --- usage ---


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["ws://a/", "ws://b/"], "unrecognized arguments: ws://b/"),
        (["--count", "0"], "argument --count: must be a positive number, not '0'"),
        (["--count", "some"], "argument --count: invalid int value: 'some'"),
        (["--wait", "-1"], "argument --wait: must be a positive number, not '-1'"),
        (["--wait", "nan"], "argument --wait: must be a positive number, not 'nan'"),
        (["--ping", "inf"], "argument --ping: must be a positive number, not 'inf'"),
        (["-H", "nothing"], "argument -H: must be 'NAME: VALUE', not 'nothing'"),
        (["--hex", "--json"], "argument --json: not allowed with argument --hex"),
        (["--hex", "-x", "zz"], "-x 'zz': this is not hexadecimal"),
        (["--json", "--expect", "{"], "--expect '{': this is not JSON"),
        (["--cafile", "x"], "--cafile needs a URL"),
        (["--insecure"], "--insecure needs a URL"),
        (["--proxy", "none"], "--proxy needs a URL"),
        (["--proxy", "h:1", "ws://a/"], "--proxy: must be a URL such as http://proxy.example:3128, or none, not 'h:1'"),
        (["wss://a/", "--cafile", "no such file"], "--cafile no such file: No such file or directory"),
        (["wss://a/", "--cert", "no such file"], "--cert no such file: No such file or directory"),
        (["wss://a/", "--key", "key"], "--key needs --cert"),
        (["ws://a/", "--cafile", "x"], "--cafile needs a wss: URL, and ws: is not encrypted; use wss:// or drop"),
        (["ws://a/", "--cert", "x"], "--cert needs a wss: URL, and ws: is not encrypted; use wss:// or drop"),
        (["HTTP://a/", "--insecure"], "--insecure needs a wss: URL, and http: is not encrypted; use wss:// or drop"),
        (["--serve"], "argument --serve: expected one argument"),
        (["--serve", "port"], "argument --serve: must be [HOST:]PORT, not 'port'"),
        (["--serve", "65536"], "argument --serve: must be [HOST:]PORT, not '65536'"),
        (["--serve", "0", "ws://a/"], "--serve takes no URL"),
        (["--serve", "0", "-x", "a"], "-x does not go with --serve"),
        (["--serve", "0", "--latency"], "--latency does not go with --serve"),
    ],
)
def test_wrong_usage_says_what_is_wrong(args: list[str], complaint: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("usage: bws [options] [URL]\nbws: error: ")
    assert complaint in err


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["-H", "Sec-WebSocket-Key: x"], "-H 'Sec-WebSocket-Key' belongs to the handshake and cannot be set"),
        (["-H", "Bad Name: x"], "-H 'Bad Name' is not a header name; expected letters, digits and !#$%&'*+-.^_`|~"),
        (["-H", "X-One: \u65e5"], "-H 'X-One': character 1 of 1 is not Latin-1; percent-encode or "),
        (["-H", "Cookie: a=1", "--cookie", "b=2"], "-H has 'Cookie', which --cookie sets too; give only one of them"),
        (["-H", "Origin: a", "--origin", "b"], "-H has 'Origin', which --origin sets too; give only one of them"),
        (["-H", "Authorization: a", "ws://u:p@a/"], "-H has 'Authorization', which user:password@ in the URL sets too"),
        (["--cookie", "a\nb"], "--cookie: character 2 of 3 is the control character '\\n', which would split "),
        (["--origin", "a\nb"], "--origin 'a\\nb': character 2 of 3 is the control character "),
        (["--subprotocol", "a b"], "--subprotocol 'a b' is not a valid subprotocol; expected letters, digits and "),
        (["--subprotocol", "a", "--subprotocol", "a"], "--subprotocol 'a' is there twice; name each subprotocol once"),
        (
            ["--proxy", "gopher://a/", "ws://127.0.0.1:1/"],
            "--proxy must be a URL such as http://user:pass@host:8080, or none; 'gopher://a/' is not usable; ",
        ),
        (["127.0.0.1:80"], "URL '127.0.0.1:80' cannot be parsed; expected an absolute URL such as 'ws://127.0.0.1:80'"),
    ],
)
def test_what_the_socket_refuses_is_wrong_usage_of_an_option(
    args: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"bws: .+\n", err)
    assert err.startswith(f"bws: {complaint}")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--cafile", "text"], "--cafile text: expected a PEM file with -----BEGIN CERTIFICATE-----; OpenSSL says: "),
        (["--cert", "text"], "--cert text: there is no certificate in it; expected a PEM file with -----BEGIN CERT"),
        (["--cert", "key"], "--cert key: there is no certificate in it; expected a PEM file with -----BEGIN CERT"),
        (["--cert", "cert"], "--cert cert: there is no private key in it; name the file that has it with --key"),
        (["--cert", "cert", "--key", "text"], "--key text: there is no private key in it; expected a PEM file with "),
        (["--cert", "cert", "--key", "no"], "--key no: No such file or directory"),
        (["--cert", "no", "--key", "key"], "--cert no: No such file or directory"),
        (
            ["--cert", "cert", "--key", "other"],
            "--cert cert --key other: expected a PEM certificate and the private key that belongs to it; OpenSSL",
        ),
    ],
)
def test_a_file_that_is_no_certificate_or_key_is_told_with_what_it_should_be(
    args: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ca = trustme.CA()
    mine, other = ca.issue_cert("a"), ca.issue_cert("b")
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    mine.private_key_pem.write_to_path(str(tmp_path / "key"))
    other.private_key_pem.write_to_path(str(tmp_path / "other"))
    (tmp_path / "text").write_text("hello")
    monkeypatch.chdir(tmp_path)
    assert main(["wss://127.0.0.1:1/", *args]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"usage: bws [options] [URL]\nbws: error: {complaint}")
    assert "_ssl.c" not in err


def test_help_fits_a_screen(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["--help"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("usage: bws [options] [URL]\n")
    assert 24 <= len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 80
    assert err == ""


def test_help_groups_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    groups = re.findall(r"^(\w+):\n((?:  .+\n)+)", capfd.readouterr().out, re.MULTILINE)
    by_name = {name: re.findall(r"(?<![\w'-])-(?:-\w+|\w\b)", text) for name, text in groups}
    assert {name: set(options) for name, options in by_name.items()} == {
        "messages": {"-x", "--expect", "--count", "--wait", "--latency", "--hex", "--base64", "--json", "--jsonl"},
        "connection": {
            "-H", "--subprotocol", "--origin", "--cookie", "--proxy", "--ping",
            "--cafile", "--cert", "--key", "--insecure",
        },
        "other": {"--serve", "--version", "-h", "--help"},
    }  # fmt: skip


def test_version_is_that_of_the_library(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr() == (f"bws {bws.__version__}\n", "")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    assert main(["-x", "hello"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert 'pip install "bws[cli]"' in err


# --- the server ---


def test_serve_is_an_echo_server_that_prints_its_url() -> None:
    with running("--serve", "0") as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        assert re.fullmatch(r"ws://127\.0\.0\.1:\d+", url)
        assert run(url, "-x", "hello", "--count", "1") == (0, "hello\n", "")


def test_serve_speaks_tls_with_a_certificate(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    with running("--serve", "127.0.0.1:0", "--cert", str(tmp_path / "cert.pem")) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        assert url.startswith("wss://localhost:")
        client = run(url, "-x", "hello", "--count", "1", "--cafile", str(tmp_path / "ca.pem"))
        assert client == (0, "hello\n", "")


def test_serve_says_when_the_port_is_taken(echo_server: EchoServer) -> None:
    status, out, err = run("--serve", str(echo_server.port))
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"bws: cannot serve on '127\.0\.0\.1' port {echo_server.port}: (?!cannot).+\n", err)
