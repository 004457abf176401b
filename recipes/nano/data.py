"""The photos of the recipe as tensors on the device, and their augmentation there."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop.data.folder import LabelledFolder
from deop.evaluation.truth import PanopticTruth, components, has_panoptic
from deop.images.reading import read_photo
from deop.networks.efficientnet import NORMALIZATION
from deop.text.things import is_thing

MEAN, STD = (torch.tensor(values)[:, None, None] for values in (NORMALIZATION.mean, NORMALIZATION.std))
MOST, SMALLEST = 63, 30  # segments a photo, and pixels of the smallest


@dataclass
class Photos:
    """Photos of one data set on a canvas of one size."""

    images: Tensor  # (P, 3, S, S) uint8
    classes: Tensor  # (P, S, S) uint8, index of the name + 1, 0: void
    segments: Tensor  # (P, S, S) uint8, number of the segment + 1, 0: void
    sizes: Tensor  # (P, 2) height and width
    names: tuple[str, ...]
    things: Tensor  # (K,) bool

    def __len__(self) -> int:
        return len(self.images)

    def without(self, forbidden: tuple[str, ...]) -> "Photos":
        """The same without some names: their pixels are void, their segments stay."""
        kept = [index for index, name in enumerate(self.names) if name not in forbidden]
        table = torch.zeros(len(self.names) + 1, dtype=torch.uint8)
        for index, old in enumerate(kept):
            table[old + 1] = index + 1
        names = tuple(self.names[index] for index in kept)
        return replace(self, classes=table[self.classes.int()], names=names, things=self.things[torch.tensor(kept)])

    def to(self, device: torch.device) -> "Photos":
        """The same on another device."""
        moved = (x.to(device) for x in (self.images, self.classes, self.segments, self.sizes))
        return Photos(*moved, self.names, self.things.to(device))


def load(folder: LabelledFolder) -> Photos:
    """All photos of a labelled folder, on a square canvas as wide as the longest side of any.

    Segments are the panoptic ones where the folder has them, else made from the classes.
    """
    things = np.array([is_thing(e.name) if e.isthing is None else bool(e.isthing) for e in folder.classes])
    ids = np.array([entry.id for entry in folder.classes])
    panoptic = PanopticTruth(folder.root, ids) if has_panoptic(folder.root) else None
    images, classes, segments = [], [], []
    for pair in folder.pairs:
        truth = folder.labels(pair)
        known = panoptic.segments(pair, truth.shape) if panoptic else components(truth, things)
        images.append(read_photo(pair.photo))
        classes.append((truth + 1).astype(np.uint8))
        segments.append(numbered(np.where(truth >= 0, known.segment_map + 1, 0)))
    sizes = torch.tensor([photo.shape[:2] for photo in images])
    side = int(sizes.max())

    def on_canvas(pictures: list[np.ndarray]) -> Tensor:
        canvas = np.zeros((len(pictures), side, side, *pictures[0].shape[2:]), np.uint8)
        for row, picture in zip(canvas, pictures, strict=True):
            row[: picture.shape[0], : picture.shape[1]] = picture
        return torch.from_numpy(canvas)

    pixels = on_canvas(images).permute(0, 3, 1, 2).contiguous()
    return Photos(pixels, on_canvas(classes), on_canvas(segments), sizes, folder.names, torch.from_numpy(things))


def numbered(ids: np.ndarray) -> np.ndarray:
    """Ids (0: void) as 1, 2, ... by falling area; what is too small or too many is void."""
    values, counts = np.unique(ids[ids > 0], return_counts=True)
    result = np.zeros(ids.shape, np.uint8)
    for number, position in enumerate(np.argsort(-counts, kind="stable")[:MOST]):
        if counts[position] >= SMALLEST:
            result[ids == values[position]] = number + 1
    return result


def load_imagenet(folder: Path) -> tuple[Tensor, list[str]]:
    """(1000, 3, 160, 160) uint8 in the order of ImageNet's classes, and the names."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    photos = [read_photo(next((folder / "images").glob(stem + ".*"))) for stem in names]
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous(), list(names.values())


def sampler(photos: Photos) -> Tensor:
    """Chances of photos: those with rare names come more often."""
    held = torch.zeros(len(photos), len(photos.names) + 1, dtype=torch.bool)
    for row, classes in zip(held, photos.classes, strict=True):
        row[classes.unique().long()] = True
    held = held[:, 1:]
    frequency = held.float().mean(0).clamp_min(1e-6)
    repeat = (0.1 / frequency).sqrt().clamp(1, 3)
    return torch.where(held, repeat, torch.ones_like(repeat)).amax(1)


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """(count,) in [low, high)."""
    return torch.rand(count, device=device) * (high - low) + low


def colour(x: Tensor) -> Tensor:
    """Photos (B, 3, H, W) in 0..255 with other brightness, contrast, saturation, tint and gamma."""
    batch, device = len(x), x.device

    def gain(low: float, high: float, channels: int = 1) -> Tensor:
        return uniform(batch * channels, low, high, device).view(batch, channels, 1, 1)

    x = (x / 255).clamp(0, 1)
    x = x ** torch.exp(gain(-0.35, 0.35))
    grey = x.mean(1, keepdim=True)
    saturation = torch.where(gain(0, 1) < 0.06, 0.0, gain(0.5, 1.5))
    x = grey + saturation * (x - grey)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + gain(0.65, 1.35) * (x - middle)
    x = x * gain(0.75, 1.25) * gain(0.92, 1.08, 3)
    return x.clamp(0, 1) * 255


def normalize(x: Tensor) -> Tensor:
    """0..255 -> what the trunk takes."""
    return (x - MEAN.to(x.device)) / STD.to(x.device)


def warp(photos: Photos, rows: Tensor, crop: int, short: int, scales: tuple[float, float]) -> tuple[Tensor, ...]:
    """Random crops of photos: (B, 3, crop, crop) in 0..255 float, classes and segments (B, crop, crop) int64."""
    device, batch, canvas = photos.images.device, len(rows), photos.images.shape[-1]
    height, width = photos.sizes[rows].float().unbind(1)
    scale = torch.exp(uniform(batch, math.log(scales[0]), math.log(scales[1]), device))
    scale = scale * short / torch.minimum(height, width)  # output pixels per photo pixel
    aspect = torch.exp(uniform(batch, -0.12, 0.12, device))
    sx, sy = scale * aspect, scale / aspect
    flip = torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0)
    angle = uniform(batch, -0.12, 0.12, device) * (torch.rand(batch, device=device) < 0.4)
    # The window's centre: anywhere such that the window lies in the photo where it can.
    half_w, half_h = crop / 2 / sx, crop / 2 / sy

    def centre(extent: Tensor, half: Tensor) -> Tensor:
        low, high = torch.minimum(half, extent / 2), torch.maximum(extent - half, extent / 2)
        return low + torch.rand(batch, device=device) * (high - low)

    cx, cy = centre(width, half_w), centre(height, half_h)
    line = (torch.arange(crop, device=device) + 0.5) - crop / 2
    v, u = torch.meshgrid(line, line, indexing="ij")
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x = (cos * u - sin * v) * (flip / sx)[:, None, None] + cx[:, None, None]
    y = (sin * u + cos * v) / sy[:, None, None] + cy[:, None, None]
    outside = (x < 0) | (y < 0) | (x >= width[:, None, None]) | (y >= height[:, None, None])
    grid = torch.stack([x, y], -1) * (2 / canvas) - 1
    source = photos.images[rows].float()
    # Against aliasing where photos shrink: average over the window that a pixel covers, roughly.
    source = torch.where((scale < 0.6)[:, None, None, None], F.avg_pool2d(source, 3, 1, 1), source)
    image = F.grid_sample(source, grid, align_corners=False, padding_mode="border")
    image = torch.where(outside[:, None], torch.tensor(NORMALIZATION.mean, device=device)[:, None, None], image)
    column, row = x.long().clamp(0, canvas - 1), y.long().clamp(0, canvas - 1)
    place = rows[:, None, None]
    classes = photos.classes[place, row, column].long().masked_fill(outside, 0)
    segments = photos.segments[place, row, column].long().masked_fill(outside, 0)
    return image, classes, segments


def paste(image: Tensor, classes: Tensor, segments: Tensor, things: Tensor, chance: float) -> tuple[Tensor, ...]:
    """Things of one crop laid over another (copy-paste); segments of the pasted are numbered from 64 on."""
    batch, device = len(image), image.device
    other = torch.roll(torch.arange(batch, device=device), 1)
    keep = torch.rand(batch, 64, device=device) < 0.5
    few = segments[:, ::4, ::4].flatten(1)
    area = torch.zeros(batch, 64, device=device).scatter_add_(1, few, torch.ones_like(few, dtype=torch.float))
    keep &= (area < 0.35 * few.shape[1]) & (torch.rand(batch, 1, device=device) < chance)
    chosen = keep[other].gather(1, segments[other].flatten(1).clamp_max(63)).view_as(segments)
    isthing = torch.cat([torch.zeros(1, dtype=torch.bool, device=device), things])[classes[other]]
    chosen &= isthing & (segments[other] > 0)
    image = torch.where(chosen[:, None], image[other], image)
    return image, torch.where(chosen, classes[other], classes), torch.where(chosen, segments[other] + 63, segments)


def renumber(segments: Tensor, most: int) -> Tensor:
    """Segments (B, H, W), 0: void, numbered anew: -1 void, 0.. by falling area, the rest void."""
    batch = len(segments)
    count = torch.zeros(batch, 128, device=segments.device)
    few = segments[:, ::4, ::4].flatten(1)  # what is too small to be met here is left out
    count.scatter_add_(1, few, torch.ones_like(few, dtype=torch.float))
    count[:, 0] = 0
    rank = (-count).argsort(1).argsort(1)
    rank = torch.where((count > 0) & (rank < most), rank, -1)
    return rank.gather(1, segments.flatten(1)).view_as(segments)


def mosaic(photos: Tensor, count: int, crop: int) -> tuple[Tensor, Tensor, Tensor]:
    """ImageNet photos side by side: (count, 3, crop, crop) in 0..255, class + 1 and tile numbers (count, crop, crop).

    A tile's border takes no part (0), as the photo's object is seldom there.
    """
    device = photos.device
    image = torch.zeros(count, 3, crop, crop, device=device)
    classes = torch.zeros(count, crop, crop, dtype=torch.int64, device=device)
    tiles = torch.zeros_like(classes)
    for index in range(count):
        side = int(torch.randint(2, 5, ()))
        edges = torch.linspace(0, crop, side + 1).long().tolist()
        chosen = torch.randint(0, len(photos), (side * side,)).tolist()
        for tile, number in enumerate(chosen):
            top, bottom = edges[tile // side], edges[tile // side + 1]
            left, right = edges[tile % side], edges[tile % side + 1]
            low = int(torch.randint(0, 33, ()))
            high = 160 - int(torch.randint(0, 33, ()))
            piece = photos[number, :, low:high, low:high].float()[None]
            piece = F.interpolate(piece, size=(bottom - top, right - left), mode="bilinear", align_corners=False)
            image[index, :, top:bottom, left:right] = piece[0].flip(-1) if torch.rand(()) < 0.5 else piece[0]
            inset = (bottom - top) // 8
            inner = (index, slice(top + inset, bottom - inset), slice(left + inset, right - inset))
            classes[inner], tiles[inner] = number + 1, tile + 1
    return image, classes, tiles
