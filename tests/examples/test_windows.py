"""Both examples, used as a person would: what is pressed and typed, and what the window shows then."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bws.testing import EchoServer
from tests.examples.conftest import Show
from tests.examples.window import ROOT, Look

NOT_OPEN = ["Open connection"]
IS_OPEN = ["Send", "Close connection"]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, so that nobody else comes to listen there
        yield f"ws://127.0.0.1:{bound.getsockname()[1]}/"


def test_at_first_only_open_connection_can_be_pressed(show: Show, echo_server: EchoServer) -> None:
    look = show(echo_server.url).until(lambda look: look.state)
    assert (look.title, look.state, look.url) == ("WebSocket echo", "● Closed", echo_server.url)
    assert (look.enabled, look.log) == (NOT_OPEN, [])


def test_an_open_connection_lets_you_send_and_close(show: Show, echo_server: EchoServer) -> None:
    look = show(echo_server.url).open()
    assert look.enabled == IS_OPEN


@pytest.mark.parametrize("key", ["Return", "KP_Enter"])
def test_enter_opens_then_sends_and_the_echo_appears_with_the_time(
    show: Show, echo_server: EchoServer, key: str
) -> None:
    window = show(echo_server.url)
    window.press(key)
    window.until(lambda look: look.focus == "message")
    window.type("hello")
    window.press(key)
    look = window.until(lambda look: len(look.log) == 2)
    assert look.lines == ["→ hello", "← hello"]
    assert all(re.match(r"\d\d:\d\d:\d\d\s", line) for line in look.log)
    assert (look.message, echo_server.messages) == ("", ["hello"])


def test_the_buttons_do_what_they_say(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    window.type("hello")
    window.click("Send")
    window.until(lambda look: look.lines == ["→ hello", "← hello"])
    window.click("Close connection")
    assert window.until(lambda look: look.state == "● Closed").enabled == NOT_OPEN
    assert echo_server.next_close() == (1005, "")


def test_escape_closes_and_enter_opens_again(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    window.press("Escape")
    look = window.until(lambda look: look.state == "● Closed")
    assert (look.lines, look.enabled, look.focus) == (["Connection is closed: 1005"], NOT_OPEN, "url")
    window.press("Return")
    window.until(lambda look: look.state == "● Open" and look.focus == "message")
    window.type("again")
    window.press("Return")
    window.until(lambda look: look.lines[-1] == "← again")


def test_enter_sends_nothing_when_nothing_is_typed_or_open(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    window.press("Return")
    window.type("first")
    window.press("Return")
    window.until(lambda look: look.lines == ["→ first", "← first"])
    echo_server.close(4000)
    window.until(lambda look: look.state == "● Closed")
    window.type("kept")
    window.press("Return")
    look = window.until(lambda look: look.message == "kept")
    assert (look.lines[2:], look.enabled) == (["Connection is closed: 4000"], NOT_OPEN)
    assert echo_server.messages == ["first"]


def test_a_refused_connection_shows_the_reason(show: Show, refusing: str) -> None:
    window = show(refusing)
    window.click("Open connection")
    look = window.until(lambda look: len(look.log) == 2)
    assert "refused" in look.lines[0]
    assert look.lines[1] == "Connection is closed: 1006"
    assert (look.state, look.enabled) == ("● Closed", NOT_OPEN)


def test_what_is_no_address_is_told_and_can_be_mended(show: Show, echo_server: EchoServer) -> None:
    window = show("ftp://127.0.0.1/")
    window.click("Open connection")
    look = window.until(lambda look: len(look.log) == 1)
    assert "ftp" in look.lines[0]
    assert "expected ws, wss" in look.lines[0]
    assert (look.state, look.enabled) == ("● Closed", NOT_OPEN)
    window.set_url(echo_server.url)
    assert window.open().enabled == IS_OPEN


def test_a_close_of_the_server_shows_its_code_and_reason(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    echo_server.close(4001, "back in an hour")
    look = window.until(lambda look: look.state == "● Closed")
    assert (look.lines, look.enabled) == (["Connection is closed: 4001 back in an hour"], NOT_OPEN)


def test_a_connection_that_is_lost_is_closed_1006(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    echo_server.drop()
    assert window.until(lambda look: look.state == "● Closed").lines == ["Connection is closed: 1006"]


def test_escape_ends_an_attempt_to_connect(show: Show, silent: str) -> None:
    window = show(silent)
    window.click("Open connection")
    assert window.until(lambda look: look.state == "● Connecting").enabled == NOT_OPEN
    window.press("Escape")
    look = window.until(lambda look: look.state == "● Closed")
    assert look.lines[-1] == "Connection is closed: 1006"


def test_another_address_may_be_opened_while_one_is_connecting(
    show: Show, silent: str, echo_server: EchoServer
) -> None:
    window = show(silent)
    window.click("Open connection")
    window.until(lambda look: look.state == "● Connecting")
    window.set_url(echo_server.url)
    window.click("Open connection")
    look = window.until(lambda look: look.state == "● Open" and len(look.log) == 2)
    assert look.lines[-1] == "Connection is closed: 1006"  # the first one
    assert look.enabled == IS_OPEN


def test_while_a_server_does_not_answer_a_close_another_connection_may_be_opened(
    show: Show, echo_server: EchoServer
) -> None:
    window = show(echo_server.url)
    window.open()
    echo_server.stall()
    window.press("Escape")
    assert window.until(lambda look: look.state == "● Closing").enabled == NOT_OPEN
    echo_server.resume()
    assert window.open().enabled == IS_OPEN


def test_what_a_message_holds_is_shown_as_it_is(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    for message in ("<b>&amp;</b> {a} $b [c]", "Grüße, 世界", "two\nlines", b"\x00\xff"):
        echo_server.send(message)
    look = window.until(lambda look: len(look.log) == 5)
    assert look.lines == ["← <b>&amp;</b> {a} $b [c]", "← Grüße, 世界", "← two", "lines", r"← b'\x00\xff'"]


def test_a_nul_in_a_message_hides_nothing_behind_it(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    echo_server.send("before \0 behind")
    echo_server.send("next")
    first, second = window.until(lambda look: "← next" in look.lines).lines
    assert (first[:8], first[-7:], second) == ("← before", " behind", "← next")


def test_the_log_shows_its_end_and_forgets_its_beginning(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    for number in range(1200):
        echo_server.send(str(number))
    look = window.until(lambda look: look.lines and look.lines[-1] == "← 1199")
    assert look.last_is_seen
    assert 990 <= len(look.log) <= 1000
    assert look.lines == [f"← {number}" for number in range(1200 - len(look.log), 1200)]


def test_a_message_of_a_million_characters_is_cut_in_the_log(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    echo_server.send("x" * 1_000_000)
    look = window.until(lambda look: look.log)
    assert 990 < len(look.lines[0]) < 1010


def test_a_larger_window_has_a_larger_log(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    width, height = window.until(lambda look: min(look.log_size) > 100).log_size
    window.resize(900, 650)
    window.until(lambda look: look.log_size[0] > width + 50 and look.log_size[1] > height + 50)


def test_a_window_cannot_be_made_so_small_that_its_buttons_are_cut_off(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    width = window.until(lambda look: min(look.log_size) > 100).box[2]
    window.resize(60, 40)
    window.until(lambda look: look.box[2] < width - 50)

    def all_inside(look: Look) -> bool:
        left, top, width, height = look.box
        return all(left < x < left + width - 50 and top < y < top + height for x, y in look.at.values())

    window.until(all_inside)  # it is laid out behind the change of its size


def test_a_window_that_is_closed_ends_the_program_and_its_open_connection(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    assert window.close() == (0, "")
    assert echo_server.next_close() == (1001, "")


def test_a_window_that_is_closed_ends_an_attempt_to_connect(show: Show, silent: str) -> None:
    window = show(silent)
    window.click("Open connection")
    window.until(lambda look: look.state == "● Connecting")
    assert window.close() == (0, "")


def test_a_window_that_is_closed_in_a_flood_ends_the_program(show: Show, echo_server: EchoServer) -> None:
    window = show(echo_server.url)
    window.open()
    for number in range(5000):
        echo_server.send(str(number))
    assert window.close() == (0, "")


def test_without_a_url_it_talks_to_a_server_of_its_own(show: Show) -> None:
    window = show()
    assert window.open().url.startswith("ws://127.0.0.1:")
    window.type("hello")
    window.press("Return")
    window.until(lambda look: look.lines == ["→ hello", "← hello"])
    assert window.close() == (0, "")


def test_the_example_for_pyside6_works_with_pyqt6_when_its_import_lines_are_changed(
    start: Show, echo_server: EchoServer
) -> None:
    window = start("PyQt6", echo_server.url)
    window.press("Return")
    window.until(lambda look: look.focus == "message")
    window.type("hello")
    window.press("Return")
    window.until(lambda look: look.lines == ["→ hello", "← hello"])
    window.press("Escape")
    assert window.until(lambda look: look.state == "● Closed").enabled == NOT_OPEN
    window.open()
    assert window.close() == (0, "")


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_enough_to_be_read_as_a_tutorial(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 120
