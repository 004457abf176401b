"""``deop.toml``: defaults of options, in one section per command. docs/segmenting.md describes it."""

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from deop.cli.options import RUNTIME, InFile, option
from deop.config import describe, fits
from deop.errors import SettingError
from deop.files import LARGEST_TEXT, check_regular

FILE_NAME = "deop.toml"

_NEVER = frozenset(("config", "no_config", "debug", "help"))
"""Options that a file cannot set."""


@dataclass(frozen=True)
class Defaults:
    """The options that configuration files set for one command.

    Attributes:
        values: values by the name of the parameter.
        files: the file that sets it, by the name of the parameter.
        keys: its key in the file, by the name of the parameter.
    """

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """The options that each file sets, in one line; "" if there are none."""
        by_file: dict[Path, list[str]] = {}
        for name, file in self.files.items():
            by_file.setdefault(file, []).append(self.keys[name])
        return "; ".join(f"{file} sets {', '.join(keys)}" for file, keys in by_file.items())


def find_files() -> list[Path]:
    """The configuration files that exist, the user's before the project's, which takes precedence.

    The project's is ``deop.toml`` in the current directory or the nearest directory above it. Directories above are
    searched only inside a git repository, up to its root, or inside the home directory, since elsewhere (in /tmp)
    other users could leave a file.
    """
    here = Path.cwd()
    above = [here, *here.parents]
    home = Path.home()
    root = next((place for place in above if (place / ".git").exists()), home if home in above else here)
    candidates = above[: above.index(root) + 1]
    project = next((place / FILE_NAME for place in candidates if (place / FILE_NAME).is_file()), None)
    user = Path(typer.get_app_dir("deop")) / FILE_NAME
    files = [user] if user.is_file() and user != project else []
    return files if project is None else [*files, Path(os.path.relpath(project))]


def read_defaults(root: Any, name: str, files: list[Path]) -> Defaults:
    """The options that files set for a command. All sections are checked, also those of other commands.

    Args:
        root: click's group of all commands.
        name: the command.
        files: the files; later ones take precedence.

    Raises:
        SettingError: a file cannot be read, or has an unknown section or key, or a value of the wrong type.
    """
    defaults = Defaults()
    commands = configurable(root)
    for file in files:
        for section, content in _parse(file).items():
            if section not in commands:
                raise SettingError(
                    f"unknown section [{section}] in {file}{_similar(section, commands)}. "
                    f"Each section is named after a command: {', '.join(sorted(commands))}"
                )
            if not isinstance(content, dict):
                raise SettingError(f"{file} sets {section} outside a section: write it below the line [COMMAND]")
            values = _read_section(file, section, content, commands[section])
            if section == name:
                for key, (parameter, value) in values.items():
                    defaults.values[parameter] = value
                    defaults.files[parameter] = file
                    defaults.keys[parameter] = key
    return defaults


def all_commands(context: typer.Context) -> Any:
    """The group of all commands, although the group of the context may have been built with one of them only.

    The object of the outermost context is then a function that builds it (``commands.application``).
    """
    root: Any = context.find_root()
    return root.obj() if callable(root.obj) else root.command


def configurable(root: Any) -> dict[str, Any]:
    """The commands that a file may configure, by name: those with the options of this module."""
    return {
        name: command
        for name, command in root.commands.items()
        if any(parameter.name == "no_config" for parameter in command.params)
    }


def typed(context: typer.Context, name: str) -> bool:
    """Whether an option was typed on the command line: it is neither a default nor from a configuration file."""
    if name not in context.params:
        raise KeyError(name)
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def settable(command: Any) -> dict[str, Any]:
    """click's parameters of a command that a file may set, by their key: the long option without its dashes."""
    return {
        max(parameter.opts, key=len).lstrip("-"): parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name not in _NEVER
    }


def _parse(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        check_regular(file, pipes=True, largest=LARGEST_TEXT)
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise SettingError(f"cannot read {file}: {error}. It must be a TOML file in UTF-8.") from error


def _read_section(file: Path, section: str, content: Mapping[str, Any], command: Any) -> dict[str, tuple[str, Any]]:
    """Key -> the parameter's name and its value as on the command line."""
    parameters = settable(command)
    signature = inspect.signature(command.callback)
    values: dict[str, tuple[str, Any]] = {}
    for written, value in content.items():
        key = written.replace("_", "-")
        if key not in parameters:
            raise SettingError(
                f"unknown key {written!r} in [{section}] of {file}{_similar(key, parameters)}. "
                f"The keys are the long options of `deop {section}`: {', '.join(sorted(parameters))}"
            )
        if key in values:
            raise SettingError(f"{file} sets {key!r} twice in [{section}]: remove one of them")
        parameter = parameters[key]
        hint, convert = _form(signature.parameters[parameter.name].annotation)
        if not fits(value, hint):
            raise SettingError(
                f"{written} = {value!r} in [{section}] of {file} has the wrong type: expected {describe(hint)}"
            )
        for limit, sign in ((_limit(parameter, "min"), 1), (_limit(parameter, "max"), -1)):
            if limit is not None and sign * value < sign * limit:
                bound = "at least" if sign == 1 else "at most"
                raise SettingError(f"{written} = {value!r} in [{section}] of {file}: it must be {bound} {limit}")
        values[key] = (parameter.name, convert(value, file.parent))
    return values


def _form(annotation: Any) -> tuple[Any, Callable[[Any, Path], Any]]:
    """The type of an option in a file, and the function that converts its values."""
    hint, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else [annotation]
    for entry in metadata:
        if isinstance(entry, InFile):
            return entry.hint, entry.convert
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if hint is Path:
        return str, _path
    many = get_origin(hint) is list
    item: Any = get_args(hint)[0] if many else hint
    if isinstance(item, type) and issubclass(item, Enum):
        item = Literal[tuple(str(member.value) for member in item)]
    return (tuple[item, ...] if many else item), lambda value, directory: value


def _path(value: str, directory: Path) -> str:
    """A path of the file, which is relative to the file's directory; "-" stands for a standard stream."""
    place = Path(value).expanduser()
    return value if value == "-" else str(place if place.is_absolute() else directory / place)


def _limit(parameter: Any, name: str) -> Any:
    """The lowest or highest value of a number; where it is stored depends on the release of typer."""
    return getattr(parameter, name, getattr(getattr(parameter, "type", None), name, None))


def _similar(word: str, known: Mapping[str, Any]) -> str:
    similar = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {similar[0]!r}?)" if similar else ""


_in_force: ContextVar[Defaults | None] = ContextVar("defaults", default=None)


def defaults_in_force() -> Defaults:
    """The defaults that configuration files set for the command that is being run."""
    return _in_force.get() or Defaults()


def _load(context: typer.Context, value: Path | None) -> Path | None:
    """Set the defaults of a command before its other options are processed."""
    if context.resilient_parsing:  # the shell asks for completions
        return value
    _in_force.set(None)
    if value is not None and context.meta.get("deop.no_config"):
        raise SettingError("--config and --no-config exclude each other: omit one of them")
    if context.meta.get("deop.no_config"):
        return value
    files = find_files() if value is None else [value]
    context.meta["deop.config"] = value
    if files:
        defaults = read_defaults(all_commands(context), context.info_name or "", files)
        context.default_map = {**(context.default_map or {}), **defaults.values}
        _in_force.set(defaults)
    return value


def _forbid(context: typer.Context, value: bool) -> bool:
    context.meta["deop.no_config"] = value
    if value and context.meta.get("deop.config") is not None:
        raise SettingError("--config and --no-config exclude each other: omit one of them")
    return value


ConfigFile = Annotated[
    Path | None,
    option(
        "--config", metavar="FILE", panel=RUNTIME, is_eager=True, callback=_load,
        help=f"Read defaults of options from this file. Default: {FILE_NAME} in the current directory or above it, and "
        "that in your configuration directory.",
    ),
]  # fmt: skip
NoConfig = Annotated[
    bool,
    option("--no-config", panel=RUNTIME, is_eager=True, callback=_forbid, help="Ignore these files."),
]
