"""Commands whose options are grouped in data classes, for typer, which knows functions with one parameter per option.

Also adds ``--config`` and ``--no-config`` to each command.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

from deop.cli.config_file import ConfigFile, NoConfig, defaults_in_force
from deop.errors import DeopError, SettingError


def flat(function: Callable[..., None]) -> Callable[..., None]:
    """The function that typer takes for a command: one parameter per option, and those of configuration files.

    Args:
        function: the command. A parameter whose type is a data class stands for the options that are its fields.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            parameters += _parameters_of(groups[name])
        else:
            parameters.append(_parameter(name, hints[name], parameter.default))
    parameters += [_parameter("config", ConfigFile, None), _parameter("no_config", NoConfig, False)]

    @wraps(function)
    def run(config: Path | None = None, no_config: bool = False, **values: Any) -> None:
        defaults = defaults_in_force()
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        try:
            function(**values)
        except DeopError as error:
            if error.exit_code == SettingError.exit_code and defaults.values:
                error.add_note(defaults.describe())
            raise

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    empty = inspect.Parameter.empty
    return [
        _parameter(field.name, hints[field.name], empty if field.default is MISSING else field.default)
        for field in fields(group)
    ]


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
