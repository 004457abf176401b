"""What an exported folder says about itself: the section "onnx" of its ``config.json``.

Two kinds of folder have the section. A folder that ``deop export`` wrote has the format "deop-onnx" and no description
of torch's modules. A folder in deop's own format, such as the built-in model, may have graphs beside its weights.
"""

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
