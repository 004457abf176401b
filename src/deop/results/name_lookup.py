"""The names of a result that a picture or a heatmap is made for."""

from collections.abc import Iterable, Sequence

from deop.errors import SettingError
from deop.text.vocabulary import name_key


def find_names(
    requested: Sequence[str] | str, names: Sequence[str], synonyms: Sequence[Sequence[str]] | None = None
) -> list[int]:
    """The indices of requested names; spellings of one name are equal, and synonyms count.

    Args:
        requested: names or synonyms: a list, or a string that is split at semicolons if it has any, else at commas.
        names: K names.
        synonyms: all texts of each name; None: the names alone.

    Returns:
        The indices without repetitions, in the order of the request.

    Raises:
        SettingError: one of the requested names is not among the names.

    >>> find_names("Couch, cat", ["cat", "sofa"], [["cat"], ["sofa", "couch"]])
    [1, 0]
    """
    if isinstance(requested, str | Sequence) and not len(requested):
        return []  # each photo asks for its heatmaps, and mostly there are none
    index: dict[str, int] = {}
    for number, texts in enumerate(synonyms or ()):
        index |= {name_key(text): number for text in texts}
    index |= {name_key(name): number for number, name in enumerate(names)}
    if isinstance(requested, str):
        whole = requested.strip()
        # A single name may contain commas.
        requested = [whole] if name_key(whole) in index else whole.split(";" if ";" in whole else ",") if whole else []
    if not isinstance(requested, Iterable):
        raise SettingError(f"the names must be a list of strings, or one string with commas, not {requested!r}")
    found: dict[int, None] = {}
    for name in requested:
        if not isinstance(name, str):
            raise SettingError(f"{name!r} is not a name: give strings")
        parts = [name_key(part) for part in name.split("|")]
        match = next((index[key] for key in (name_key(name), *parts) if key in index), None)
        if match is None:
            known = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise SettingError(f"{name.strip()!r} is not one of the requested names, which are: {known}")
        found[match] = None
    return list(found)
