"""Small programs for a WebSocket, run as they are by Brython in a browser and by CPython with bws.

`env` is what differs between the two: `WebSocket`, `later(ms, fn)`, `shown(data, brief)`, `buffer(octets)`,
`name_of(exception)`. Nothing else is needed, so that little has to be loaded in the browser.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SETTLE = 60  # ms after a close event, in which nothing more may happen
LIMIT = 12_000  # ms for a scenario

SCENARIOS: dict[str, Any] = {}


def scenario(fn: Any) -> Any:
    """Register a program; its name is the function's."""
    SCENARIOS[fn.__name__] = fn
    return fn


def needs_tasks(fn: Any) -> Any:
    """A program that looks, outside handlers, at what changes only between the tasks of an event loop.

    How much of the connection there is by then is a race, and what the server sees of it is not compared.
    """
    fn.needs_tasks = True
    return scenario(fn)


def brief(text: str) -> Any:
    """A text for the trace, if it is not too long."""
    return text if len(text) < 100 else [len(text), text[:10]]


class Run:
    """One run of a program, and the trace of what it saw."""

    def __init__(self, env: Any, base: str, done: Any) -> None:
        self.env, self.base, self.done = env, base, done
        self.trace: list[list[Any]] = []
        self.opened: list[Any] = []
        self.finished = False
        env.later(LIMIT, self.give_up)

    def note(self, *entry: Any) -> None:
        if not self.finished:
            self.trace.append(list(entry))

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            for ws in self.opened:
                if ws.readyState < 2:
                    self.trace.append(["left open", ws.readyState])
                    ws.close()
            self.done(self.trace)

    def give_up(self) -> None:
        self.note("it did not end")
        self.finish()

    def open(self, path: str, *args: Any) -> Any:
        """Make a socket; `args` may have the subprotocols."""
        ws = self.env.WebSocket(self.base + path, *args)
        self.opened.append(ws)
        return ws

    def watch(self, ws: Any, more: bool = False, **then: Any) -> Any:
        """Note every event; `then` has what a handler does afterwards. The close event ends the run unless `more`."""

        def on_open(evt: Any) -> None:
            self.note("open", ws.readyState, ws.protocol, ws.extensions)
            if "open" in then:
                then["open"](ws, evt)

        def on_message(evt: Any) -> None:
            self.note("message", ws.readyState, self.env.shown(evt.data, brief), evt.origin.replace(self.base, "BASE"))
            if "message" in then:
                then["message"](ws, evt)

        def on_error(evt: Any) -> None:
            self.note("error", ws.readyState)
            if "error" in then:
                then["error"](ws, evt)

        def on_close(evt: Any) -> None:
            self.note("close", ws.readyState, evt.code, evt.reason, evt.wasClean)
            if "close" in then:
                then["close"](ws, evt)
            if not more:
                self.env.later(SETTLE, self.finish)

        ws.bind("open", on_open)
        ws.bind("message", on_message)
        ws.bind("error", on_error)
        ws.bind("close", on_close)
        return ws

    def visit(self, path: str, *args: Any, **then: Any) -> Any:
        """Make a socket and watch it."""
        return self.watch(self.open(path, *args), **then)

    def attempt(self, what: str, fn: Any, *args: Any) -> None:
        """Note what a call raises."""
        try:
            fn(*args)
            self.note(what, "passes")
        except Exception as exc:
            self.note(what, self.env.name_of(exc))


def close(ws: Any, evt: Any) -> None:
    ws.close()


# -- messages


@scenario
def three_texts_come_back(run: Run) -> None:
    def send(ws: Any, evt: Any) -> None:
        for text in ("a", "b", "c"):
            ws.send(text)

    seen: list[str] = []

    def count(ws: Any, evt: Any) -> None:
        seen.append(evt.data)
        if len(seen) == 3:
            ws.close()

    run.visit("echo", open=send, message=count)


@scenario
def unicode_comes_back(run: Run) -> None:
    run.visit("echo", open=lambda ws, evt: ws.send("h\u00e9 \u2713 \U0001f600 \x00 end"), message=close)


@scenario
def an_empty_text_comes_back(run: Run) -> None:
    run.visit("echo", open=lambda ws, evt: ws.send(""), message=close)


@scenario
def a_long_text_comes_back(run: Run) -> None:
    run.visit("echo", open=lambda ws, evt: ws.send("x" * 70000), message=close)


@scenario
def bytes_come_back(run: Run) -> None:
    def send(ws: Any, evt: Any) -> None:
        ws.binaryType = "arraybuffer"
        ws.send(run.env.buffer([0, 1, 127, 128, 254, 255]))

    run.visit("echo", open=send, message=close)


@scenario
def no_bytes_come_back(run: Run) -> None:
    def send(ws: Any, evt: Any) -> None:
        ws.binaryType = "arraybuffer"
        ws.send(run.env.buffer([]))

    run.visit("echo", open=send, message=close)


@scenario
def the_binary_type_is_blob_or_arraybuffer(run: Run) -> None:
    def look(ws: Any, evt: Any) -> None:
        for value in ("arraybuffer", "nonsense", "blob"):
            ws.binaryType = value
            run.note("binaryType", ws.binaryType)
        ws.close()

    ws = run.visit("echo", open=look)
    run.note("binaryType", ws.binaryType)


@scenario
def messages_with_the_handshake(run: Run) -> None:
    run.visit("greet")


@scenario
def two_hundred_messages_in_order(run: Run) -> None:
    run.visit("many")


@scenario
def texts_and_bytes_in_turn(run: Run) -> None:
    run.watch(run.open("mixed")).binaryType = "arraybuffer"


@scenario
def fragments_with_a_ping_between(run: Run) -> None:
    run.visit("fragments")


@scenario
def pings_are_answered_in_order(run: Run) -> None:
    run.visit("pings")


@scenario
def a_compressed_message(run: Run) -> None:
    run.visit("compressed")


# -- the server closes


def _server_close(code: Any, reason: str) -> Any:
    def program(run: Run) -> None:
        run.visit("close?" + str(code) + "," + reason)

    return program


for _code, _reason in (
    (1000, ""), (1000, "done"), (1001, "going"), (1002, ""), (1003, ""), (1007, ""), (1008, "why"), (1009, ""),
    (1010, ""), (1011, "oh"), (1012, ""), (1013, ""), (1014, ""), (3000, ""), (4999, "last"), ("none", ""),
    (999, ""), (1004, ""), (1005, ""), (1006, ""), (1015, ""), (1016, ""), (2999, ""), (5000, ""),
):  # fmt: skip
    SCENARIOS["the_server_closes_with_" + str(_code) + ("_" + _reason if _reason else "")] = _server_close(
        _code, _reason
    )


@scenario
def messages_then_a_close(run: Run) -> None:
    run.visit("greet-and-close")


@scenario
def data_behind_the_servers_close(run: Run) -> None:
    run.visit("close-and-data")


@scenario
def a_close_reason_in_unicode(run: Run) -> None:
    run.visit("close-unicode")


def _visits(prefix: str, paths: list[str]) -> None:
    def program(path: str) -> Any:
        return lambda run: run.visit(path)

    for path in paths:
        SCENARIOS[prefix + path.replace("-", "_")] = program(path)


# -- what goes wrong

_visits("the_connection_ends_", ["eof", "eof-in-a-message", "reset", "eof-before-the-answer", "half-an-answer"])
_visits(
    "the_answer_is_",
    ["status-200", "status-404", "status-401", "redirect", "wrong-accept", "no-accept", "accept-twice", "no-upgrade",
     "wrong-upgrade", "no-connection", "unasked-protocol", "unasked-extension", "nonsense", "bare-lf", "folded"],
)  # fmt: skip
_visits(
    "the_frame_is_",
    ["masked", "rsv2", "rsv1", "opcode-3", "opcode-11", "continuation", "text-in-text", "long-ping", "split-ping",
     "long-length", "bad-utf8", "bad-utf8-later", "surrogate", "close-of-one-byte", "bad-close-reason"],
)  # fmt: skip


@scenario
def nobody_listens(run: Run) -> None:
    run.watch(run.env.WebSocket(run.env.refused))


# -- subprotocols


@scenario
def the_second_subprotocol_is_chosen(run: Run) -> None:
    run.visit("protocol?b", ["a", "b", "c"], open=close)


@scenario
def one_subprotocol_as_a_text(run: Run) -> None:
    run.visit("protocol?a", "a", open=close)


@scenario
def no_subprotocol_is_chosen(run: Run) -> None:
    run.visit("protocol?", ["a", "b"])


@scenario
def a_subprotocol_in_another_case(run: Run) -> None:
    run.visit("protocol?A", ["a"])


@scenario
def a_subprotocol_that_was_not_offered(run: Run) -> None:
    run.visit("protocol?z", ["a"])


@scenario
def bad_subprotocols(run: Run) -> None:
    for bad in (["a", "a"], ["a", "A", "a"], [""], "", ["a b"], ["a,b"], ["\u00e9"], ["("]):
        run.attempt("protocols " + str(bad), run.open, "echo", bad)
    run.visit("echo", open=close)


# -- URLs


@scenario
def bad_urls(run: Run) -> None:
    for url in (
        "nonsense://h/",
        "ws://",
        "ws://h:99999/",
        "ws://h/#part",
        "ws://[::1",
        "ws://a b/",
        "mailto:x@y",
        "ws://%/",
    ):
        run.attempt(url, run.env.WebSocket, url)
    run.visit("echo", open=close)


@needs_tasks
def the_url_is_serialized(run: Run) -> None:
    path = run.base.partition("//")[2]
    for url in ("WS://" + path + "echo", "http://" + path + "echo", "ws://" + path + 'a/../echo?q=\u00e9 "<>'):
        ws = run.env.WebSocket(url)
        run.note(ws.url.replace(run.base, "BASE"), ws.readyState)
        ws.close()
    run.visit("echo", open=close)


@scenario
def user_and_password_in_the_url(run: Run) -> None:
    run.watch(run.env.WebSocket(run.base.replace("//", "//user:secret@") + "echo"), open=close)


# -- closing


def _client_close(*args: Any) -> Any:
    return lambda run: run.visit("echo", open=lambda ws, evt: ws.close(*args))


for _name, _args in {
    "without_a_code": (), "with_1000": (1000,), "with_a_reason": (1000, "bye"), "with_3000": (3000, "x" * 123),
    "with_4999": (4999, "h\u00e9 \u2713 \U0001f600"), "with_an_empty_reason": (4000, ""),
}.items():  # fmt: skip
    SCENARIOS["the_client_closes_" + _name] = _client_close(*_args)


@scenario
def the_server_answers_with_another_code(run: Run) -> None:
    run.visit("close-differently", open=lambda ws, evt: ws.close(3001, "mine"))


@scenario
def the_server_ends_tcp_instead_of_answering(run: Run) -> None:
    run.visit("close-with-eof", open=close)


@scenario
def wrong_arguments_of_close(run: Run) -> None:
    def attempts(ws: Any, evt: Any) -> None:
        for code in (0, 999, 1001, 1005, 1006, 1015, 2999, 5000, 70000, -1):
            run.attempt("close " + str(code), ws.close, code)
        run.attempt("long reason", ws.close, 3000, "x" * 124)
        run.attempt("long reason in bytes", ws.close, 3000, "\u00e9" * 62)
        run.note("state", ws.readyState)
        ws.close(3000, "x" + "\u00e9" * 61)

    run.visit("echo", open=attempts)


@scenario
def close_again_and_later(run: Run) -> None:
    def again(ws: Any, evt: Any) -> None:
        ws.close(3001, "first")
        run.note("state", ws.readyState)
        run.attempt("close again", ws.close, 3002, "second")
        run.attempt("close wrongly", ws.close, 999)

    def later(ws: Any, evt: Any) -> None:
        run.attempt("close in CLOSED", ws.close)
        run.attempt("close wrongly in CLOSED", ws.close, 5000)
        run.note("state", ws.readyState)

    run.visit("echo", open=again, close=later)


@needs_tasks
def close_in_connecting(run: Run) -> None:
    ws = run.visit("stall", error=lambda ws, evt: run.note("in error", ws.readyState))
    run.note("state", ws.readyState)
    ws.close(3000, "early")
    run.note("state", ws.readyState)


@needs_tasks
def close_in_connecting_later(run: Run) -> None:
    ws = run.visit("stall")
    run.env.later(50, lambda: ws.close())


@needs_tasks
def send_in_connecting(run: Run) -> None:
    ws = run.visit("stall")
    run.attempt("send", ws.send, "x")
    run.note("amount", ws.bufferedAmount)
    ws.close()
    run.attempt("send", ws.send, "abc")
    run.note("amount", ws.bufferedAmount)


@scenario
def send_after_close(run: Run) -> None:
    def send(ws: Any, evt: Any) -> None:
        ws.close()
        run.attempt("send", ws.send, "abc")
        run.attempt("send", ws.send, "\u20ac")
        run.note("amount", ws.bufferedAmount, ws.readyState)

    def again(ws: Any, evt: Any) -> None:
        ws.send("12345")
        run.note("amount", ws.bufferedAmount)

    run.visit("echo", open=send, close=again)


@scenario
def what_was_sent_before_close_arrives(run: Run) -> None:
    def send(ws: Any, evt: Any) -> None:
        for n in range(20):
            ws.send(str(n))
        ws.close(3000)

    run.visit("note", open=send)


@scenario
def no_message_after_close(run: Run) -> None:
    run.visit("talks-until-closed", message=lambda ws, evt: ws.close(3000))


@scenario
def close_in_the_first_of_many_messages(run: Run) -> None:
    run.visit("many", message=close)


@scenario
def a_socket_from_a_close_handler(run: Run) -> None:
    def again(ws: Any, evt: Any) -> None:
        run.visit("greet-and-close")

    run.watch(run.open("close?3000,first"), more=True, close=again)


@scenario
def two_sockets_at_once(run: Run) -> None:
    ended: list[int] = []

    def one(evt: Any) -> None:
        ended.append(evt.code)
        if len(ended) == 2:
            run.note("both ended")
            run.env.later(SETTLE, run.finish)

    for _ in range(2):
        ws = run.open("echo")
        ws.bind("open", lambda evt: evt.target.send("hello"))
        ws.bind("message", lambda evt: evt.target.close(3000))
        ws.bind("close", lambda evt: one(evt))


# -- handlers


@scenario
def several_handlers_in_order(run: Run) -> None:
    ws = run.open("greet-and-close")
    for name in ("first", "second", "third"):
        ws.bind("message", lambda evt, name=name: run.note(name, evt.data))
    run.watch(ws)


@scenario
def the_same_handler_bound_twice(run: Run) -> None:
    ws = run.open("greet-and-close")

    def handler(evt: Any) -> None:
        run.note("handler", evt.data)

    ws.bind("message", handler)
    ws.bind("message", handler)
    run.watch(ws)


@scenario
def the_same_listener_added_twice(run: Run) -> None:
    ws = run.open("greet-and-close")

    def handler(evt: Any) -> None:
        run.note("listener", evt.data)

    ws.addEventListener("message", handler)
    ws.addEventListener("message", handler)
    run.watch(ws)


@scenario
def unbind_one_of_a_type(run: Run) -> None:
    ws = run.open("many")

    def handler(evt: Any) -> None:
        run.note("handler", evt.data)
        ws.unbind("message", handler)

    ws.bind("message", handler)
    ws.bind("close", lambda evt: run.env.later(SETTLE, run.finish))


@scenario
def unbind_all_of_a_type(run: Run) -> None:
    ws = run.open("many")
    seen: list[str] = []

    def handler(evt: Any) -> None:
        seen.append(evt.data)
        run.note("handler", evt.data)
        if len(seen) == 4:
            ws.unbind("message")

    ws.bind("message", handler)
    ws.bind("message", lambda evt: run.note("other", evt.data))
    ws.bind("close", lambda evt: run.env.later(SETTLE, run.finish))


@scenario
def bind_inside_a_handler(run: Run) -> None:
    ws = run.open("many")
    seen: list[str] = []

    def handler(evt: Any) -> None:
        seen.append(evt.data)
        if len(seen) == 198:
            ws.bind("message", lambda evt: run.note("late", evt.data))

    ws.bind("message", handler)
    ws.bind("close", lambda evt: run.env.later(SETTLE, run.finish))


@scenario
def on_attributes(run: Run) -> None:
    ws = run.open("greet-and-close")
    ws.onopen = lambda evt: run.note("onopen", ws.readyState)
    ws.onmessage = lambda evt: run.note("replaced", evt.data)
    ws.onmessage = lambda evt: run.note("onmessage", evt.data)
    ws.onerror = lambda evt: run.note("onerror")
    ws.onclose = lambda evt: run.note("onclose", evt.code)
    run.watch(ws)


@scenario
def a_handler_that_raises(run: Run) -> None:
    ws = run.open("greet-and-close")

    def bad(evt: Any) -> None:
        run.note("raises", evt.type)
        raise ValueError("on purpose")

    ws.bind("open", bad)
    ws.bind("message", bad)
    run.watch(ws)


@scenario
def what_an_event_says(run: Run) -> None:
    ws = run.open("greet-and-close")

    def look(evt: Any) -> None:
        run.note(evt.type, evt.target.url.replace(run.base, "BASE"), evt.target.readyState, evt.timeStamp >= 0)

    for name in ("open", "message", "close"):
        ws.bind(name, look)
    run.watch(ws)


@needs_tasks
def what_a_new_socket_says(run: Run) -> None:
    ws = run.visit("echo", open=close)
    run.note(ws.url.replace(run.base, "BASE"), ws.readyState, ws.protocol, ws.extensions, ws.bufferedAmount)
    run.note(ws.binaryType, ws.CONNECTING, ws.OPEN, ws.CLOSING, ws.CLOSED)


# -- what Python does otherwise


@scenario
def an_unknown_event(run: Run) -> None:
    ws = run.visit("echo", open=close)
    run.attempt("bind", ws.bind, "nosuch", lambda evt: None)


@scenario
def what_is_no_text_is_sent(run: Run) -> None:
    def send(ws: Any, evt: Any) -> None:
        run.attempt("None", ws.send, None)
        run.attempt("int", ws.send, 5)
        run.attempt("dict", ws.send, {})
        ws.close()

    run.visit("note", open=send)
