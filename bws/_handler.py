"""What a handler takes: the event, or nothing. Decided when it is bound."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from ._system import signature_of
from ._text import brief

__all__ = ["Handler", "one_argument"]

Handler = Callable[..., object]


def one_argument(fn: Handler) -> Callable[[Any], object]:
    """A callable that takes the event, for a handler that takes the event or nothing.

    Raises:
        TypeError: `fn` is not callable, or needs something else than one positional argument or none.
    """
    if not callable(fn):
        raise TypeError(f"a handler must be callable, not {brief(fn)}")
    takes = _plain_arguments(fn)
    if takes is not None:
        return fn if takes else lambda event: fn()
    import inspect  # loads slowly, and most handlers are plain functions

    if _runs_later(fn) or (type(fn) in _FUNCTIONS and inspect.iscoroutinefunction(fn)):
        raise TypeError(
            f"handler {brief(fn)} is a coroutine or generator function, whose body would never run; bind a plain "
            "function, such as lambda evt: asyncio.ensure_future(handler(evt)) with dispatch=loop.call_soon_threadsafe"
        )
    try:
        signature = signature_of(fn)
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values()):
            signature = signature_of(fn, follow_wrapped=True)  # a decorator that passes on: its function decides
    except (ValueError, TypeError):
        return _without_signature(fn)
    try:
        signature.bind(None)
    except TypeError:
        try:
            signature.bind()
        except TypeError:
            raise TypeError(
                f"handler {brief(fn)} must accept the event or no argument at all; its signature is {signature}"
            ) from None
        return lambda event: fn()
    return fn


def _without_signature(fn: Handler) -> Handler:
    """For a builtin that does not say what it takes, such as a method of Qt's: the event, or else nothing."""
    takes: bool | None = None

    def call(event: object) -> object:
        nonlocal takes
        if takes is None:
            try:
                result = fn(event)
            except TypeError as exc:
                traceback = exc.__traceback__
                if traceback is None or traceback.tb_next is not None:
                    raise  # it took the event, and failed further in
            else:
                takes = True
                return result
            result = fn()
            takes = False
            return result
        return fn(event) if takes else fn()

    return call


_VARARGS = 0x04  # inspect.CO_VARARGS
# inspect.CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR
_NOT_PLAIN = 0x20 | 0x80 | 0x100 | 0x200


_FUNCTIONS = (types.FunctionType, types.MethodType)


def _runs_later(fn: Handler) -> bool:
    """Whether a call only makes a coroutine or a generator."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    # Of an object, what its class calls. A mock may have a mock of each.
    calls = (fn, None if type(fn) in _FUNCTIONS else getattr(type(fn), "__call__", None))  # noqa: B004
    flags = [getattr(getattr(call, "__code__", None), "co_flags", 0) for call in calls]
    return any(isinstance(each, int) and each & _NOT_PLAIN for each in flags)


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
