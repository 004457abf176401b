"""What an exported folder says about itself: the section "onnx" of its ``config.json``.

Two kinds of folder have the section. A folder that ``deop export`` wrote has the format "deop-onnx" and no description
of torch's modules. A folder in deop's own format, such as the built-in model, may have graphs beside its weights.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deop._version import __version__
from deop.config import from_json
from deop.errors import CheckpointError
from deop.files import read_json
from deop.images.preprocessing import Normalization
from deop.settings import Card, Settings

FORMAT = "deop-onnx"
VERSION = 1
"""Version of the section, and of the format."""

MODEL_FORMAT = "deop"
MODEL_VERSION = 1
"""Format and version of folders that torch reads (``deop.weights.format``)."""

MODEL_KEYS = frozenset(
    ("format", "version", "deop", "card", "settings", "encoder", "text", "proposer", "anchors", "no_object", "sha256")
)
"""Keys that the config of such a folder has; "onnx" may be added."""

_KEYS = {FORMAT: frozenset(("format", "version", "deop", "card", "settings", "onnx")), MODEL_FORMAT: MODEL_KEYS}
_VERSIONS = {FORMAT: VERSION, MODEL_FORMAT: MODEL_VERSION}

PRECISIONS = ("float32", "float16", "int8")
"""float16: weights are stored in half precision. int8: weights and activations are quantised."""

Precision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Graphs:
    """The graphs of one precision, as file names in the folder.

    Attributes:
        encode: pixels -> masks and regions; None for a model without a proposer.
        regions: pixels and masks that the caller gives -> regions.
    """

    encode: str | None = None
    regions: str | None = None


@dataclass(frozen=True)
class TextParts:
    """How the folder embeds names.

    Attributes:
        kind: "words": the word list and table of the small model ("text.rows" in ``file``). "clip": a text tower as a
            graph with its tokenizer. "names": embeddings of names that were computed at export ("rows" in ``file``,
            with the texts in its metadata).
        file: the safetensors file with the table; "" for a text tower.
        graph: the text tower: tokens (n, length) int64 -> embeddings (n, C) float32; "" for a table.
        tokenizer: ``tokenizer.json`` of the text tower, in the format of the library tokenizers; "" for a table.
        width: channels C of the joint space.
        context_length: maximum number of tokens of a text; 0 for a table.
        uses_templates: whether names are inserted into sentence templates.
        identity: hash of everything that embeddings depend on, a file name; "" for a table.
    """

    kind: Literal["words", "clip", "names"]
    file: str = ""
    graph: str = ""
    tokenizer: str = ""
    width: int = 0
    context_length: int = 0
    uses_templates: bool = False
    identity: str = ""


@dataclass(frozen=True)
class OnnxParts:
    """The section "onnx".

    Attributes:
        version: ``VERSION``.
        graphs: graphs by precision; the first is the default.
        files: SHA-256 of every file of the folder that the runtime reads, except ``config.json``, by name.
        text: how names are embedded.
        normalization: normalisation of the pixels that the graphs take.
        multiple: the sides of the pixels must be multiples of this.
        smallest: smallest side of the pixels that the graphs take; shorter ones are padded.
        masks_are_instances: whether each mask of a thing is one whole thing (``protocols.Proposer``).
        no_object: (C,) the learned "no object" vector, as a list of numbers; None without one.
    """

    version: int
    graphs: Mapping[str, Any]
    files: Mapping[str, str]
    text: TextParts
    normalization: Normalization
    multiple: int = 32
    smallest: int = 64
    masks_are_instances: bool = True
    no_object: tuple[float, ...] | None = None

    def graphs_of(self, precision: str | None) -> Graphs:
        """The graphs of a precision; None: those of the first one."""
        return from_json(Graphs, self.graphs[precision or next(iter(self.graphs))], "the graphs")


@dataclass(frozen=True)
class RuntimeConfig:
    """Everything that ``config.json`` tells the runtime.

    Attributes:
        folder: the folder.
        onnx: the graphs and what they need.
        settings: default behaviour. Its severance, anchors, padding and ``drop_redundant`` are part of the graphs.
        card: description of the model.
    """

    folder: Path
    onnx: OnnxParts
    settings: Settings = field(default_factory=Settings)
    card: Card = field(default_factory=Card)


def has_graphs(config: Mapping[str, Any]) -> bool:
    """Whether the content of a ``config.json`` describes ONNX graphs."""
    return str(config.get("format")) in _KEYS and config.get("onnx") is not None


def read_runtime_config(folder: str | Path) -> RuntimeConfig:
    """Read and check what ``config.json`` tells the runtime. No other file is read.

    Raises:
        CheckpointError: no such file; another format, or a newer version; unknown or missing keys; a value of the wrong
            type; a file name that is not that of a file in the folder, or that has no SHA-256.
    """
    folder = Path(folder)
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("format")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise CheckpointError(f"{path} has the format {kind!r}: expected {FORMAT!r}, which `deop export` writes")
    _check_version(path, config.get("version"), _VERSIONS[kind])
    if config.get("onnx") is None:
        raise CheckpointError(
            f'{folder} has no ONNX graphs: export it with `deop export {folder} NEW_FOLDER`, or use engine="torch"'
        )
    problems = [f"{key} is not known" for key in sorted(set(config) - _KEYS[kind] - {"onnx"})]
    problems += [f"{key} is missing" for key in sorted(_KEYS[kind] - set(config))]
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems)}. Fetch or export the folder again")
    if isinstance(config["onnx"], Mapping):
        _check_version(path, config["onnx"].get("version"), VERSION)  # first: a newer version may have other keys
    parts = from_json(OnnxParts, config["onnx"], f'the section "onnx" of {path}')
    try:
        _check_files(parts)
        _check_text(parts)
        _check_numbers(parts)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}. Fetch or export the folder again") from error
    return RuntimeConfig(
        folder,
        parts,
        from_json(Settings, config["settings"], "the model"),
        from_json(Card, config["card"], "the card"),
    )


def is_file_name(name: object) -> bool:
    """Whether a value is the name of a file in the same folder, on every operating system.

    >>> is_file_name("encode.onnx"), is_file_name("../encode.onnx"), is_file_name("c:encode.onnx")
    (True, False, False)
    """
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def _check_version(path: Path, version: object, known: int) -> None:
    if version != known or isinstance(version, bool):
        remedy = "update deop" if isinstance(version, int) and version > known else "fetch or export the folder again"
        raise CheckpointError(f"{path} has version {version!r}, and deop {__version__} reads version {known}: {remedy}")


def _check_files(parts: OnnxParts) -> None:
    """Check the names and hashes of all files, and the graphs.

    Raises:
        ValueError: naming the file.
    """
    if not isinstance(parts.files, Mapping) or not isinstance(parts.graphs, Mapping):
        raise ValueError('"files" and "graphs" must be JSON objects')
    for name, digest in parts.files.items():
        if not is_file_name(name):
            raise ValueError(f"{name!r} is not the name of a file in the same folder")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"the SHA-256 of {name} is {str(digest)[:80]!r}: expected 64 hexadecimal digits")
    if not parts.graphs:
        raise ValueError('"graphs" names no precision')
    for precision in parts.graphs:
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: expected {', '.join(PRECISIONS)}")
        graphs = parts.graphs_of(precision)
        if graphs.encode is None and graphs.regions is None:
            raise ValueError(f"no graph for {precision}")
        for graph in (graphs.encode, graphs.regions):
            if graph is not None:
                _check_listed(parts, graph)


def _check_text(parts: OnnxParts) -> None:
    text = parts.text
    needed = {
        "words": (text.file, "words.txt"),
        "clip": (text.graph, text.tokenizer),
        "names": (text.file,),
    }[text.kind]
    for name in needed:
        _check_listed(parts, name)
    if text.width < 1:
        raise ValueError(f"the width of the text encoder is {text.width}")
    if text.kind == "clip" and text.context_length < 3:
        raise ValueError(f"the context length of the text encoder is {text.context_length}")
    if text.kind == "clip" and not re.fullmatch(r"[\w-]{8,100}", text.identity):
        raise ValueError(f"the identity of the text encoder is {text.identity[:80]!r}: it is not a file name")


def _check_numbers(parts: OnnxParts) -> None:
    for label in ("multiple", "smallest"):
        if getattr(parts, label) < 1:
            raise ValueError(f'"{label}" is {getattr(parts, label)}: expected at least 1')
    if parts.no_object is not None and len(parts.no_object) != parts.text.width:
        raise ValueError(f'"no_object" has {len(parts.no_object)} numbers, and the text encoder {parts.text.width}')


def _check_listed(parts: OnnxParts, name: str) -> None:
    if not is_file_name(name):
        raise ValueError(f"{name!r} is not the name of a file in the same folder")
    if name not in parts.files:
        raise ValueError(f'{name} is not listed in "files", with its SHA-256')
