"""Recipes: YAML files read strictly into data classes, with ``key=value`` overrides from the command line."""

import difflib
import re
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from deop.config import describe, fits, from_json
from deop.errors import CheckpointError, MissingDependencyError, SettingError
from deop.files import LARGEST_TEXT, check_regular, replacing

T = TypeVar("T")

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""Numbers such as 1e-4, which YAML 1.1 reads as strings."""

_BOOLEAN = re.compile(r"true|True|false|False")
"""The only booleans here. YAML 1.1 also reads yes, no, on and off as booleans."""


def read_recipe(
    kind: type[T], file: str | Path | None, overrides: Sequence[str] = (), base: Mapping[str, Any] = {}
) -> T:
    """Read a recipe and apply overrides.

    Args:
        kind: the data class of the recipe. Its fields may be data classes themselves.
        file: a YAML file; None: start from the defaults.
        overrides: ``key=value``, such as ``loop.schedule.kind=poly``; the value is YAML.
        base: values that replace those of the file, in nested mappings. Overrides take precedence over them.

    Raises:
        SettingError: a file that cannot be read, an unknown key (the message suggests similar ones), or a value of the
            wrong type.
    """
    where = "the command line" if file is None else str(file)
    try:
        if file is not None:
            check_regular(Path(file), pipes=True, largest=LARGEST_TEXT)
        values: Any = {} if file is None else _parse_yaml(Path(file).read_text(encoding="utf-8-sig"), where)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(f"cannot read the recipe {where}: {reason}") from error
    if not isinstance(values, dict):
        raise SettingError(f"{where} is not a recipe: expected lines such as 'model: nano'")
    _merge(values, base)
    for override in overrides:
        key, mark, text = override.partition("=")
        if not mark:
            raise SettingError(f"{override!r} is not a setting: write key=value, such as loop.seed=1")
        nested: Any = _parse_yaml(text, override) if text else ""
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(values, nested)
    return build(kind, values, where)


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build a data class, and the data classes in its fields, from nested mappings.

    Args:
        kind: the data class.
        values: fields by name. Fields that are omitted keep their default.
        where: source of the values, for error messages.

    Raises:
        SettingError: as ``read_recipe``.
    """
    return _build(kind, values, where, "", sorted(_keys(kind)))


def write_recipe(values: Mapping[str, Any], path: Path) -> None:
    """Write the result of ``plain`` in the form that ``read_recipe`` reads."""
    import yaml

    with replacing(path) as file:
        file.write(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode())


def plain(recipe: Any) -> dict[str, Any]:
    """A recipe as JSON values.

    >>> from deop.training.schedules import Schedule
    >>> plain(Schedule("cosine"))["kind"]
    'cosine'
    """

    def simple(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: simple(part) for key, part in value.items()}
        return [simple(part) for part in value] if isinstance(value, (list, tuple)) else value

    return simple(asdict(recipe))


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], ignored: Sequence[str] = (), prefix: str = ""
) -> list[str]:
    """Describe the differences between two recipes, one string per setting.

    Args:
        before: the first recipe, as ``plain`` returns it; may have been saved as JSON in between.
        now: the second recipe, likewise.
        ignored: last parts of keys that are not compared.
        prefix: prefix of the keys in the result, ending with a dot.

    >>> differences({"loop": {"seed": 0}}, {"loop": {"seed": 1}})
    ['loop.seed was 0, now 1']
    """
    changes = []
    for key in sorted(set(before) | set(now)):
        old, new = (_to_tuples(values.get(key)) for values in (before, now))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += differences(old, new, ignored, f"{prefix}{key}.")
        elif key not in ignored and old != new:
            changes.append(f"{prefix}{key} was {before.get(key)}, now {now.get(key)}")
    return changes


def _build(kind: Any, values: Any, where: str, prefix: str, all_keys: Sequence[str]) -> Any:
    if not isinstance(values, Mapping):
        raise SettingError(f"{where}: {prefix.rstrip('.')} is {values!r}: expected nested settings")
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise SettingError(
                f"{where}: unknown setting {prefix}{key}: {_suggestion(str(key), prefix, all_keys, known)}"
            )
        inner = _data_class(hints[key])
        if isinstance(value, str) and hasattr(inner, "parse"):
            try:
                built[key] = inner.parse(value)  # such as the name of a severance
            except SettingError as error:
                raise SettingError(f"{where}: {prefix}{key}: {error}") from error
        elif inner is not None and (value is not None or not _optional(hints[key])):
            if isinstance(value, Mapping) and is_dataclass(default := _default(known[key])):
                # Nested settings that are omitted keep this recipe's defaults, not those of the nested class.
                complete = plain(default)
                _merge(complete, value)
                value = complete
            built[key] = _build(inner, value, where, f"{prefix}{key}.", all_keys)
        else:
            built[key] = value = _to_tuples(value)
            if not fits(value, hints[key]):
                raise SettingError(f"{where}: {prefix}{key} is {value!r}: expected {describe(hints[key])}")
    missing = [f"{prefix}{name}" for name, field in known.items() if name not in built and _default(field) is MISSING]
    if missing:
        raise SettingError(f"{where}: {', '.join(missing)} must be set")
    try:
        return from_json(kind, built, prefix.rstrip(".") or "the recipe")
    except (CheckpointError, SettingError) as error:
        raise SettingError(f"{where}: {error}") from error


def _suggestion(key: str, prefix: str, all_keys: Sequence[str], known: Mapping[str, Any]) -> str:
    """What an unknown key may have been meant to be."""
    similar = difflib.get_close_matches(f"{prefix}{key}", all_keys, n=3, cutoff=0.6)
    similar += [name for name in all_keys if name.rpartition(".")[2] == key and name not in similar]
    if similar:
        return f"did you mean {' or '.join(similar[:3])}?"
    return f"the settings here are {', '.join(sorted(known))}"


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """The keys of all settings of a data class, including nested ones."""
    for name, hint in typing.get_type_hints(kind).items():
        inner = _data_class(hint)
        if inner is None:
            yield f"{prefix}{name}"
        else:
            yield from _keys(inner, f"{prefix}{name}.")


def _data_class(hint: Any) -> Any:
    """The data class of a field, also if the field may be None; None for other types."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if is_dataclass(kind)), None)


def _optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(part) for part in value) if isinstance(value, list) else value


def _merge(values: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Replace values in place; nested mappings are merged."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _parse_yaml(text: str, where: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingDependencyError('recipes need pyyaml: pip install "deop[train]"') from error

    class Loader(yaml.SafeLoader):
        """A safe loader that reads 1e-4 as a number and ``no`` as a string, and refuses repeated keys."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            keys = [key.value for key, _ in node.value]
            if repeated := next((key for key in keys if keys.count(key) > 1), None):
                raise yaml.YAMLError(f"the key {repeated!r} is repeated")
            return super().construct_mapping(node, deep)

    boolean = "tag:yaml.org,2002:bool"
    Loader.yaml_implicit_resolvers = {
        key: [rule for rule in rules if rule[0] != boolean]
        for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(boolean, _BOOLEAN, list("tTfF"))
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
