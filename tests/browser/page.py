"""The frame of the scenarios in a browser: run by Brython, not by CPython."""

# mypy: ignore-errors

import scenarios
from browser import timer, websocket, window


class Environment:
    """See scenarios.py."""

    def __init__(self, refused):
        self.WebSocket = websocket.WebSocket
        self.refused = refused
        self.later = lambda ms, fn: timer.set_timeout(fn, ms)

    def shown(self, data, brief):
        if isinstance(data, str):
            return brief(data)
        return "bytes " + window.octetsOf(data)

    def buffer(self, octets):
        return window.Uint8Array.new(octets)

    def name_of(self, exc):
        # Of what JavaScript has thrown Brython keeps the message; its name is at the start of the stack.
        return window.stackOf(exc).split(":")[0] if type(exc).__name__ == "JavascriptError" else type(exc).__name__


def to_js(value):
    """Lists as JavaScript's arrays: Brython's json cannot write characters outside the BMP, nor NUL."""
    if not isinstance(value, (list, tuple)):
        return value
    array = window.Array.new()
    for part in value:
        array.push(to_js(part))
    return array


def run(name, base, refused, done):
    """Run one scenario; `done` is called with its trace as JSON."""
    it = scenarios.Run(Environment(refused), base, lambda trace: done(window.JSON.stringify(to_js(trace))))
    scenarios.SCENARIOS[name](it)


window.runScenario = run
