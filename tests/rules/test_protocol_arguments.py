"""The constructor's second argument: which subprotocols may be asked for."""

from __future__ import annotations

from typing import Any

import pytest

import bws
from tests.conftest import Play
from tests.wire.server import Connection

TOKEN = "!#$%&'*+-.^_`|~0aZ"


@pytest.mark.parametrize(
    ("protocols", "header"),
    [
        (None, None),
        ([], None),
        ((), None),
        ("a", "a"),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        (["a", "A"], "a, A"),
        (("v2.chat", "v1.chat"), "v2.chat, v1.chat"),
        (dict.fromkeys(["a", "b"]).keys(), "a, b"),
        (TOKEN, TOKEN),
        ("x" * 2000, "x" * 2000),
    ],
)
def test_good_protocols_are_asked_for_in_order(play: Play, protocols: Any, header: str | None) -> None:
    played = play(Connection.handshake, protocols=protocols, on={"open": lambda r, _: r.ws.close()})
    assert played.seen.header("Sec-WebSocket-Protocol") == header
    assert played.recorder.ws.protocol == (header or "").partition(",")[0]


@pytest.mark.parametrize("form", ["alone", "in a list", "after a good one"])
@pytest.mark.parametrize(
    "protocol", ["", " a", "a ", "a\r\nX: y", *(f"a{char}b" for char in '()<>@,;:\\"/[]?={} \t\n\0\x7fé✓')]
)
def test_a_protocol_that_is_no_token_raises_at_once(protocol: str, form: str) -> None:
    protocols = {"alone": protocol, "in a list": [protocol], "after a good one": ["good", protocol]}[form]
    with pytest.raises(bws.DOMSyntaxError) as caught:
        bws.WebSocket("ws://127.0.0.1:9/", protocols)
    assert caught.value.name == "SyntaxError"
    assert repr(protocol) in caught.value.message


@pytest.mark.parametrize("protocols", [["a", "a"], ["chat", "chat2", "chat"], ("x", "y", "y")])
def test_a_protocol_that_is_there_twice_raises_at_once(protocols: Any) -> None:
    with pytest.raises(bws.DOMSyntaxError, match="twice"):
        bws.WebSocket("ws://127.0.0.1:9/", protocols)
