"""Batches: crops of photos as the trunk sees them, made anew each step or, where the trunk is frozen, beforehand."""

from dataclasses import dataclass
from pathlib import Path

import torch
from settings import SEGMENTS, Settings
from torch import Tensor

import data
from deop.encoders.efficientnet import EfficientNetLite

POOL = 12  # crops that go through the frozen trunk together


@dataclass
class Batch:
    """Crops of the three data sets, one set after the other."""

    features: list[Tensor]  # the trunk's
    old: Tensor  # the deepest, at stride 32, from the trunk as ImageNet left it
    classes: Tensor  # (B, S, S) int64, -1: void
    segments: Tensor  # (B, S, S) int64, numbered by falling area, -1: void
    bounds: tuple[int, int, int, int]  # where each set begins, and the end


@dataclass
class Sources:
    """What crops are taken from."""

    coco: data.Photos
    camvid: data.Photos
    imagenet: Tensor
    chances: list[Tensor]

    def crops(self, settings: Settings, counts: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """So many crops of each set: normalised pixels, classes and segments."""
        parts = []
        for number, (photos, count) in enumerate(((self.coco, counts[0]), (self.camvid, counts[1]))):
            if not count:
                continue
            rows = torch.multinomial(self.chances[number], count, replacement=count > len(photos))
            crop = data.warp(photos, rows, settings.crop, settings.short, (settings.low, settings.high))
            parts.append(data.paste(*crop, photos.things, settings.paste) if number == 0 else crop)
        if counts[2]:
            parts.append(data.mosaic(self.imagenet, counts[2], settings.crop))
        image, classes, segments = (torch.cat(values) for values in zip(*parts, strict=True))
        return data.normalize(data.colour(image)), classes - 1, data.renumber(segments, SEGMENTS)


def live(sources: Sources, settings: Settings, trunk: torch.nn.Module, teacher: EfficientNetLite) -> Batch:
    """A batch of new crops, through a trunk that learns."""
    counts = (settings.coco, settings.camvid, settings.mosaics)
    pixels, classes, segments = sources.crops(settings, counts)
    with torch.autocast(settings.device, torch.bfloat16, enabled=settings.device == "cuda"):
        features = trunk(pixels)
        with torch.no_grad():
            old = teacher(pixels)[-1]
    return Batch(features, old, classes, segments, bounds_of(counts))


def bounds_of(counts: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Where each set begins in a batch, and the end."""
    return 0, counts[0], counts[0] + counts[1], sum(counts)


@dataclass
class Pool:
    """Crops whose features are kept, of one data set."""

    features: list[Tensor]  # float16
    old: Tensor  # float16, as in Batch
    classes: Tensor  # int16
    segments: Tensor  # int8


@torch.no_grad()
def make_pools(
    sources: Sources, settings: Settings, trunk: torch.nn.Module, teacher: EfficientNetLite, file: Path
) -> list[Pool]:
    """``settings.pool`` crops a photo of coco, a third of that of camvid, as many mosaics; or those in a file."""
    if file.exists():
        return [Pool(**values) for values in torch.load(file, weights_only=True)]
    wanted = (
        round(settings.pool * len(sources.coco)),
        round(settings.pool * len(sources.camvid) / 3),
        round(settings.pool * len(sources.camvid) / 3),
    )
    pools = []
    for number, count in enumerate(wanted):
        parts = []
        for start in range(0, count, POOL):
            few = [0, 0, 0]
            few[number] = min(POOL, count - start)
            pixels, classes, segments = sources.crops(settings, (few[0], few[1], few[2]))
            parts.append([*(x.half() for x in (*trunk(pixels), teacher(pixels)[-1])), classes.short(), segments.char()])
        joined = [torch.cat(values) for values in zip(*parts, strict=True)]
        pools.append(Pool(joined[:4], *joined[4:]))
    torch.save([vars(pool) for pool in pools], file)
    return pools


def from_pools(pools: list[Pool], settings: Settings) -> Batch:
    """A batch of crops whose features are there already, some of them mirrored."""
    counts = (settings.coco, settings.camvid, settings.mosaics)
    parts = []
    for pool, count in zip(pools, counts, strict=True):
        rows = torch.randint(0, len(pool.classes), (count,))
        fewer = [x[rows].float() for x in (*pool.features, pool.old)]
        parts.append([*fewer, pool.classes[rows].long(), pool.segments[rows].long()])
    joined = [torch.cat(values) for values in zip(*parts, strict=True)]
    if torch.rand(()) < 0.5:
        joined = [x.flip(-1) for x in joined]
    *features, old, classes, segments = (x.to(settings.device) for x in joined)
    return Batch(features, old, classes, segments, bounds_of(counts))
