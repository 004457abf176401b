"""The models and inputs of the golden files. ``cases()`` maps the name of a file to a function that computes it.

The answers depend on nothing but deop, its libraries and the processor: the photos are in the repository, and random
weights come from numpy's PCG64, whose numbers never change, instead of from the networks' own initialisation.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import deop

ROOT = Path(__file__).parents[2]
PHOTOS = {"coffee.jpg": "cup, saucer, spoon, table", "pagoda.jpg": "sky, pagoda|temple, tree, lake|sea"}
SIDE = 192
"""Longer side of the photos in pixels; nano enlarges them again, so that its answer has the usual size of masks."""

GRID = (12, 16)
SEVERANCES = ("none", "self", "gate-normalized", "affinity", "similar", "region")


@dataclass
class Answer:
    """What a model answered.

    Attributes:
        labels: for each photo a grid (h, w) of labels, which were sampled from the label map.
        values: name -> numbers that must be equal but for rounding: scores, embeddings, mask logits.
    """

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)


def photo(name: str, side: int) -> np.ndarray:
    """An example photo (H, W, 3) uint8, made smaller."""
    image = Image.open(ROOT / "examples" / name).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=None)
    return np.asarray(image)


def means(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The means (..., h, w) of blocks of an array (..., H, W)."""
    for axis, parts in zip((-2, -1), grid, strict=True):
        blocks = np.array_split(values, parts, axis)
        values = np.stack([block.mean(axis) for block in blocks], axis)
    return values


def samples(labels: np.ndarray, grid: tuple[int, int] = GRID) -> np.ndarray:
    """Labels at the centres of the cells of a grid."""
    rows, columns = (
        (np.arange(parts) * 2 + 1) * side // (2 * parts) for side, parts in zip(labels.shape, grid, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def nano(engine: str, precision: str) -> Answer:
    """The model of the package: labels, scores of each name on a coarse grid, embeddings of the names."""
    model = deop.load("nano", engine=engine, device="cpu", dtype=precision)
    model.cache, answer = None, Answer()
    for name, names in PHOTOS.items():
        (encoded,) = model.encode([photo(name, SIDE)])
        result = model.label(encoded, names, heatmaps=names)
        answer.labels[name] = samples(result.label_map)
        answer.values[f"scores of {name}"] = means(np.stack(list(result.heatmaps.values())), (3, 4))
    rows = np.asarray(model.embed(model.vocabulary("cat, tree, cup|mug")).rows)
    answer.values["embeddings of names"] = rows[:4, :6]
    return answer


# ---- random networks


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) that depend on a key alone."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (np.asarray(raw) / 2.0**63 - 1).reshape(shape).astype(np.float32)


def weights(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of a parameter that keep activations at the order of 1."""
    values = uniform(key, shape)
    if len(shape) > 1:
        return values * np.float32(np.sqrt(3 / max(1, np.prod(shape[1:]))))
    return 1 + values / 5 if key.endswith("weight") else values / 5


def drawn(state: dict[str, Any]) -> dict[str, Any]:
    """The same names and shapes with other values; single numbers, integers and statistics stay."""
    import torch

    kept = ("running_mean", "running_var")
    return {
        key: torch.from_numpy(weights(key, tuple(value.shape)))
        if value.is_floating_point() and value.ndim and not key.endswith(kept)
        else value
        for key, value in state.items()
    }


def draw_weights(folder: Path) -> Path:
    """Replace the parameters in a folder that transformers wrote, whose initialisation changes between its releases."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(drawn(load_file(file)), file, metadata={"format": "pt"})
    return folder


def tower(write: Callable[[Path], Path]) -> Answer:
    """A small vision-language model of a family with given masks: embeddings and scores, for several severances."""
    with tempfile.TemporaryDirectory() as folder:
        model: Any = deop.load(draw_weights(write(Path(folder) / "model")), engine="torch", device="cpu")
    model.cache, answer = None, Answer()
    image = photo("chelsea.png", 120)
    masks = np.zeros((3, *image.shape[:2]), bool)
    masks[0, :, :50], masks[1, 30:, 50:], masks[2, :40, 30:90] = True, True, True
    for severance in SEVERANCES:
        (encoded,) = model.encode([image], [masks], severance=severance)
        answer.values[f"regions, {severance}"] = encoded.regions.float().numpy()[:, :5]
    answer.values["scores"] = model.class_probabilities(encoded, "cat, dog").float().numpy()
    answer.values["embeddings of names"] = np.asarray(model.embed(model.vocabulary("cat, dog")).rows)[:, :6]
    return answer


def proposer(build: Callable[[], Any]) -> Answer:
    """A small network of a kind of proposer: logits of its masks on a coarse grid, and their scores."""
    from deop.proposals.from_folder import proposer_from_folder
    from deop.proposals.sam import CLASSES, SamProposer
    from tests.proposals.test_sam import EVERYTHING

    with tempfile.TemporaryDirectory() as name:
        network, folder = build(), Path(name)
        network.save_pretrained(folder)
        draw_weights(folder)
        if network.config.model_type in CLASSES:  # masks of random weights do not pass the usual filters
            return masks_of(SamProposer.from_folder(folder, settings=EVERYTHING))
        return masks_of(proposer_from_folder(folder))


def own_proposer() -> Answer:
    """deop's own MaskFormer, the paper's proposer."""
    from deop.proposals.maskformer import MaskFormer
    from tests.proposals.test_maskformer import TINY

    network = MaskFormer(TINY).eval()
    network.load_state_dict(drawn(network.state_dict()))
    return masks_of(network)


def masks_of(network: Any) -> Answer:
    """What a proposer answers for a photo."""
    import torch

    image = photo("coffee.jpg", 96)[:64]
    pixels = torch.from_numpy(image.astype(np.float32) / 128 - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        (proposals,) = network(pixels)
    answer = Answer(values={"logits": means(proposals.logits.float().numpy()[:8], (3, 4))})
    if proposals.scores is not None:
        answer.values["scores"] = proposals.scores.numpy()
    return answer


def towers() -> dict[str, Callable[[], Answer]]:
    """A case for each family of vision-language models."""
    from tests.tiny import write_tiny_clip, write_tiny_siglip
    from tests.tiny_towers import write_tiny_metaclip2, write_tiny_tips

    return {
        "clip": partial(tower, write_tiny_clip),
        "siglip": partial(tower, write_tiny_siglip),
        "siglip2-naflex": partial(tower, partial(write_tiny_siglip, flexible=True)),
        "metaclip2": partial(tower, write_tiny_metaclip2),
        "tips": partial(tower, write_tiny_tips),
    }


def proposers() -> dict[str, Callable[[], Answer]]:
    """A case for each kind of proposer."""
    from tests.proposals import tiny_networks

    kinds = ("maskformer", "mask2former", "oneformer", "eomt", "eomt_dinov3", "sam", "sam2", "sam3")
    cases: dict[str, Callable[[], Answer]] = {
        f"masks-{kind.replace('_', '-')}": partial(proposer, getattr(tiny_networks, kind)) for kind in kinds
    }
    return cases | {"masks-deop": own_proposer}


LIGHT = {"nano-onnx-float32": partial(nano, "onnx", "float32"), "nano-onnx-int8": partial(nano, "onnx", "int8")}
"""The cases that do not need torch."""


def cases() -> dict[str, Callable[[], Answer]]:
    """All cases by the name of their file; without torch those of ONNX Runtime alone."""
    from importlib.util import find_spec

    if not find_spec("torch"):
        return dict(LIGHT)
    torch = {f"nano-torch-{precision}": partial(nano, "torch", precision) for precision in ("float32", "int8")}
    return LIGHT | torch | towers() | proposers()
