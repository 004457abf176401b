"""Lists of names, classes.json, deop.toml and config.json."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
from tests.trust.test_bad_input_labels import CLASSES, CONFIGS, NAMES

from deop.cli.commands import build
from deop.cli.config_file import read_defaults
from deop.data.labelled import read_classes
from deop.runtime.config import read_runtime_config
from deop.text.names_file import read_class_names
from deop.text.vocabulary import Vocabulary
from deop.zoo import NANO
from fuzz.photos import written
from fuzz.target import Target

SUFFIXES = (".txt", ".json", ".csv", ".tsv")


def read_names(data: bytes, folder: Path) -> None:
    """A list of names, whose first byte chooses the kind of file. What is read is a vocabulary."""
    path = folder / f"names{SUFFIXES[data[0] % len(SUFFIXES)] if data else '.txt'}"
    path.write_bytes(data[1:])
    names = read_class_names(path)
    try:
        vocabulary = Vocabulary.parse(names)
    except Exception as error:
        raise AssertionError(f"the names were read, but do not form a vocabulary: {error}") from error
    assert len(vocabulary.names) == len(names)


def names() -> Iterator[bytes]:
    """The lists of the table of bad input, as each kind of file, and good ones."""
    good = (b"cat\nsofa|couch\n# no\n", b'["cat", {"name": "dog"}]', b"id,name\n1,cat\n2,dog\n", b"a b, c; d\n")
    for content in (*written(NAMES.items()), *good):
        for kind in range(len(SUFFIXES)):
            yield bytes([kind]) + content


def read_list_of_classes(data: bytes, folder: Path) -> None:
    """classes.json: ids and names are unique and in their range."""
    path = folder / "classes.json"
    path.write_bytes(data)
    classes = read_classes(path)
    assert len({entry.id for entry in classes}) == len(classes) > 0


def lists_of_classes() -> Iterator[bytes]:
    """The lists of the table of bad input, and a good one."""
    yield from (text.encode(errors="surrogatepass") for text in CLASSES)
    yield b'[{"id": 1, "name": "a|b", "isthing": true, "seen": false, "color": "#010203"}, {"id": 2, "name": "c"}]'


@cache
def commands() -> Any:
    """The command line."""
    return typer.main.get_command(build())


def read_toml(data: bytes, folder: Path) -> None:
    """deop.toml."""
    path = folder / "deop.toml"
    path.write_bytes(data)
    read_defaults(commands(), "segment", [path])


def toml_files() -> Iterator[bytes]:
    """The files of the table of bad input, and a good one."""
    yield from (text.encode("latin-1") for text in CONFIGS)
    yield b'[segment]\nclasses = "cat, dog"\nthreshold = 0.3\nmode = "panoptic"\n[batch]\nworkers = 2\n'


def read_config(data: bytes, folder: Path) -> None:
    """config.json of an exported model, as the runtime reads it."""
    (folder / "config.json").write_bytes(data)
    read_runtime_config(folder)


def configs() -> Iterator[bytes]:
    """The config of the built-in model, whole and with one value changed."""
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    yield json.dumps(config).encode()
    wrong: tuple[object, ...] = (None, 7, -1, 1e400, "", [], {}, [1], True)
    for key in config:
        for value in wrong:
            yield json.dumps({**config, key: value}).encode()
    for section in ("onnx", "settings", "card"):
        for key in config.get(section) or ():
            for value in (*wrong, "x", [[1]], {"a": 1}):
                yield json.dumps({**config, section: {**config[section], key: value}}).encode()


TARGETS = (
    Target("names", read_names, names),
    Target("classes-json", read_list_of_classes, lists_of_classes),
    Target("deop-toml", read_toml, toml_files),
    Target("config-json", read_config, configs),
)
