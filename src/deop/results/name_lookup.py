"""The names of a result that a picture is made for."""

from collections.abc import Mapping, Sequence
from typing import Any

from deop.errors import SettingError


def find_names(requested: Sequence[str] | str, names: Sequence[str], settings: Mapping[str, Any]) -> list[int]:
    """The indices of requested names; upper and lower case are equal, and synonyms count.

    Args:
        requested: names or synonyms: a list, or a string with commas.
        names: the K names of a result.
        settings: its settings, of which "synonyms" lists all texts of each name.

    Raises:
        SettingError: no name is given, or one is not among the names.

    >>> find_names("Couch", ["cat", "sofa"], {"synonyms": [["cat"], ["sofa", "couch"]]})
    [1]
    """
    if isinstance(requested, str):
        whole = [name for name in names if _key(name) == _key(requested)]  # a name may contain a comma
        requested = whole or requested.split(",")
    groups = settings.get("synonyms") or [[name] for name in names]
    index = {_key(text): number for number, texts in enumerate(groups) for text in texts}
    index |= {_key(name): number for number, name in enumerate(names)}
    found: dict[int, None] = {}
    for name in requested:
        if not isinstance(name, str):
            raise SettingError(f"{name!r} is not a name: give strings")
        if _key(name) not in index:
            known = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise SettingError(f"{name.strip()!r} is not one of the names of this result, which are: {known}")
        found[index[_key(name)]] = None
    if not found:
        raise SettingError("no name is given: give one or more of the names of the result")
    return list(found)


def _key(name: str) -> str:
    return " ".join(name.casefold().split())
