"""What is easily written instead of what dispatch= takes."""

from __future__ import annotations

import pytest

import bws

URL = "ws://127.0.0.1:1/"


@pytest.mark.parametrize("name", bws.dispatch.__all__)
def test_a_loop_of_bws_dispatch_whose_call_was_forgotten_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"what bws\.dispatch\.{name}\(\.\.\.\) returns; the call is missing"):
        bws.WebSocket(URL, dispatch=getattr(bws.dispatch, name))
