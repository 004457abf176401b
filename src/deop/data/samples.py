"""Training samples from labelled data: augmented photos, class maps and binary masks (docs/method.md §1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from deop.data.augment import VOID, Augmentation, augment
from deop.data.check import checked_folder
from deop.data.entries import Entry, image_source
from deop.data.labelled import LabelledData
from deop.images.reading import read_photo


@dataclass(frozen=True)
class TrainingSample:
    """An augmented photo.

    Attributes:
        pixels: (3, h, w) uint8 RGB, not normalised.
        classes: (h, w) int64, index into the names, -1 for void.
        size: (height, width) of the part at the top left that is not padding.
        photo: where the photo is.
    """

    pixels: Tensor
    classes: Tensor
    size: tuple[int, int]
    photo: Entry

    def targets(self) -> tuple[Tensor, Tensor]:
        """The T classes in the sample, which may be none.

        Returns:
            Labels (T,) int64 in ascending order, and masks (T, h, w) bool.
        """
        return binary_masks(self.classes)


@dataclass(frozen=True)
class TrainingBatch:
    """B samples, padded to one size.

    Attributes:
        pixels: (B, 3, h, w) uint8 RGB, not normalised.
        classes: (B, h, w) int64, index into the names, -1 for void.
        sizes: (height, width) of each sample without padding.
    """

    pixels: Tensor
    classes: Tensor
    sizes: tuple[tuple[int, int], ...]

    def targets(self) -> list[tuple[Tensor, Tensor]]:
        """For each sample, labels (T,) int64 in ascending order and masks (T, h, w) bool."""
        return [binary_masks(classes) for classes in self.classes]

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The batch on another device."""
        return TrainingBatch(
            self.pixels.to(device, non_blocking=True), self.classes.to(device, non_blocking=True), self.sizes
        )


def binary_masks(classes: Tensor) -> tuple[Tensor, Tensor]:
    """One binary mask for each class in a class map, except void.

    Args:
        classes: (h, w) int64, -1 for void.

    Returns:
        Labels (T,) int64 in ascending order, and masks (T, h, w) bool; T may be 0.

    >>> labels, masks = binary_masks(torch.tensor([[2, -1], [0, 2]]))
    >>> labels.tolist(), masks[1].tolist()
    ([0, 2], [[True, False], [False, True]])
    """
    labels = classes.unique()
    labels = labels[labels != VOID]
    return labels, classes[None] == labels[:, None, None]


class TrainingPhotos(Dataset[TrainingSample]):
    """The photos of a data set, augmented differently in each epoch.

    A sample depends on (seed, epoch, index) only: not on the worker that computes it, nor on earlier samples.
    """

    def __init__(self, folder: LabelledData, augmentation: Augmentation, seed: int, skip_broken: bool = False) -> None:
        """Check all files first; the result of the check is cached (``check.checked_folder``).

        Args:
            folder: photos and masks.
            augmentation: how photos are augmented.
            seed: seed of all random numbers, at least 0.
            skip_broken: leave out files that cannot be read, instead of raising an error.

        Raises:
            DataError: photos or masks that cannot be read or do not fit each other, by name; or no mask has a listed
                id.
        """
        self.folder = checked_folder(folder, skip_broken)
        self.augmentation = augmentation
        self.seed = seed

    @property
    def names(self) -> tuple[str, ...]:
        """The K class names."""
        return self.folder.names

    @property
    def things(self) -> tuple[bool | None, ...]:
        """For each of the K names, whether it is a thing; None if the data set does not say."""
        return tuple(entry.isthing for entry in self.folder.classes)

    def __len__(self) -> int:
        return len(self.folder.pairs)

    def sample(self, epoch: int, index: int) -> TrainingSample:
        """Photo ``index`` as augmented in epoch ``epoch``; both count from 0.

        Raises:
            ImageError, DataError: the photo or mask has been damaged since the check.
        """
        pair = self.folder.pairs[index]
        classes = self.folder.labels(pair)
        generator = np.random.default_rng((self.seed, epoch, index))
        pixels, classes, size = augment(read_photo(image_source(pair.photo)), classes, self.augmentation, generator)
        return TrainingSample(
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            torch.from_numpy(classes.astype(np.int64)),
            size,
            pair.photo,
        )

    def __getitem__(self, place: int | tuple[int, int]) -> TrainingSample:
        """``photos[epoch, index]``, for samplers that know the epoch; ``photos[index]`` is of the first epoch."""
        epoch, index = place if isinstance(place, tuple) else (0, place)
        return self.sample(epoch, index)


def collate(samples: Sequence[TrainingSample], fill: int = 128, divisor: int = 1) -> TrainingBatch:
    """Stack samples, padded at the bottom and on the right to a common size.

    Args:
        samples: at least one.
        fill: value of padded pixels, 0..255. Their class is void (-1).
        divisor: height and width of the batch are multiples of it.
    """
    height, width = (-(-max(sample.classes.shape[axis] for sample in samples) // divisor) * divisor for axis in (0, 1))

    def margin(sample: TrainingSample) -> tuple[int, int, int, int]:
        return 0, width - sample.classes.shape[1], 0, height - sample.classes.shape[0]

    return TrainingBatch(
        torch.stack([F.pad(sample.pixels, margin(sample), value=fill) for sample in samples]),
        torch.stack([F.pad(sample.classes, margin(sample), value=VOID) for sample in samples]),
        tuple(sample.size for sample in samples),
    )
