"""Batches: crops of photos as the trunk sees them, made anew each step or, where the trunk is frozen, beforehand."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from recipe import SEGMENTS, NanoRecipe
from safetensors import safe_open
from safetensors.torch import save_file
from sets import PLACES, Space
from torch import Tensor, nn

import data
from deop.files import replacing
from deop.training.process import seed_everything

TOGETHER = 12  # crops that go through the frozen trunk at once


@dataclass
class Batch:
    """Crops of the data sets, one set after the other.

    Attributes:
        features: the trunk's.
        old: the deepest, at stride 32, from the trunk as ImageNet left it.
        labels: (B, S, S) int64, as in ``Space``, -1: void.
        segments: (B, S, S) int64, numbered by falling area; -1: unknown, -2: none of the segments.
        rows: of each set that is there.
        plain: (B, 3, S, S) what the teacher of ``pseudo`` sees: pixels in the photo's own colours; None: it sees the
            same features, of a trunk that stays as it is.
    """

    features: list[Tensor]
    old: Tensor
    labels: Tensor
    segments: Tensor
    rows: dict[str, slice]
    plain: Tensor | None = None

    @property
    def photos(self) -> int:
        """Crops that are no mosaics; they come first."""
        return self.rows["mosaics"].start if "mosaics" in self.rows else len(self.labels)


@dataclass(frozen=True)
class Ticket:
    """What a step asks for: crops are drawn and made on the device, where that takes a moment."""

    step: int
    crops: int


@dataclass(frozen=True)
class Tickets:
    """Numbers of samples -> what their step asks for."""

    batch: int

    def __call__(self, rows: range) -> Ticket:
        """The step that these samples belong to, and how many they are."""
        return Ticket(rows.start // self.batch, len(rows))


@dataclass
class Sources:
    """What crops are taken from.

    Attributes:
        sets: the photos of each data set that takes part.
        imagenet: (1000, 3, 160, 160) uint8.
        space: what labels mean.
        recipe: the run's.
    """

    sets: dict[str, data.Photos]
    imagenet: Tensor
    space: Space
    recipe: NanoRecipe

    def to(self, device: torch.device) -> None:
        """Move all photos, where they are elsewhere."""
        if self.imagenet.device != device:
            self.imagenet = self.imagenet.to(device)
            self.sets = {name: photos.to(device) for name, photos in self.sets.items()}
        self.space.to(device)

    def crops(self, counts: dict[str, int]) -> tuple[Tensor, Tensor, Tensor]:
        """So many crops of each set: pixels in 0..255, labels and segments as in ``Batch``."""
        recipe, space = self.recipe, self.space
        parts: dict[str, tuple[Tensor, ...]] = {}
        for name, photos in self.sets.items():
            if count := counts[name]:
                drawn = torch.multinomial(photos.chances, count, replacement=count > len(photos))
                parts[name] = data.warp(photos, drawn, recipe.crop, recipe.short, (recipe.low, recipe.high))
        mixed = [name for name in parts if PLACES[name].paste]
        if mixed:
            joined = [torch.cat(values) for values in zip(*(parts[name] for name in mixed), strict=True)]
            joined = list(data.paste(*joined, space.things, recipe.paste))
            split = [values.split([counts[name] for name in mixed]) for values in joined]
            parts.update(zip(mixed, zip(*split, strict=True), strict=True))
        if counts["mosaics"]:
            image, classes, tiles = data.mosaic(self.imagenet, counts["mosaics"], recipe.crop)
            parts["mosaics"] = (image, torch.where(classes > 0, classes + space.imagenet, 0), tiles)
        image, labels, numbers = (torch.cat(values) for values in zip(*parts.values(), strict=True))
        labels, segments = labels - 1, data.renumber(numbers, SEGMENTS)
        # Where it is known that no segment is, none may spread either.
        other = (labels >= 0) & ~space.region[labels.clamp_min(0)] & (numbers == 0)
        for name, rows in rows_of(counts).items():
            if name == "unlabelled":
                other[rows] = False
        return image, labels, torch.where(other, -2, segments)


def share_of(counts: dict[str, int], crops: int) -> dict[str, int]:
    """The part of a batch that ``crops`` of it are, set by set as nearly as whole numbers can."""
    whole, before, shares = sum(counts.values()), 0, {}
    for name, count in counts.items():
        shares[name] = round((before + count) * crops / whole) - round(before * crops / whole)
        before += count
    return shares


def rows_of(counts: dict[str, int]) -> dict[str, slice]:
    """Where each set that is there lies in a batch."""
    rows, start = {}, 0
    for name, count in counts.items():
        if count:
            rows[name] = slice(start, start + count)
            start += count
    return rows


def live(sources: Sources, counts: dict[str, int], trunk: nn.Module, teacher: nn.Module) -> Batch:
    """A batch of new crops, through a trunk that learns."""
    plain, labels, segments = sources.crops(counts)
    pixels = data.normalize(data.colour(plain))
    features = trunk(pixels)
    with torch.no_grad():
        old = teacher(pixels)[-1]
    return Batch(features, old, labels, segments, rows_of(counts), plain)


@dataclass
class Pool:
    """Crops of one data set whose features are kept, as float16; int16 labels, int8 segments."""

    parts: list[Tensor]  # four maps of the trunk, old, labels, segments

    def __len__(self) -> int:
        return len(self.parts[0])


SPARSE = {"msrc": 3, "pets": 3, "bsds": 3, "camvid": 3}
"""Sets of which fewer crops a photo are kept: a third."""


@torch.no_grad()
def make_pools(sources: Sources, trunk: nn.Module, teacher: nn.Module, file: Path) -> dict[str, Pool]:
    """``recipe.pool`` crops a photo of coco, fewer of ``SPARSE`` sets, and a quarter of coco's mosaics; or those in a
    file.

    The file tells what it was made with; one that was made with something else is made anew.
    """
    recipe = sources.recipe
    fields = ("data", "trunk", "crop", "short", "low", "high", "paste", "pool", "unseen", "tune", "fold")
    made = json.dumps(
        {"seed": recipe.loop.seed, "sets": list(sources.sets)} | {key: getattr(recipe, key) for key in fields}
    )
    wanted = {name: round(recipe.pool * len(photos) / SPARSE.get(name, 1)) for name, photos in sources.sets.items()} | {
        "mosaics": round(recipe.pool * len(sources.sets["coco"]) / 4)
    }
    wanted = {name: count for name, count in wanted.items() if recipe.counts[name]}
    if file.exists():
        with safe_open(file, "pt") as stored:
            if stored.metadata().get("made") == made:
                return {name: Pool([stored.get_tensor(f"{name}.{part}") for part in range(7)]) for name in wanted}
    pools: dict[str, Pool] = {}
    for number, (name, count) in enumerate(wanted.items()):
        parts = []
        for start in range(0, count, TOGETHER):
            seed_everything(recipe.loop.seed, number, start, 4)
            few = dict.fromkeys(recipe.counts, 0) | {name: min(TOGETHER, count - start)}
            plain, labels, segments = sources.crops(few)
            pixels = data.normalize(data.colour(plain))
            parts.append([*(x.half() for x in (*trunk(pixels), teacher(pixels)[-1])), labels.short(), segments.char()])
        pools[name] = Pool([torch.cat(values).cpu() for values in zip(*parts, strict=True)])
    tensors = {f"{name}.{part}": value for name, pool in pools.items() for part, value in enumerate(pool.parts)}
    with replacing(file) as beside:
        save_file(tensors, beside.name, {"made": made})
    return pools


def from_pools(pools: dict[str, Pool], counts: dict[str, int], device: torch.device) -> Batch:
    """A batch of crops whose features are there already, mirrored in half of the steps."""
    parts = []
    for name, pool in pools.items():
        if counts[name]:
            rows = torch.randint(0, len(pool), (counts[name],))
            *features, labels, segments = (x[rows] for x in pool.parts)
            parts.append([*(x.float() for x in features), labels.long(), segments.long()])
    joined = [torch.cat(values) for values in zip(*parts, strict=True)]
    if torch.rand(()) < 0.5:
        joined = [x.flip(-1) for x in joined]
    *features, old, labels, segments = (x.to(device) for x in joined)
    return Batch(features, old, labels, segments, rows_of(counts))
