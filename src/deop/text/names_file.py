"""Class names from files: text, JSON and CSV."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deop.errors import SettingError, VocabularyError
from deop.files import LARGEST_TEXT, check_regular, json_of
from deop.text.vocabulary import VocabularyWarning, shorten, split_name

COLUMNS = ("name", "class", "class_name", "classname", "label", "category")
"""Titles of the CSV column with the names, in the order in which they are looked for."""

LISTS = ("classes", "categories", "names")
"""Keys of a JSON object whose value is the list of classes."""


def read_class_names(path: str | Path) -> list[str]:
    """The class names in a file, for ``Vocabulary.parse`` and ``DeOP.segment``.

    Args:
        path: a file in UTF-8 (or UTF-16 with a byte order mark).

            * ``.json``: a list of names, or of objects with a "name", such as ``classes.json`` of a data set; also an
              object whose "classes", "categories" or "names" are that list.
            * ``.csv``, ``.tsv``: a table with a title row and a column "name", "class", "label" or "category".
            * other files: text, as ``parse_class_names`` reads it.

    Returns:
        The names in the order of the file, each possibly with synonyms: "sofa|couch".

    Raises:
        SettingError: a file that cannot be read, or has another form.
        VocabularyError: no names, or a name that is blank or occurs twice; the message says in which lines.
    """
    path = Path(path)
    text = _decode(path)
    if path.suffix.lower() == ".json":
        return _from_json(text, str(path))
    if path.suffix.lower() in (".csv", ".tsv"):
        try:
            return _from_table(text, str(path), "\t" if path.suffix.lower() == ".tsv" else None)
        except csv.Error as error:
            raise SettingError(f"cannot read names from {path}: {error}; check its quotes") from error
    return parse_class_names(text, str(path))


def parse_class_names(text: str, source: str) -> list[str]:
    """The class names in a text, for example a file or standard input.

    It is read like names that are typed: line breaks and commas separate names, and ``|`` joins synonyms. If there is a
    semicolon, semicolons and line breaks separate, and commas belong to the names. Blank lines and lines that start
    with ``#`` are ignored. A text that starts with ``[`` or ``{`` and is JSON is read as JSON.

    Args:
        text: the text.
        source: where it comes from, for messages: "names.txt" or "standard input".

    Raises:
        SettingError: JSON of another form.
        VocabularyError: no names, or a name that is blank or occurs twice; the message says in which lines.

    Warns:
        VocabularyWarning: some lines have one name and some have several.

    >>> parse_class_names("# kitchen\\ncup, table\\nsofa|couch", "names.txt")
    ['cup', 'table', 'sofa|couch']
    """
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return _from_json(text, source)
        except SettingError:
            if _is_json(text):
                raise
    lines = [(number, line.strip()) for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    mark = ";" if any(";" in line for _, line in lines) else ","
    entries = [(number, name.strip()) for number, line in lines for name in line.removesuffix(mark).split(mark)]
    several = [(number, line) for number, line in lines if mark == "," and "," in line.removesuffix(mark)]
    if several and len(several) < len(lines):
        number, line = several[0]
        warnings.warn(
            f"{source}, line {number}: {shorten(line)!r} is read as {line.removesuffix(mark).count(mark) + 1} names. "
            "If it is one, write | between its synonyms, or end the line with ; so that commas belong to the names",
            VocabularyWarning,
            stacklevel=3,
        )
    return _checked(entries, source)


def _decode(path: Path) -> str:
    try:
        check_regular(path, pipes=True, largest=LARGEST_TEXT)
        content = path.read_bytes()
        is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except (OSError, ValueError) as error:
        raise SettingError(
            f"cannot read names from {path}: {getattr(error, 'strerror', None) or error}. It must be a text file in "
            "UTF-8, with one name per line"
        ) from error


def _is_json(text: str) -> bool:
    try:
        json_of(text)
    except ValueError:
        return False
    return True


def _from_json(text: str, source: str) -> list[str]:
    expected = '["cat", "dog"] or [{"name": "cat"}, {"name": "dog"}]'
    try:
        values: Any = json_of(text)
    except ValueError as error:
        raise SettingError(f"{source} is not valid JSON: {error}. Expected {expected}") from error
    if isinstance(values, dict):
        values = next((values[key] for key in LISTS if key in values), None)
    if not isinstance(values, list):
        raise SettingError(f"{source} has no list of names: expected {expected}")
    entries = []
    for number, entry in enumerate(values, 1):
        name = entry.get("name") if isinstance(entry, dict) else entry
        if not isinstance(name, str):
            raise SettingError(f"{source}: entry {number} has no name: expected {expected}")
        entries.append((number, name))
    return _checked(entries, source, "entry")


def _from_table(text: str, source: str, delimiter: str | None) -> list[str]:
    title = text.lstrip("\n").split("\n", 1)[0]
    if delimiter is None:
        delimiter = max(",;\t", key=title.count)
    rows = csv.reader(text.splitlines(), delimiter=delimiter)
    titles = [cell.strip().casefold() for cell in next(rows, [])]
    column = next((titles.index(title) for title in COLUMNS if title in titles), None)
    if column is None:
        raise SettingError(
            f'{source} has no column of names: its first row is {shorten(title.strip())!r}. Name the column "name", or '
            "save a plain list as .txt"
        )
    entries = [(rows.line_num, row[column]) for row in rows if len(row) > column and any(map(str.strip, row))]
    return _checked(entries, source)


def _checked(entries: Sequence[tuple[int, str]], source: str, unit: str = "line") -> list[str]:
    """The names, if each can be used and none occurs twice.

    Args:
        entries: pairs (number of the line, name).
        source: where they come from.
        unit: what is counted, "line" or "entry".
    """
    if not entries:
        raise VocabularyError(f"{source} has no names: write one per line, such as 'cat'")
    plural = {"line": "lines", "entry": "entries"}[unit]
    first_in: dict[str, tuple[int, int]] = {}
    for index, (number, name) in enumerate(entries):
        try:
            texts = split_name(name)
        except VocabularyError as error:
            raise VocabularyError(f"{source}, {unit} {number}: {error}") from None
        for text in texts:
            other, line = first_in.setdefault(text.casefold(), (index, number))
            if other != index:
                places = f"twice in {unit} {number}" if line == number else f"in {plural} {line} and {number}"
                raise VocabularyError(
                    f"{source}: {shorten(text)!r} is {places}. Remove one of them, or join the names with '|' "
                    "(upper and lower case are equal)"
                )
    return [name for _, name in entries]
