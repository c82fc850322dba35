"""Constants as Web IDL has them (https://webidl.spec.whatwg.org/#es-constants)."""

from __future__ import annotations

__all__ = ["Constant"]


class Constant:
    """A number of a class and of its objects, where it can neither be set nor deleted."""

    __slots__ = ("_name", "_value")

    def __init__(self, value: int) -> None:
        self._value = value

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> int:
        return self._value

    def __set__(self, instance: object, value: object) -> None:
        raise AttributeError(f"{self._name} is a constant, {self._value}, and cannot be set")

    def __delete__(self, instance: object) -> None:
        raise AttributeError(f"{self._name} is a constant, {self._value}, and cannot be deleted")
