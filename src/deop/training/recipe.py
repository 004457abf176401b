"""Recipes: YAML files that become data classes, strictly, with ``key=value`` from the command line put over them."""

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from deop.config import from_json
from deop.errors import CheckpointError, MissingDependencyError, SettingError
from deop.files import replacing

T = TypeVar("T")

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""YAML 1.1 takes 1e-4 for a text; nobody else does."""


_SWITCH = re.compile(r"true|True|false|False")
"""YAML 1.1 takes yes, no, on and off for switches too."""


def read_recipe(
    kind: type[T], file: str | Path | None, overrides: Sequence[str] = (), base: Mapping[str, Any] = {}
) -> T:
    """A recipe, with what the command line says put over it.

    Args:
        kind: the data class that it describes; its fields may be data classes themselves.
        file: YAML; None: all values are the defaults.
        overrides: ``loop.schedule.kind=poly``, the value in YAML.
        base: put over the file before the overrides, in nested mappings.

    Raises:
        SettingError: a file that cannot be read, a key that is not known, with those like it, or a value that does not
            fit.
    """
    where = "the command line" if file is None else str(file)
    try:
        values: Any = {} if file is None else _yaml(Path(file).read_text(encoding="utf-8"), where)
    except OSError as error:
        raise SettingError(f"cannot read the recipe {where}: {error.strerror or error}") from error
    if not isinstance(values, dict):
        raise SettingError(f"{where} is no recipe: expected lines such as 'model: nano'")
    _put_over(values, base)
    for override in overrides:
        key, mark, text = override.partition("=")
        if not mark:
            raise SettingError(f"{override!r} is no setting: write key=value, such as loop.seed=1")
        nested: Any = _yaml(text, override) if text else ""
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _put_over(values, nested)
    return build(kind, values, where)


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A data class and those in it from nested mappings.

    Args:
        kind: the data class.
        values: its fields by name; those left out keep their default.
        where: the file, for errors.

    Raises:
        SettingError: as ``read_recipe``.
    """
    return _build(kind, values, where, "", sorted(_keys(kind)))


def write_recipe(values: Mapping[str, Any], path: Path) -> None:
    """What ``plain`` gives, as ``read_recipe`` reads it back."""
    import yaml

    with replacing(path) as file:
        file.write(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


def plain(recipe: Any) -> dict[str, Any]:
    """A recipe in JSON's own types."""

    def simple(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: simple(part) for key, part in value.items()}
        return [simple(part) for part in value] if isinstance(value, (list, tuple)) else value

    return simple(asdict(recipe))


def differing(before: Mapping[str, Any], now: Mapping[str, Any], but: Sequence[str] = (), where: str = "") -> list[str]:
    """What two recipes, as ``plain`` gives them, differ in, said in a line each.

    Args:
        before: one.
        now: the other; either may have been in JSON.
        but: last names of settings that are passed over.
        where: the part that they are of, with a dot.
    """
    found = []
    for key in sorted(set(before) | set(now)):
        old, new = (_tuples(values.get(key)) for values in (before, now))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differing(old, new, but, f"{where}{key}.")
        elif key not in but and old != new:
            found.append(f"{where}{key} was {before.get(key)}, now {now.get(key)}")
    return found


def _build(kind: Any, values: Any, where: str, prefix: str, known: Sequence[str]) -> Any:
    if not isinstance(values, Mapping):
        raise SettingError(f"{where}: {prefix.rstrip('.')} is {values!r}: expected settings below it")
    hints = typing.get_type_hints(kind)
    own = {field.name: field for field in fields(kind)}
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in own:
            near = difflib.get_close_matches(f"{prefix}{key}", known, n=3, cutoff=0.6)
            near += [name for name in known if name.rpartition(".")[2] == key and name not in near]
            hint = f"did you mean {' or '.join(near[:3])}?" if near else f"there are {', '.join(sorted(own))}"
            raise SettingError(f"{where}: unknown setting {prefix}{key}: {hint}")
        inner = _data_class(hints[key])
        if inner is not None and (value is not None or not _optional(hints[key])):
            if isinstance(value, Mapping) and is_dataclass(default := _default(own[key])):
                # What is left out stays as this recipe has it, not as the class has it by itself.
                value = _merged(plain(default), value)
            built[key] = _build(inner, value, where, f"{prefix}{key}.", known)
        else:
            built[key] = value = _tuples(value)
            if not _fits(value, hints[key]):
                raise SettingError(f"{where}: {prefix}{key} is {value!r}: expected {_said(hints[key])}")
    missing = [f"{prefix}{name}" for name, field in own.items() if name not in built and _default(field) is MISSING]
    if missing:
        raise SettingError(f"{where}: {', '.join(missing)} must be set")
    try:
        return from_json(kind, built, prefix.rstrip(".") or "the recipe")
    except (CheckpointError, SettingError) as error:
        raise SettingError(f"{where}: {error}") from error


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _merged(values: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    _put_over(values, other)
    return values


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """All settings of a data class and of those in it, with dots."""
    for name, hint in typing.get_type_hints(kind).items():
        inner = _data_class(hint)
        if inner is None:
            yield f"{prefix}{name}"
        else:
            yield from _keys(inner, f"{prefix}{name}.")


def _data_class(hint: Any) -> Any:
    """The data class that a field holds, also where it may be None instead."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if is_dataclass(kind)), None)


def _optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in inside)
    if origin is Literal:
        return value in inside
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = [inside[0]] * len(value) if inside[-1] is ... else list(inside)
        return len(kinds) == len(value) and all(_fits(part, one) for part, one in zip(value, kinds, strict=True))
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _said(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, inside))
    if origin is tuple:
        return f"a list, each {_said(inside[0])}"
    return " or ".join(_said(part) for part in inside) if inside else words.get(hint, str(hint))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _put_over(values: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _put_over(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _yaml(text: str, where: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError('recipes need pyyaml: pip install "deop[train]"') from error

    class Loader(yaml.SafeLoader):
        """Safe, 1e-4 is a number, and precision=no a text."""

    switch = "tag:yaml.org,2002:bool"
    Loader.yaml_implicit_resolvers = {
        key: [rule for rule in rules if rule[0] != switch]
        for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(switch, _SWITCH, list("tTfF"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise SettingError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
