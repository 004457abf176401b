"""The photos of the recipe as tensors on the device, and their augmentation there."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Example:
    """One photo.

    Attributes:
        photo: (H, W, 3) uint8.
        classes: (H, W) uint8, index of the class + 1, 0: no label.
        segments: (H, W) uint8, number of the segment + 1, 0: none.
    """

    photo: np.ndarray
    classes: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Examples:
    """The photos of one data set, and its classes: their names, and (K,) which are things."""

    photos: tuple[Example, ...]
    names: tuple[str, ...]
    things: np.ndarray

    def __len__(self) -> int:
        return len(self.photos)


@dataclass
class Photos:
    """Photos of one data set on a canvas of one size."""

    images: Tensor  # (P, 3, S, S) uint8
    labels: Tensor  # (P, S, S) uint8, label of the ``Space`` + 1, 0: void
    segments: Tensor  # (P, S, S) uint8, number of the segment + 1, 0: none
    sizes: Tensor  # (P, 2) height and width
    chances: Tensor  # (P,) of being drawn

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Photos":
        """The same on another device."""
        return Photos(*(x.to(device) for x in (self.images, self.labels, self.segments, self.sizes, self.chances)))


def read_folder(folder: LabelledFolder) -> Examples:
    """All photos of a labelled folder.

    Segments are the panoptic ones where the folder has them, else made from the classes.
    """
    things = np.array([is_thing(e.name) if e.isthing is None else bool(e.isthing) for e in folder.classes])
    ids = np.array([entry.id for entry in folder.classes])
    panoptic = PanopticTruth(folder.root, ids) if has_panoptic(folder.root) else None
    found = []
    for pair in folder.pairs:
        truth = folder.labels(pair)
        known = panoptic.segments(pair, truth.shape) if panoptic else components(truth, things)
        segments = numbered(np.where(truth >= 0, known.segment_map + 1, 0))
        found.append(Example(read_photo(pair.photo), (truth + 1).astype(np.uint8), segments))
    return Examples(tuple(found), folder.names, things)


def read_unlabelled(folder: Path) -> Examples:
    """Photos of which nothing is known."""
    photos = [read_photo(path) for path in sorted((folder / "images").iterdir())]
    blank = [np.zeros(photo.shape[:2], np.uint8) for photo in photos]
    return Examples(tuple(map(Example, photos, blank, blank)), (), np.zeros(0, bool))


def on_canvas(examples: Examples, table: Tensor) -> Photos:
    """Photos on a square canvas as wide as the longest side of any.

    Args:
        examples: of one data set.
        table: (K + 1,) label of "no label" and of the classes, as in ``Space.tables``.
    """
    sizes = torch.tensor([example.photo.shape[:2] for example in examples.photos])
    side = int(sizes.max())
    lookup = (table + 1).numpy().astype(np.uint8)

    def canvas(pictures: Iterable[np.ndarray], *channels: int) -> Tensor:
        whole = np.zeros((len(examples), side, side, *channels), np.uint8)
        for row, picture in zip(whole, pictures, strict=True):
            row[: picture.shape[0], : picture.shape[1]] = picture
        return torch.from_numpy(whole)

    images = canvas((example.photo for example in examples.photos), 3).permute(0, 3, 1, 2).contiguous()
    labels = canvas(lookup[example.classes] for example in examples.photos)
    segments = canvas(example.segments for example in examples.photos)
    return Photos(images, labels, segments, sizes, chances_of(examples))


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


def chances_of(examples: Examples) -> Tensor:
    """Chances of photos: those with rare names come more often."""
    if not examples.names:
        return torch.ones(len(examples))
    held = torch.zeros(len(examples), len(examples.names) + 1, dtype=torch.bool)
    for row, example in zip(held, examples.photos, strict=True):
        row[torch.from_numpy(np.unique(example.classes)).long()] = True
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
    """Random crops of photos: (B, 3, crop, crop) in 0..255 float, labels + 1 and segments + 1 (B, crop, crop)
    int64, 0: void."""
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
    labels = photos.labels[place, row, column].long().masked_fill(outside, 0)
    segments = photos.segments[place, row, column].long().masked_fill(outside, 0)
    return image, labels, segments


def paste(image: Tensor, labels: Tensor, segments: Tensor, things: Tensor, chance: float) -> tuple[Tensor, ...]:
    """Things of one crop laid over another (copy-paste); segments of the pasted are numbered from 64 on.

    Args:
        image: (B, 3, S, S).
        labels: (B, S, S), label + 1, 0: void.
        segments: (B, S, S), number + 1, 0: none.
        things: (L,) bool, which labels are of things.
        chance: that something is laid over a crop.
    """
    batch, device = len(image), image.device
    step = int(torch.randint(1, max(batch, 2), ()))
    other = torch.roll(torch.arange(batch, device=device), step)
    keep = torch.rand(batch, 64, device=device) < 0.5
    few = segments[:, ::4, ::4].flatten(1)
    area = torch.zeros(batch, 64, device=device).scatter_add_(1, few, torch.ones_like(few, dtype=torch.float))
    keep &= (area < 0.35 * few.shape[1]) & (torch.rand(batch, 1, device=device) < chance)
    chosen = keep[other].gather(1, segments[other].flatten(1).clamp_max(63)).view_as(segments)
    isthing = torch.cat([torch.zeros(1, dtype=torch.bool, device=device), things])[labels[other]]
    chosen &= isthing & (segments[other] > 0)
    image = torch.where(chosen[:, None], image[other], image)
    return image, torch.where(chosen, labels[other], labels), torch.where(chosen, segments[other] + 63, segments)


def renumber(numbers: Tensor, most: int, kinds: int = 128) -> Tensor:
    """Numbers (B, H, W) below ``kinds``, 0: void, anew: -1 void, 0.. by falling area; all beyond ``most`` are void."""
    batch = len(numbers)
    count = torch.zeros(batch, kinds, device=numbers.device)
    few = numbers[:, ::4, ::4].flatten(1)  # what is too small to be met here is left out
    count.scatter_add_(1, few, torch.ones_like(few, dtype=torch.float))
    count[:, 0] = 0
    rank = (-count).argsort(1).argsort(1)
    rank = torch.where((count > 0) & (rank < most), rank, -1)
    return rank.gather(1, numbers.flatten(1)).view_as(numbers)


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
