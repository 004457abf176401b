"""What training sees of a labelled folder: augmented photos, their classes, and one binary mask a class (METHOD 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from deop.data.augment import VOID, Augmentation, augment
from deop.data.check import sound
from deop.data.folder import LabelledFolder
from deop.images.reading import read_photo


@dataclass(frozen=True)
class TrainingSample:
    """One view of a photo.

    Attributes:
        pixels: (3, h, w) uint8, RGB, not normalised.
        classes: (h, w) int64, index into the names, -1 void.
        size: (height, width) that is not padding, at the top left.
        photo: the file it was made from.
    """

    pixels: Tensor
    classes: Tensor
    size: tuple[int, int]
    photo: Path

    def targets(self) -> tuple[Tensor, Tensor]:
        """One binary mask for each class present.

        Returns:
            Labels (T,) int64, rising, and masks (T, h, w) bool; T may be 0.
        """
        return binary_masks(self.classes)


@dataclass(frozen=True)
class TrainingBatch:
    """Samples on one canvas.

    Attributes:
        pixels: (B, 3, h, w) uint8.
        classes: (B, h, w) int64, -1 void.
        sizes: of each sample, (height, width) that is not padding.
    """

    pixels: Tensor
    classes: Tensor
    sizes: tuple[tuple[int, int], ...]

    def targets(self) -> list[tuple[Tensor, Tensor]]:
        """Labels (T,) and masks (T, h, w) of each sample."""
        return [binary_masks(classes) for classes in self.classes]

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same on another device."""
        return TrainingBatch(
            self.pixels.to(device, non_blocking=True), self.classes.to(device, non_blocking=True), self.sizes
        )


def binary_masks(classes: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (T,) int64 and masks (T, h, w) bool of the classes present in (h, w) int64, void (-1) apart."""
    labels = classes.unique()
    labels = labels[labels != VOID]
    return labels, classes[None] == labels[:, None, None]


class TrainingPhotos(Dataset[TrainingSample]):
    """The photos of a folder, seen anew in each epoch.

    A sample is a function of (seed, epoch, index) alone: neither the worker that makes it nor what was made before
    changes a bit of it.
    """

    def __init__(
        self, folder: LabelledFolder, augmentation: Augmentation, seed: int, skip_broken: bool = False
    ) -> None:
        """All photos are looked at once, before the first is taken; what was found is remembered.

        Args:
            folder: photos and masks.
            augmentation: what is done to them.
            seed: of all choices, 0 or more.
            skip_broken: leave out what cannot be read, instead of refusing.

        Raises:
            DataError: photos or masks that cannot be read or do not fit, by name.
        """
        self.folder = sound(folder, skip_broken)
        self.augmentation = augmentation
        self.seed = seed

    @property
    def names(self) -> tuple[str, ...]:
        """The K names."""
        return self.folder.names

    @property
    def things(self) -> tuple[bool | None, ...]:
        """Of each name, whether it is a thing; None where the folder does not say."""
        return tuple(entry.isthing for entry in self.folder.classes)

    def __len__(self) -> int:
        return len(self.folder.pairs)

    def sample(self, epoch: int, index: int) -> TrainingSample:
        """One view of photo ``index`` in epoch ``epoch``.

        Raises:
            ImageError, DataError: the photo or mask was damaged since.
        """
        pair = self.folder.pairs[index]
        classes = self.folder.labels(pair)
        draw = np.random.default_rng((self.seed, epoch, index))
        pixels, classes, size = augment(read_photo(pair.photo), classes, self.augmentation, draw)
        return TrainingSample(
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            torch.from_numpy(classes.astype(np.int64)),
            size,
            pair.photo,
        )

    def __getitem__(self, place: int | tuple[int, int]) -> TrainingSample:
        """``photos[epoch, index]``, for samplers that know the epoch; ``photos[index]`` is the first epoch."""
        epoch, index = place if isinstance(place, tuple) else (0, place)
        return self.sample(epoch, index)


def collate(samples: Sequence[TrainingSample], fill: int = 128, divisor: int = 1) -> TrainingBatch:
    """Samples side by side, padded at the bottom and right where they differ in size.

    Args:
        samples: at least one.
        fill: value of padded pixels, 0..255; their class is void.
        divisor: both sides are padded up to a multiple of it.
    """
    height, width = (-(-max(sample.classes.shape[axis] for sample in samples) // divisor) * divisor for axis in (0, 1))

    def margin(sample: TrainingSample) -> tuple[int, int, int, int]:
        return 0, width - sample.classes.shape[1], 0, height - sample.classes.shape[0]

    return TrainingBatch(
        torch.stack([F.pad(sample.pixels, margin(sample), value=fill) for sample in samples]),
        torch.stack([F.pad(sample.classes, margin(sample), value=VOID) for sample in samples]),
        tuple(sample.size for sample in samples),
    )
