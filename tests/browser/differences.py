"""What is meant to differ from Chromium: rows of docs/browser-differences.md, with the lines that show it."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """A scenario that differs.

    Attributes:
        row: The beginning of the row in docs/browser-differences.md that says why.
        lines: All that differs, in any order: `-` the browser's, `+` those of bws.
    """

    row: str
    lines: list[str]


def _code(code: int) -> Difference:
    return Difference(
        "close codes 0",
        [
            f'- ["close", 3, {code}, "", true]', '+ ["error", 3]', '+ ["close", 3, 1006, "", false]',
            f"- server 1: close [{code}, '']", "+ server 1: close 1002",
        ],
    )  # fmt: skip


UTF8 = Difference("text that is not UTF-8", ["- server 1: close 1002", "+ server 1: close 1007"])
LOST = Difference("a message in one packet", ['+ ["message", 1, "before", "ws://127.0.0.1:PORT"]'])

DIFFERENCES: dict[str, Difference] = {
    **{f"the_server_closes_with_{code}": _code(code) for code in (999, 1004, 1016, 2999, 5000)},
    "data_behind_the_servers_close": Difference(
        "data after the server's close frame",
        [
            '- ["error", 3]', '- ["close", 3, 1006, "", false]', '+ ["close", 3, 3000, "bye", true]',
            "- server 1: close 3000", "+ server 1: close [3000, 'bye']",
        ],
    ),
    "the_frame_is_bad_utf8": UTF8,
    "the_frame_is_bad_utf8_later": UTF8,
    "the_frame_is_surrogate": UTF8,
    "the_frame_is_bad_close_reason": UTF8,
    "the_frame_is_long_ping": LOST,
    "the_frame_is_split_ping": LOST,
    "the_frame_is_long_length": LOST,
    "bad_urls": Difference(
        "spaces or `%20` in a host", ['- ["ws://a b/", "passes"]', '+ ["ws://a b/", "SyntaxError"]']
    ),
    "user_and_password_in_the_url": Difference(
        "`user:password@` in the URL", ["- server 1: Authorization False", "+ server 1: Authorization True"]
    ),
    "an_unknown_event": Difference("`bind` of an unknown event", ['- ["bind", "passes"]', '+ ["bind", "ValueError"]']),
    "what_is_no_text_is_sent": Difference(
        "bytes, dict, `None`, numbers",
        [
            *(f'- ["{what}", "passes"]' for what in ("None", "int", "dict")),
            *(f'+ ["{what}", "TypeError"]' for what in ("None", "int", "dict")),
            "- server 1: messages ['[object Object]', '5', '[object Object]']",
            "+ server 1: messages []",
        ],
    ),
}  # fmt: skip


def lines_of(name: str) -> list[str]:
    """What has to differ in a scenario, sorted; an empty list: nothing."""
    difference = DIFFERENCES.get(name)
    return sorted(difference.lines) if difference else []
