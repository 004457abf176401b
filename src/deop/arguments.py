"""Arguments of public functions and fields of settings, checked against their type hints.

A value of a wrong type is refused with its name, before it causes an error somewhere else.
"""

import collections.abc
import functools
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from deop.errors import SettingError

P = ParamSpec("P")
T = TypeVar("T")

_WORDS = {
    bool: "True or False", int: "an integer", float: "a number", str: "a string", type(None): "None", Path: "a path",
    os.PathLike: "a path", Mapping: "a mapping", collections.abc.Mapping: "a mapping",
    collections.abc.Sequence: "a list", collections.abc.Iterable: "a list", collections.abc.Callable: "a function",
}  # fmt: skip


def check_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator that refuses arguments whose type is not that of the hint.

    Hints in quotes, type variables and ``Any`` accept every value.

    Raises:
        SettingError: naming the argument, when the function is called.

    >>> @check_arguments
    ... def half(number: float) -> float: return number / 2
    >>> half("8")
    Traceback (most recent call last):
    deop.errors.SettingError: number must be a number, not '8'
    """
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    hints = {name: each.annotation for name, each in parameters.items() if each.annotation is not each.empty}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            _check(name, value, hints.get(name, Any))
        return function(*args, **kwargs)

    return call


def check_fields(instance: Any) -> None:
    """Refuse the values of a data class whose type is not that of their field.

    Raises:
        SettingError: naming the field.
    """
    for field in fields(instance):
        _check(field.name, getattr(instance, field.name), field.type)


def _check(name: str, value: Any, hint: Any) -> None:
    if not matches(value, hint):
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
        raise SettingError(f"{name} must be {in_words(hint)}, not {shown}")


def matches(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a hint. Numbers of NumPy count as numbers, and lists as tuples.

    >>> import numpy as np
    >>> matches(np.float32(1), float), matches(True, int), matches([1], tuple[int, ...])
    (True, False, True)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, option) for option in inner)
    if origin is Literal:
        return isinstance(value, tuple({type(option) for option in inner}))
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if inner[-1] is ...:
            return all(matches(item, inner[0]) for item in _one_of_each_type(value))
        return len(inner) == len(value) and all(map(matches, value, inner))
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool) or _is_numpy_bool(value)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if hint is Any:
        return True
    kind = origin or hint
    if kind is collections.abc.Sequence:
        kind = collections.abc.Iterable  # arrays and tensors are not subclasses of Sequence
    return not isinstance(kind, type) or isinstance(value, kind)


def _one_of_each_type(values: Sequence[Any]) -> Collection[Any]:
    """The values that have to be checked: of thousands of names, one; all if some are tuples, whose items matter."""
    by_type = dict(zip(map(type, values), values, strict=True))
    return values if any(issubclass(kind, (tuple, list)) for kind in by_type) else by_type.values()


def _is_numpy_bool(value: Any) -> bool:
    # Shell completion reads settings without NumPy, whose import would take most of its time.
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.bool_)


def in_words(hint: Any) -> str:
    """The values that ``matches`` accepts.

    >>> in_words(float | None)
    'a number or None'
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return f"a tuple, each {in_words(inner[0])}" if inner[-1] is ... else f"a tuple of {len(inner)} values"
    name = getattr(origin or hint, "__name__", str(hint))
    return "an array" if name == "ndarray" else _WORDS.get(origin or hint, f"a {name}")
