"""Values of options that need no conversion, so that typer does not load the library that converts them.

Recent releases of typer convert every value of a command line with pydantic, also defaults and plain strings. Its
import and the converters of the 50 options of ``deop segment`` take longer than the rest of the command line.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command whose defaults, strings and paths are used as they are; typer converts all other values."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with those that typer adds itself."""
        return _with_plain_values(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The same for the command that the others belong to."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with those that typer adds itself."""
        return _with_plain_values(super().get_params(ctx))


def _with_plain_values(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if not isinstance(parameter.process_value, partial):
            parameter.process_value = partial(_process, parameter, parameter.process_value)
    return parameters


def _process(parameter: Any, convert: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """The value of a parameter of a command line, in place of its method ``process_value``, which is ``convert``."""
    kind, source = _kind(parameter), context.get_parameter_source(parameter.name)
    several = parameter.multiple or parameter.nargs != 1
    if source is not None and source.name == "DEFAULT" and not (parameter.required or (several and value)):
        plain = value
    elif kind is not None and not several and isinstance(value, str):
        plain = kind(value)
    elif kind is not None and several and value and {*map(type, value)} == {str}:
        plain = [kind(item) for item in value]
    else:
        return convert(context, value)
    return plain if parameter.callback is None else parameter.callback(context, parameter, plain)


def _kind(parameter: Any) -> type[str] | type[Path] | None:
    """``str`` or ``Path`` if the values of a parameter have this type, else None, also in older releases of typer."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    if len(kinds) != 1 or kinds[0] not in (str, Path):
        return None
    return kinds[0]
