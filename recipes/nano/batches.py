"""Batches: crops of photos as the trunk sees them, made anew each step or, where the trunk is frozen, beforehand."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from recipe import SEGMENTS, NanoRecipe
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import data
from deop.files import replacing
from deop.training.process import seed_everything

TOGETHER = 12  # crops that go through the frozen trunk at once


@dataclass
class Batch:
    """Crops of the three data sets, one set after the other."""

    features: list[Tensor]  # the trunk's
    old: Tensor  # the deepest, at stride 32, from the trunk as ImageNet left it
    classes: Tensor  # (B, S, S) int64, -1: void
    segments: Tensor  # (B, S, S) int64, numbered by falling area, -1: void
    bounds: tuple[int, int, int, int]  # where each set begins, and the end


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
    """What crops are taken from: coco-mini, camvid-mini (or None), and ImageNet's photos."""

    sets: list[data.Photos | None]
    imagenet: Tensor
    recipe: NanoRecipe

    def __post_init__(self) -> None:
        self.chances = [None if photos is None else data.sampler(photos) for photos in self.sets]

    def to(self, device: torch.device) -> None:
        """Move all photos, where they are elsewhere."""
        if self.imagenet.device != device:
            self.imagenet = self.imagenet.to(device)
            self.sets = [None if photos is None else photos.to(device) for photos in self.sets]
            self.chances = [None if chance is None else chance.to(device) for chance in self.chances]

    def crops(self, counts: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """So many crops of each set: normalised pixels, classes and segments."""
        recipe, parts = self.recipe, []
        for number, (photos, chances, count) in enumerate(zip(self.sets, self.chances, counts, strict=False)):
            if not count or photos is None or chances is None:
                continue
            rows = torch.multinomial(chances, count, replacement=count > len(photos))
            crop = data.warp(photos, rows, recipe.crop, recipe.short, (recipe.low, recipe.high))
            parts.append(data.paste(*crop, photos.things, recipe.paste) if number == 0 else crop)
        if counts[2]:
            parts.append(data.mosaic(self.imagenet, counts[2], recipe.crop))
        image, classes, segments = (torch.cat(values) for values in zip(*parts, strict=True))
        return data.normalize(data.colour(image)), classes - 1, data.renumber(segments, SEGMENTS)


def share_of(counts: tuple[int, int, int], crops: int) -> tuple[int, int, int]:
    """The part of a batch that ``crops`` of it are, set by set as nearly as whole numbers can."""
    whole = sum(counts)
    first, second = (round(crops * count / whole) for count in counts[:2])
    return first, second, crops - first - second


def bounds_of(counts: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Where each set begins in a batch, and the end."""
    return 0, counts[0], counts[0] + counts[1], sum(counts)


def live(sources: Sources, counts: tuple[int, int, int], trunk: nn.Module, teacher: nn.Module) -> Batch:
    """A batch of new crops, through a trunk that learns."""
    pixels, classes, segments = sources.crops(counts)
    features = trunk(pixels)
    with torch.no_grad():
        old = teacher(pixels)[-1]
    return Batch(features, old, classes, segments, bounds_of(counts))


@dataclass
class Pool:
    """Crops of one data set whose features are kept, as float16; int16 classes, int8 segments."""

    parts: list[Tensor]  # four maps of the trunk, old, classes, segments

    def __len__(self) -> int:
        return len(self.parts[0])


@torch.no_grad()
def make_pools(sources: Sources, trunk: nn.Module, teacher: nn.Module, file: Path) -> list[Pool | None]:
    """``recipe.pool`` crops a photo of coco, a third of that of camvid, a quarter mosaics; or those in a file.

    The file tells what it was made with; one that was made with something else is made anew.
    """
    recipe = sources.recipe
    fields = ("data", "trunk", "camvid", "crop", "short", "low", "high", "paste", "pool", "unseen", "tune", "fold")
    made = json.dumps({"seed": recipe.loop.seed} | {key: getattr(recipe, key) for key in fields})
    if file.exists():
        with safe_open(file, "pt") as stored:
            if stored.metadata().get("made") == made:
                there = [number for number in range(3) if f"{number}.0" in set(stored.keys())]
                kept = {number: Pool([stored.get_tensor(f"{number}.{part}") for part in range(7)]) for number in there}
                return [kept.get(number) for number in range(3)]
    sizes = [0 if photos is None else len(photos) for photos in sources.sets]
    wanted = (recipe.pool * sizes[0], round(recipe.pool * sizes[1] / 3), round(recipe.pool * sizes[0] / 4))
    pools: list[Pool | None] = []
    for number, count in enumerate(wanted):
        parts = []
        for start in range(0, count if recipe.counts[number] else 0, TOGETHER):
            seed_everything(recipe.loop.seed, number, start, 4)
            few = [0, 0, 0]
            few[number] = min(TOGETHER, count - start)
            pixels, classes, segments = sources.crops(tuple(few))
            parts.append([*(x.half() for x in (*trunk(pixels), teacher(pixels)[-1])), classes.short(), segments.char()])
        pools.append(Pool([torch.cat(values).cpu() for values in zip(*parts, strict=True)]) if parts else None)
    tensors = {f"{number}.{part}": value for number, pool in enumerate(pools) if pool
               for part, value in enumerate(pool.parts)}  # fmt: skip
    with replacing(file) as beside:
        save_file(tensors, beside.name, {"made": made})
    return pools


def from_pools(pools: list[Pool | None], counts: tuple[int, int, int], device: torch.device) -> Batch:
    """A batch of crops whose features are there already, mirrored in half of the steps."""
    parts = []
    for pool, count in zip(pools, counts, strict=True):
        if pool is not None and count:
            rows = torch.randint(0, len(pool), (count,))
            *features, classes, segments = (x[rows] for x in pool.parts)
            parts.append([*(x.float() for x in features), classes.long(), segments.long()])
    joined = [torch.cat(values) for values in zip(*parts, strict=True)]
    if torch.rand(()) < 0.5:
        joined = [x.flip(-1) for x in joined]
    *features, old, classes, segments = (x.to(device) for x in joined)
    return Batch(features, old, classes, segments, bounds_of(counts))
