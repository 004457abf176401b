"""A model as a folder that ``deop.runtime`` runs without torch (docs/export.md)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deop._version import __version__
from deop.arguments import check_arguments
from deop.encoders.int8 import is_int8
from deop.encoders.nano import NanoEncoder
from deop.encoders.nano_text import NanoText
from deop.errors import CheckpointError, OutputError, SettingError
from deop.export import model_card
from deop.export.agreement import measure
from deop.export.graphs import Progress, trace_model, write_graph, write_graphs
from deop.export.int8 import quantized
from deop.export.nano import write_beside_weights
from deop.export.networks import has_strides, multiple_of
from deop.export.programs import CLASSIFY, LABEL, classify_graph, label_graph
from deop.export.text import NAMES, TOKENIZER, TextTowers, clip_parts, trace_text, write_names, write_tokenizer
from deop.export.tracing import need_onnx
from deop.files import UNFINISHED, check_writable, existing_folder, read_json, sha256, writing_folder
from deop.images.reading import Photo
from deop.model import DeOP
from deop.model_names import Names
from deop.protocols import masks_are_instances
from deop.runtime.config import FORMAT, PRECISIONS, VERSION, Graphs, OnnxParts, TextParts, has_graphs
from deop.severance import Severance
from deop.weights.format import ModelParts, save_model_folder

if TYPE_CHECKING:
    import onnx

_NOT_LISTED = ("README.md", "config.json")
TEXT_WEIGHTS = "text.safetensors"
"""File with the weights of the text tower."""


@check_arguments
def export_model(
    model: DeOP,
    folder: str | Path,
    *,
    severance: str | Severance | None = None,
    precision: str = "float32",
    names: Names | None = None,
    calibrate: Sequence[Photo] = (),
    progress: Progress = lambda line: None,
) -> Path:
    """Write a model as ONNX graphs that ``deop.load`` runs without torch. The folder appears whole or not at all.

    Args:
        model: in float32 on the CPU: nano, or a CLIP with any proposer but segment-anything, or without one.
        folder: a new or empty folder, or an exported one, which is replaced.
        severance: where and how attention is severed; None: as in the settings of the model. It cannot be changed
            afterwards.
        precision: "float32"; "float16": weights are stored in half precision, half the size; "int8": weights and
            activations in 8 bits, a quarter of the size.
        names: class names, in any form that ``segment`` takes. Their embeddings are written instead of the text encoder
            (a smaller folder), and no other names can be requested. None: any names.
        calibrate: photos like those that the model will see, some dozens; int8 needs them.
        progress: called with a line about each step.

    Returns:
        The folder.

    Raises:
        SettingError: a model that cannot be exported, or whose graphs do not compute the same; an unknown precision;
            int8 without photos.
        VocabularyError: ``names`` are invalid.
        OutputError: the folder cannot be written, or has other files.
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
    """
    folder = Path(folder)
    check_export(model, precision, calibrate, severance)
    check_folder(folder)
    severed = Severance.parse(severance, model.settings.severance)
    vocabulary = None if names is None else model.vocabulary(names)
    was_training = model.training
    model.eval()
    try:
        graphs = trace_model(model, severed, progress=progress)
        with writing_folder(folder) as beside:
            if isinstance(model.encoder, NanoEncoder) and precision == "float32" and vocabulary is None:
                config = _nano_folder(model, severed, graphs, beside)
            else:
                config = _any_folder(model, severed, graphs, beside, precision, vocabulary, calibrate, progress)
            for name, graph in ((CLASSIFY, classify_graph(model.settings.logit_bias)), (LABEL, label_graph())):
                write_graph(graph, beside / f"{name}.onnx", name, "")
            (beside / "README.md").write_text(model_card.text(config), encoding="utf-8")
            config["onnx"]["files"] = {
                file.name: sha256(file) for file in sorted(beside.iterdir()) if file.name not in _NOT_LISTED
            }
            (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            progress("comparing with torch")
            agreement = measure(model, beside, severed, precision)
            progress(f"largest differences from torch: {agreement}")
            stale = _files_of(folder) - {file.name for file in beside.iterdir()}
        for name in stale:
            (folder / name).unlink(missing_ok=True)
    finally:
        model.train(was_training)
    return folder


def check_export(
    model: DeOP, precision: str, calibrate: Sequence[Photo] = (), severance: str | Severance | None = None
) -> None:
    """Check what can be checked before anything slow begins; arguments as for ``export_model``.

    Raises:
        SettingError: an unknown precision, int8 without photos, settings that graphs do not compute, or a model that is
            not in float32 on the CPU.
        MissingDependencyError: ``onnx`` or ``onnxscript`` is not installed.
    """
    need_onnx()
    if precision not in PRECISIONS:
        raise SettingError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "int8" and not len(calibrate):
        raise SettingError(
            "int8 needs photos like those that the model will see, some dozens, to observe the ranges of activations: "
            "give them (calibrate=..., --calibrate FOLDER)"
        )
    if model.settings.prior:
        raise SettingError(
            f"the settings have prior {model.settings.prior}, and graphs do not compute the class scores of the "
            "proposer: export the model with prior=0, and use the torch engine where the prior is wanted"
        )
    settings, severed = model.settings, Severance.parse(severance, model.settings.severance)
    for what, used, remedy in (
        (f'anchors="{settings.anchors}"', settings.anchors in ("tokens", "patch"), "anchors='pool'"),
        (f"windows {settings.windows}", settings.windows is not None, "windows=None"),
        (f"severance {severed.name!r} with a second network", severed.needs_proxy, "another severance"),
        (f"severance {severed.name!r}, which is a function", callable(severed.kind), "another severance"),
    ):
        if used:
            raise SettingError(f"graphs do not compute {what}: export the model with {remedy}, or use the torch engine")
    if is_int8(model) or model.device.type != "cpu" or model.dtype != torch.float32:
        raise SettingError('export needs a model in float32 on the CPU: load it with device="cpu" and without dtype')


def check_folder(folder: Path) -> None:
    """Refuse a folder with files that were not written by an export.

    Raises:
        OutputError: naming the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write {folder}: it is a file; give a folder")
    existing = existing_folder(folder)
    found = [file for file in existing.iterdir() if not file.name.startswith(UNFINISHED)] if existing else []
    if found and not _files_of(folder):
        raise OutputError(f"{folder} has files that are not those of an exported model: give a new folder")
    check_writable([folder / "config.json"])


def _files_of(folder: Path) -> set[str]:
    """The files that an earlier export wrote into a folder; none if it is not an exported folder."""
    try:
        config = read_json(folder / "config.json")
    except CheckpointError:
        return set()
    if not has_graphs(config) or not isinstance(config["onnx"], Mapping):
        return set()
    files = config["onnx"].get("files")
    return {name for name in files if (folder / name).parent == folder} if isinstance(files, Mapping) else set()


def _nano_folder(
    model: DeOP, severance: Severance, graphs: "dict[str, onnx.ModelProto]", beside: Path
) -> dict[str, Any]:
    """nano in deop's own format, which torch reads too, with graphs that refer to its ``model.safetensors``."""
    settings = replace(model.settings, severance=severance)
    parts = ModelParts(model.encoder, model.text, model.proposer, model.anchors, model.no_object, settings, model.card)
    save_model_folder(parts, model.state_dict(), beside, packed=is_packed(model))
    written = write_beside_weights(graphs, beside)
    config = read_json(beside / "config.json")
    text = TextParts("words", file="model.safetensors", width=model.text.width)
    return {**config, "onnx": asdict(_parts(model, {"float32": written}, text, smallest=64))}


def is_packed(model: DeOP) -> bool:
    """Whether the weights of a model lose nothing if they are packed, since they were read from packed ones."""
    from deop.networks.loading import pack, unpack

    state = model.state_dict()
    unpacked = unpack(pack(state), "the model")
    return all(torch.equal(value, unpacked[key].to(value.dtype)) for key, value in state.items())


def _any_folder(
    model: DeOP,
    severance: Severance,
    graphs: "dict[str, onnx.ModelProto]",
    beside: Path,
    precision: str,
    vocabulary: Any,
    calibrate: Sequence[Photo],
    progress: Progress,
) -> dict[str, Any]:
    """Graphs with a weights file of their own, and the text side."""
    half = precision == "float16"
    if precision == "int8":
        progress("observing ranges of activations on photos")
        graphs = quantized(model, severance, graphs, calibrate)
    progress("writing weights")
    write_graphs(graphs, beside, half=half)
    written = Graphs(**{name: f"{name}.onnx" for name in graphs})
    if vocabulary is not None:
        progress("embedding names")
        text = write_names(model, vocabulary, beside / NAMES)
    elif isinstance(model.text, TextTowers):
        progress("tracing the text encoder")
        write_tokenizer(model.text, beside / TOKENIZER)
        write_graphs({"text": trace_text(model.text)}, beside, weights=TEXT_WEIGHTS, half=half)
        text = clip_parts(model.text, "text.onnx", "float32" if precision == "int8" else precision)
    elif isinstance(model.text, NanoText):
        text = _write_words(model.text, beside, half)
    else:
        raise SettingError(
            f"cannot export a {type(model.text).__name__}: give the names whose embeddings are to be written instead "
            "(names=..., --classes)"
        )
    smallest = max(64, multiple_of(model)) if has_strides(model) else multiple_of(model)
    return {
        "format": FORMAT,
        "version": VERSION,
        "deop": __version__,
        "card": asdict(model.card),
        "settings": asdict(replace(model.settings, severance=severance)),
        "onnx": asdict(_parts(model, {precision: written}, text, smallest=smallest)),
    }


def _write_words(text: NanoText, beside: Path, half: bool) -> TextParts:
    """The word list and its table."""
    from safetensors.torch import save_file

    text.save_tokenizer(beside)
    rows = text.rows.detach().contiguous()
    save_file({"text.rows": rows.half() if half else rows}, beside / TEXT_WEIGHTS)
    return TextParts("words", file=TEXT_WEIGHTS, width=text.width)


def _parts(model: DeOP, graphs: Mapping[str, Graphs], text: TextParts, smallest: int) -> OnnxParts:
    """The section "onnx" of the config, without the files."""
    no_object = None if model.no_object is None else tuple(model.no_object.detach().tolist())
    return OnnxParts(
        version=VERSION,
        graphs={precision: asdict(names) for precision, names in graphs.items()},
        files={},
        text=text,
        normalization=model.encoder.normalization,
        multiple=multiple_of(model),
        smallest=smallest,
        masks_are_instances=model.proposer is None or masks_are_instances(model.proposer),
        no_object=no_object,
    )
