"""Photos of the recipe as tensors on the device, and their augmentation there."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop.data.labelled import LabelledData
from deop.evaluation.truth import components, panoptic_truth
from deop.images.reading import read_photo
from deop.networks.efficientnet import NORMALIZATION
from deop.text.things import is_thing

MEAN, STD = (torch.tensor(values)[:, None, None] for values in (NORMALIZATION.mean, NORMALIZATION.std))
MAX_SEGMENTS = 63
"""Segments that are kept per photo."""
MIN_SEGMENT = 30
"""Pixels of the smallest segment that is kept."""


@dataclass(frozen=True)
class Example:
    """A labelled photo.

    Attributes:
        photo: (H, W, 3) uint8.
        classes: (H, W) uint8, class index + 1; 0: unlabelled.
        segments: (H, W) uint8, segment number + 1; 0: no segment.
    """

    photo: np.ndarray
    classes: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Examples:
    """The photos of a data set, the names of its K classes, and (K,) bool, which of them are things."""

    photos: tuple[Example, ...]
    names: tuple[str, ...]
    things: np.ndarray

    def __len__(self) -> int:
        return len(self.photos)


@dataclass
class CanvasPhotos:
    """N photos of a data set, padded to squares of one size.

    Attributes:
        images: (N, 3, S, S) uint8.
        labels: (N, S, S) uint8, label of the ``LabelSpace`` + 1; 0: void.
        segments: (N, S, S) uint8, segment number + 1; 0: no segment.
        sizes: (N, 2) int64, height and width.
        sampling_weights: (N,) float32, relative probabilities with which photos are drawn.
    """

    images: Tensor
    labels: Tensor
    segments: Tensor
    sizes: Tensor
    sampling_weights: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "CanvasPhotos":
        """A copy on another device."""
        tensors = (self.images, self.labels, self.segments, self.sizes, self.sampling_weights)
        return CanvasPhotos(*(tensor.to(device) for tensor in tensors))


def read_folder(folder: LabelledData) -> Examples:
    """Read all photos of a labelled folder.

    Segments are the panoptic ones if the folder has them, or else derived from the classes.
    """
    things = np.array([is_thing(e.name) if e.isthing is None else bool(e.isthing) for e in folder.classes])
    ids = np.array([entry.id for entry in folder.classes])
    panoptic = panoptic_truth(folder, ids)
    photos = []
    for pair in folder.pairs:
        classes = folder.labels(pair)
        truth = panoptic.segments(pair, classes.shape) if panoptic else components(classes, things)
        segments = numbered_by_area(np.where(classes >= 0, truth.segment_map + 1, 0))
        photos.append(Example(read_photo(pair.photo), (classes + 1).astype(np.uint8), segments))
    return Examples(tuple(photos), folder.names, things)


def read_unlabelled(folder: Path) -> Examples:
    """Read photos without labels."""
    photos = [read_photo(path) for path in sorted((folder / "images").iterdir())]
    unlabelled = [np.zeros(photo.shape[:2], np.uint8) for photo in photos]
    return Examples(tuple(map(Example, photos, unlabelled, unlabelled)), (), np.zeros(0, bool))


def on_canvas(examples: Examples, label_of_class: Tensor) -> CanvasPhotos:
    """Pad photos to squares with the side of the longest side of any photo.

    Args:
        examples: the photos of a data set.
        label_of_class: (K + 1,), as in ``LabelSpace.label_of_class``.
    """
    sizes = torch.tensor([example.photo.shape[:2] for example in examples.photos])
    side = int(sizes.max())
    lookup = (label_of_class + 1).numpy().astype(np.uint8)

    def padded(arrays: Iterable[np.ndarray], *channels: int) -> Tensor:
        canvas = np.zeros((len(examples), side, side, *channels), np.uint8)
        for row, array in zip(canvas, arrays, strict=True):
            row[: array.shape[0], : array.shape[1]] = array
        return torch.from_numpy(canvas)

    images = padded((example.photo for example in examples.photos), 3).permute(0, 3, 1, 2).contiguous()
    labels = padded(lookup[example.classes] for example in examples.photos)
    segments = padded(example.segments for example in examples.photos)
    return CanvasPhotos(images, labels, segments, sizes, sampling_weights(examples))


def numbered_by_area(ids: np.ndarray) -> np.ndarray:
    """Renumber ids (0: void) to 1, 2, ... by falling area; small and surplus segments become void."""
    values, counts = np.unique(ids[ids > 0], return_counts=True)
    result = np.zeros(ids.shape, np.uint8)
    for number, position in enumerate(np.argsort(-counts, kind="stable")[:MAX_SEGMENTS]):
        if counts[position] >= MIN_SEGMENT:
            result[ids == values[position]] = number + 1
    return result


def load_imagenet(folder: Path) -> tuple[Tensor, list[str]]:
    """One photo per ImageNet class, (1000, 3, 160, 160) uint8 in the order of the classes, and the class names."""
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    photos = [read_photo(next((folder / "images").glob(stem + ".*"))) for stem in names]
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous(), list(names.values())


def sampling_weights(examples: Examples) -> Tensor:
    """(N,) float32 from 1 to 3; photos with rare classes have higher weights.

    A class that a fraction f of the photos contains has the weight sqrt(0.1 / f), as in the repeat-factor sampling of
    LVIS (Gupta et al., CVPR 2019); a photo has the maximum over its classes.
    """
    if not examples.names:
        return torch.ones(len(examples))
    contains = torch.zeros(len(examples), len(examples.names) + 1, dtype=torch.bool)
    for row, example in zip(contains, examples.photos, strict=True):
        row[torch.from_numpy(np.unique(example.classes)).long()] = True
    contains = contains[:, 1:]
    frequency = contains.float().mean(0).clamp_min(1e-6)
    weights = (0.1 / frequency).sqrt().clamp(1, 3)
    return torch.where(contains, weights, torch.ones_like(weights)).amax(1)


def uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    """(count,) random numbers in [low, high)."""
    return torch.rand(count, device=device) * (high - low) + low


def jitter_colours(x: Tensor) -> Tensor:
    """Change brightness, contrast, saturation, tint and gamma of photos (B, 3, H, W) in [0, 255] at random."""
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
    """Normalize photos in [0, 255] as the trunk expects."""
    return (x - MEAN.to(x.device)) / STD.to(x.device)


def random_crops(
    photos: CanvasPhotos, rows: Tensor, crop: int, short: int, scales: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Crop photos at a random position, scale, aspect ratio and angle, mirrored or not.

    Args:
        photos: photos of a data set.
        rows: (B,) int64, the photos to crop.
        crop: C, side of a crop in pixels.
        short: shorter side of a photo at scale 1.
        scales: minimum and maximum scale.

    Returns:
        Images (B, 3, C, C) float32 in [0, 255], labels + 1 and segment numbers + 1 (B, C, C) int64; 0: void.
    """
    device, batch, canvas = photos.images.device, len(rows), photos.images.shape[-1]
    height, width = photos.sizes[rows].float().unbind(1)
    scale = torch.exp(uniform(batch, math.log(scales[0]), math.log(scales[1]), device))
    scale = scale * short / torch.minimum(height, width)  # crop pixels per photo pixel
    aspect = torch.exp(uniform(batch, -0.12, 0.12, device))
    scale_x, scale_y = scale * aspect, scale / aspect
    flip = torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0)
    angle = uniform(batch, -0.12, 0.12, device) * (torch.rand(batch, device=device) < 0.4)

    def random_centre(extent: Tensor, half_window: Tensor) -> Tensor:
        """Keep the window inside the photo if it fits."""
        low = torch.minimum(half_window, extent / 2)
        high = torch.maximum(extent - half_window, extent / 2)
        return low + torch.rand(batch, device=device) * (high - low)

    centre_x, centre_y = random_centre(width, crop / 2 / scale_x), random_centre(height, crop / 2 / scale_y)
    offsets = (torch.arange(crop, device=device) + 0.5) - crop / 2
    v, u = torch.meshgrid(offsets, offsets, indexing="ij")
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x = (cos * u - sin * v) * (flip / scale_x)[:, None, None] + centre_x[:, None, None]
    y = (sin * u + cos * v) / scale_y[:, None, None] + centre_y[:, None, None]
    outside = (x < 0) | (y < 0) | (x >= width[:, None, None]) | (y >= height[:, None, None])
    grid = torch.stack([x, y], -1) * (2 / canvas) - 1
    source = photos.images[rows].float()
    # Against aliasing in photos that are reduced: a blur that roughly fits the size of a crop pixel.
    source = torch.where((scale < 0.6)[:, None, None, None], F.avg_pool2d(source, 3, 1, 1), source)
    image = F.grid_sample(source, grid, align_corners=False, padding_mode="border")
    image = torch.where(outside[:, None], torch.tensor(NORMALIZATION.mean, device=device)[:, None, None], image)
    index = (rows[:, None, None], y.long().clamp(0, canvas - 1), x.long().clamp(0, canvas - 1))
    labels = photos.labels[index].long().masked_fill(outside, 0)
    segments = photos.segments[index].long().masked_fill(outside, 0)
    return image, labels, segments


def paste_things(
    image: Tensor, labels: Tensor, segments: Tensor, things: Tensor, probability: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Paste random things of one crop onto another (copy-paste; Ghiasi et al., CVPR 2021).

    Args:
        image: (B, 3, S, S).
        labels: (B, S, S) int64, label + 1; 0: void.
        segments: (B, S, S) int64, segment number + 1; 0: no segment.
        things: (L,) bool, the labels of things.
        probability: probability that a crop gets things of another.

    Returns:
        Images, labels and segments of the same shapes; pasted segments are numbered from 64.
    """
    batch, device = len(image), image.device
    step = int(torch.randint(1, max(batch, 2), ()))
    donor = torch.roll(torch.arange(batch, device=device), step)
    is_used = torch.rand(batch, 64, device=device) < 0.5
    sample = segments[:, ::4, ::4].flatten(1)
    area = torch.zeros(batch, 64, device=device).scatter_add_(1, sample, torch.ones_like(sample, dtype=torch.float))
    is_used &= (area < 0.35 * sample.shape[1]) & (torch.rand(batch, 1, device=device) < probability)
    pasted = is_used[donor].gather(1, segments[donor].flatten(1).clamp_max(63)).view_as(segments)
    is_thing = torch.cat([torch.zeros(1, dtype=torch.bool, device=device), things])[labels[donor]]
    pasted &= is_thing & (segments[donor] > 0)
    image = torch.where(pasted[:, None], image[donor], image)
    return image, torch.where(pasted, labels[donor], labels), torch.where(pasted, segments[donor] + 63, segments)


def renumber_by_area(numbers: Tensor, max_regions: int, max_number: int = 127) -> Tensor:
    """Renumber the regions of each crop by falling area, estimated from every 16th pixel.

    Args:
        numbers: (B, H, W) int64 in [0, max_number]; 0: void.
        max_regions: regions that are kept; the others become void.
        max_number: largest possible number.

    Returns:
        (B, H, W) int64 in [0, max_regions); -1: void.
    """
    sample = numbers[:, ::4, ::4].flatten(1)
    count = torch.zeros(len(numbers), max_number + 1, device=numbers.device)
    count.scatter_add_(1, sample, torch.ones_like(sample, dtype=torch.float))
    count[:, 0] = 0
    rank = (-count).argsort(1).argsort(1)
    rank = torch.where((count > 0) & (rank < max_regions), rank, -1)
    return rank.gather(1, numbers.flatten(1)).view_as(numbers)


def mosaics(photos: Tensor, count: int, crop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw mosaics of 2 x 2 to 4 x 4 ImageNet photos.

    The border of each tile is void, because the photo's object is seldom there.

    Args:
        photos: (1000, 3, 160, 160) uint8, one per class.
        count: number of mosaics, B.
        crop: S, side of a mosaic in pixels.

    Returns:
        Images (B, 3, S, S) float32 in [0, 255], class + 1 and tile numbers from 1 (B, S, S) int64; 0: void.
    """
    device = photos.device
    image = torch.zeros(count, 3, crop, crop, device=device)
    classes = torch.zeros(count, crop, crop, dtype=torch.int64, device=device)
    tiles = torch.zeros_like(classes)
    for index in range(count):
        side = int(torch.randint(2, 5, ()))
        edges = torch.linspace(0, crop, side + 1).long().tolist()
        chosen = torch.randint(0, len(photos), (side * side,)).tolist()
        for tile, photo_class in enumerate(chosen):
            top, bottom = edges[tile // side], edges[tile // side + 1]
            left, right = edges[tile % side], edges[tile % side + 1]
            low = int(torch.randint(0, 33, ()))
            high = 160 - int(torch.randint(0, 33, ()))
            photo = photos[photo_class, :, low:high, low:high].float()[None]
            photo = F.interpolate(photo, size=(bottom - top, right - left), mode="bilinear", align_corners=False)
            image[index, :, top:bottom, left:right] = photo[0].flip(-1) if torch.rand(()) < 0.5 else photo[0]
            inset = (bottom - top) // 8
            inner = (index, slice(top + inset, bottom - inset), slice(left + inset, right - inset))
            classes[inner], tiles[inner] = photo_class + 1, tile + 1
    return image, classes, tiles
