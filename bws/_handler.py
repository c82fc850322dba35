"""What a handler takes: the event, or nothing. Decided when it is bound."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import Any

from ._system import runs_later, signature_of
from ._text import brief

__all__ = ["Handler", "one_argument"]

Handler = Callable[..., object]


def one_argument(fn: Handler, name: str = "handler", value: str = "event") -> Callable[[Any], object]:
    """A callable that takes the event, for a handler that takes the event or nothing.

    Args:
        fn: The handler.
        name: What it is called in messages.
        value: What it gets, in messages.

    Raises:
        TypeError: `fn` is not callable, or needs something else than one positional argument or none.
    """
    if not callable(fn):
        raise TypeError(f"a {name} must be callable, not {brief(fn)}")
    takes = _plain_arguments(fn)
    if takes is not None:
        return fn if takes else lambda event: fn()
    if kind := runs_later(fn):
        fix = "without yield"
        if kind == "coroutine":
            fix = f"such as lambda {value}: asyncio.create_task({name}({value})), with dispatch=bws.dispatch.asyncio()"
        raise TypeError(
            f"{name} {brief(fn)} is a {kind} function, whose body would never run; give a plain function, {fix}"
        )
    try:
        signature = signature_of(fn)
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values()):
            signature = signature_of(fn, follow_wrapped=True)  # a decorator that passes on: its function decides
    except (ValueError, TypeError):
        return _without_signature(fn, name, value)
    try:
        signature.bind(None)
    except TypeError:
        try:
            signature.bind()
        except TypeError:
            raise TypeError(
                f"{name} {brief(fn)} must accept the {value} or no argument at all; its signature is {signature}"
            ) from None
        return lambda event: fn()
    return fn


# What a TypeError says if there is a form of the call without an argument: PyQt's, and a line of PySide's.
_EMPTY_FORM = re.compile(r"too many arguments|\(\)$", re.MULTILINE)


def _without_signature(fn: Handler, name: str, value: str) -> Handler:
    """For a builtin that does not say what it takes, such as a method of Qt's: the event, or else nothing.

    What its first TypeError is about decides. About the number of arguments, as of ``deque().clear``: it takes none,
    and is called again without; if that is a TypeError too, the first one is reported. About the event, as of
    ``label.setText``, ``{}.update`` and ``int``: it takes one argument, and this one does not fit. That is reported,
    also if it might be called without, as a function that has a signature gets the event then too.
    """
    takes: bool | None = None

    def call(event: object) -> object:
        nonlocal takes
        if takes is False:
            return fn()
        try:
            result = fn(event)
        except TypeError as exc:
            if not _refused(exc):
                raise
            first = exc
        else:
            takes = True
            return result
        try:
            if takes is None and not _is_about(first, event):
                takes = False
                try:
                    return fn()
                except TypeError as exc:
                    if not _refused(exc):
                        raise
                    takes = True
            part = f"{value}.data" if value == "event" else f"str({value})"
            raise TypeError(
                f"{first} ({name} {brief(fn)} got the {value}; give a function that calls it with what it takes, "
                f"such as lambda {value}: {name}({part}))"
            ) from first
        finally:
            del first  # it refers to this frame

    return call


def _refused(exc: TypeError) -> bool:
    """Whether a builtin did not take its arguments, rather than failed further in, in Python code that it called."""
    traceback = exc.__traceback__
    return traceback is not None and traceback.tb_next is None


def _is_about(exc: TypeError, value: object) -> bool:
    """Whether an argument was taken and found wrong, and no form of the call is known that takes none."""
    text = str(exc)
    # Not in a repr or a dotted name: pybind11 and nanobind say what was given, whatever was wrong.
    named = re.search(rf"(?<![\w.<]){re.escape(type(value).__name__)}\b", text)
    return named is not None and not _EMPTY_FORM.search(text)


_VARARGS = 0x04  # inspect.CO_VARARGS
# inspect.CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR
_NOT_PLAIN = 0x20 | 0x80 | 0x100 | 0x200


def _plain_arguments(fn: Handler) -> int | None:
    """1 or 0 for a plain function or method that takes the event or nothing; None: look closer."""
    bound = 0
    if isinstance(fn, types.MethodType):
        fn, bound = fn.__func__, 1
    # What a decorator has left in __dict__ may say more than the code does.
    if type(fn) is not types.FunctionType or fn.__dict__:
        return None
    code = fn.__code__
    most = code.co_argcount - bound
    least = most - len(fn.__defaults__ or ())
    various = code.co_flags & _VARARGS
    if code.co_flags & _NOT_PLAIN or code.co_kwonlyargcount or (most < 0 and not various):
        return None
    if least <= 1 and (most >= 1 or various):
        return 1
    return 0 if most == 0 else None
