"""Batches of crops: drawn in every step or, if the trunk is frozen, from crops whose features are cached."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from deop.files import replacing
from deop.training.process import seed_everything
from recipes.nano import data
from recipes.nano.recipe import SEGMENTS, NanoRecipe
from recipes.nano.sets import DATA_SETS, LabelSpace

CACHED_TOGETHER = 12
"""Crops that go through the frozen trunk at once."""
CACHED_LESS = {"msrc": 3, "pets": 3, "bsds": 3, "camvid": 3}
"""Data sets with fewer cached crops per photo, by this factor."""


@dataclass
class Batch:
    """Crops of side S, one source after the other, with the trunk's features.

    Attributes:
        features: the trunk's feature maps.
        imagenet_features: the deepest feature map, at stride 32, of the trunk with its ImageNet weights.
        labels: (B, S, S) int64, labels of the ``LabelSpace``; -1: void.
        segments: (B, S, S) int64, numbered by falling area; -1: unknown, -2: outside all segments.
        rows: the rows of each source.
        pixels: (B, 3, S, S) in [0, 255] without colour jitter, for pseudo-labels; None if the features can be used,
            because the trunk is frozen.
    """

    features: list[Tensor]
    imagenet_features: Tensor
    labels: Tensor
    segments: Tensor
    rows: dict[str, slice]
    pixels: Tensor | None = None

    @property
    def photo_count(self) -> int:
        """Number of crops of photos; they come before the mosaics."""
        return self.rows["mosaics"].start if "mosaics" in self.rows else len(self.labels)


@dataclass(frozen=True)
class StepRequest:
    """The step of a batch and its number of crops. The task draws the crops itself, on the device, which is fast."""

    step: int
    crops: int


@dataclass(frozen=True)
class StepRequests:
    """Maps sample numbers to the request of their step."""

    batch: int

    def __call__(self, rows: range) -> StepRequest:
        """The request for these samples, which belong to one step."""
        return StepRequest(rows.start // self.batch, len(rows))


@dataclass
class CropSources:
    """The photos from which crops are drawn.

    Attributes:
        sets: the photos of each data set.
        imagenet: (1000, 3, 160, 160) uint8, one photo per class.
        space: the meaning of the labels.
        recipe: the recipe of the run.
    """

    sets: dict[str, data.CanvasPhotos]
    imagenet: Tensor
    space: LabelSpace
    recipe: NanoRecipe

    def to(self, device: torch.device) -> None:
        """Move all photos to a device."""
        if self.imagenet.device != device:
            self.imagenet = self.imagenet.to(device)
            self.sets = {name: photos.to(device) for name, photos in self.sets.items()}
        self.space.to(device)

    def draw(self, counts: dict[str, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Draw crops.

        Args:
            counts: number of crops of each source.

        Returns:
            Pixels (B, 3, S, S) float32 in [0, 255], and labels and segments as in ``Batch``.
        """
        recipe, space = self.recipe, self.space
        parts: dict[str, tuple[Tensor, ...]] = {}
        for name, photos in self.sets.items():
            if count := counts[name]:
                rows = torch.multinomial(photos.sampling_weights, count, replacement=count > len(photos))
                scales = (recipe.min_scale, recipe.max_scale)
                parts[name] = data.random_crops(photos, rows, recipe.crop, recipe.short, scales)
        pasted = [name for name in parts if DATA_SETS[name].paste]
        if pasted:
            image, labels, numbers = (
                torch.cat(values) for values in zip(*(parts[name] for name in pasted), strict=True)
            )
            joined = data.paste_things(image, labels, numbers, space.things, recipe.paste)
            split = [values.split([counts[name] for name in pasted]) for values in joined]
            parts.update(zip(pasted, zip(*split, strict=True), strict=True))
        if counts["mosaics"]:
            image, classes, tiles = data.mosaics(self.imagenet, counts["mosaics"], recipe.crop)
            parts["mosaics"] = (image, torch.where(classes > 0, classes + space.first_imagenet, 0), tiles)
        image, labels, numbers = (torch.cat(values) for values in zip(*parts.values(), strict=True))
        labels, segments = labels - 1, data.renumber_by_area(numbers, SEGMENTS)
        # Labelled pixels that are in no segment, because their label only excludes names. Nothing is known about
        # those of unlabelled photos.
        outside = (labels >= 0) & ~space.positive[labels.clamp_min(0)] & (numbers == 0)
        if "unlabelled" in parts:
            outside[row_ranges(counts)["unlabelled"]] = False
        return image, labels, torch.where(outside, -2, segments)


def scaled_counts(counts: dict[str, int], crops: int) -> dict[str, int]:
    """Scale counts so that their sum is ``crops``, each rounded to a whole number."""
    total, before, scaled = sum(counts.values()), 0, {}
    for name, count in counts.items():
        scaled[name] = round((before + count) * crops / total) - round(before * crops / total)
        before += count
    return scaled


def row_ranges(counts: dict[str, int]) -> dict[str, slice]:
    """The rows of each source in a batch, without empty ones."""
    rows, start = {}, 0
    for name, count in counts.items():
        if count:
            rows[name] = slice(start, start + count)
            start += count
    return rows


def new_batch(sources: CropSources, counts: dict[str, int], trunk: nn.Module, imagenet_trunk: nn.Module) -> Batch:
    """Draw a batch, and compute its features with gradients."""
    pixels, labels, segments = sources.draw(counts)
    augmented = data.normalize(data.jitter_colours(pixels))
    features = trunk(augmented)
    with torch.no_grad():
        imagenet_features = imagenet_trunk(augmented)[-1]
    return Batch(features, imagenet_features, labels, segments, row_ranges(counts), pixels)


@dataclass
class CachedCrops:
    """Crops of one source.

    Attributes:
        tensors: the trunk's four feature maps and ``imagenet_features`` as float16, labels as int16, segments as int8.
    """

    tensors: list[Tensor]

    def __len__(self) -> int:
        return len(self.tensors[0])


def cache_counts(sources: CropSources) -> dict[str, int]:
    """How many crops of each source are cached: ``recipe.pool`` per photo, fewer of those in ``CACHED_LESS``, and a
    quarter as many mosaics as crops of coco-mini."""
    recipe = sources.recipe
    counts = {
        name: round(recipe.pool * len(photos) / CACHED_LESS.get(name, 1)) for name, photos in sources.sets.items()
    }
    counts["mosaics"] = round(recipe.pool * len(sources.sets["coco"]) / 4)
    return {name: count for name, count in counts.items() if recipe.counts[name]}


@torch.no_grad()
def cached_crops(
    sources: CropSources, trunk: nn.Module, imagenet_trunk: nn.Module, file: Path
) -> dict[str, CachedCrops]:
    """Read cached crops from a file, or draw them and write the file.

    The file stores the settings that it was made with; if they differ, it is replaced.
    """
    recipe = sources.recipe
    fields = ("data", "trunk", "crop", "short", "min_scale", "max_scale", "paste", "pool", "unseen", "tune", "fold")
    settings = json.dumps(
        {"seed": recipe.loop.seed, "sets": list(sources.sets)} | {key: getattr(recipe, key) for key in fields}
    )
    counts = cache_counts(sources)
    if file.exists():
        with safe_open(file, "pt") as stored:
            if stored.metadata().get("settings") == settings:
                return {
                    name: CachedCrops([stored.get_tensor(f"{name}.{index}") for index in range(7)]) for name in counts
                }
    crops: dict[str, CachedCrops] = {}
    for number, (name, count) in enumerate(counts.items()):
        parts = []
        for start in range(0, count, CACHED_TOGETHER):
            seed_everything(recipe.loop.seed, number, start, 4)
            chunk = dict.fromkeys(recipe.counts, 0) | {name: min(CACHED_TOGETHER, count - start)}
            pixels, labels, segments = sources.draw(chunk)
            augmented = data.normalize(data.jitter_colours(pixels))
            features = [x.half() for x in (*trunk(augmented), imagenet_trunk(augmented)[-1])]
            parts.append([*features, labels.short(), segments.char()])
        crops[name] = CachedCrops([torch.cat(values).cpu() for values in zip(*parts, strict=True)])
    tensors = {f"{name}.{index}": x for name, cached in crops.items() for index, x in enumerate(cached.tensors)}
    with replacing(file) as temporary:
        save_file(tensors, temporary.name, {"settings": settings})
    return crops


def cached_batch(crops: dict[str, CachedCrops], counts: dict[str, int], device: torch.device) -> Batch:
    """A random batch of cached crops; in half of the steps all are mirrored."""
    parts = []
    for name, cached in crops.items():
        if counts[name]:
            rows = torch.randint(0, len(cached), (counts[name],))
            *features, labels, segments = (x[rows] for x in cached.tensors)
            parts.append([*(x.float() for x in features), labels.long(), segments.long()])
    joined = [torch.cat(values) for values in zip(*parts, strict=True)]
    if torch.rand(()) < 0.5:
        joined = [x.flip(-1) for x in joined]
    *features, imagenet_features, labels, segments = (x.to(device) for x in joined)
    return Batch(features, imagenet_features, labels, segments, row_ranges(counts))
