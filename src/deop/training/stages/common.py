"""What the stages share: training data, class names as embeddings, validation, and the card of the trained model."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop._version import __version__
from deop.data.check import checked_folder, only_seen
from deop.data.entries import identity
from deop.data.labelled import LabelledData
from deop.data.parquet import wide_row_groups
from deop.data.samples import TrainingBatch, TrainingPhotos, TrainingSample, collate
from deop.data.source import open_data
from deop.errors import SettingError
from deop.images.preprocessing import Normalization
from deop.model import DeOP
from deop.regions.classification import ClassTensors
from deop.text.embedding import embed_vocabulary
from deop.text.vocabulary import Vocabulary
from deop.training.losses import IGNORE
from deop.training.task import LoopSettings


@dataclass(frozen=True)
class Data:
    """A data set, and the part of it that is used.

    Attributes:
        folder: a labelled folder, Parquet files or tar files (docs/data.md).
        split: "train", "val", ...; ignored if the folder has no splits.
        unseen: names that training does not use. Their pixels are void, and photos without any other class are left
            out (docs/method.md §10). None: the names that ``classes.json`` marks as unseen.
        skip_broken: leave out files that cannot be read or have no partner, instead of refusing the folder.
        limit: use only this many photos, the first ones; None: all.
        classes: the list of classes; None: ``classes.json`` beside the data.
        image_column: the column of Parquet files with the photos; None: one with a usual name.
        mask_column: the column with the masks; None: one with a usual name.

    Raises:
        SettingError: a limit below 1, or a single string of unseen names.
    """

    folder: str
    split: str = "train"
    unseen: tuple[str, ...] | None = None
    skip_broken: bool = False
    limit: int | None = None
    classes: str | None = None
    image_column: str | None = None
    mask_column: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SettingError(f"limit is {self.limit}: expected 1 or more photos")
        if isinstance(self.unseen, str):
            raise SettingError(f"unseen is {self.unseen!r}: give a list of names")

    def open(self) -> LabelledData:
        """The photos with their seen classes, once all files have been checked.

        Warnings name ids that ``classes.json`` does not list, files that are left out, and Parquet files that are slow
        to read at random.

        Raises:
            DataError: as ``open_data``, ``checked_folder`` and ``only_seen``.
        """
        folder = open_data(
            self.folder,
            default=self.split,
            skip_unpaired=self.skip_broken,
            classes=self.classes,
            image_column=self.image_column,
            mask_column=self.mask_column,
        )
        if largest := wide_row_groups(folder.pairs):
            warnings.warn(
                f"{folder.root}: row groups of up to {largest >> 20:,} MiB, each of which is read for a single photo "
                "when photos are in random order. `deop prepare pack` writes smaller ones",
                stacklevel=2,
            )
        if self.limit is not None:
            folder = replace(folder, pairs=folder.pairs[: self.limit])
        return only_seen(checked_folder(folder, self.skip_broken, warn=True), self.unseen)


@dataclass
class PhotoBatches:
    """Batches of augmented photos, in another order in each epoch; the seed decides the orders.

    Attributes:
        photos: the photos.
        divisor: both sides of a batch are padded to a multiple of it, pixels.
    """

    photos: TrainingPhotos
    divisor: int = 32

    def __call__(self, rows: range) -> TrainingBatch:
        """The samples with these numbers."""
        return collate([self.sample(row) for row in rows], self.photos.augmentation.fill, self.divisor)

    def sample(self, row: int) -> TrainingSample:
        """The sample with this number."""
        epoch, place = divmod(row, len(self.photos))
        return self.photos.sample(epoch, int(shuffled(len(self.photos), self.photos.seed, epoch)[place]))


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below ``count`` in the order of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def normalized(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Normalize pixels (B, 3, H, W) uint8 for a network; the result is float32."""
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None] for values in (normalization.mean, normalization.std)
    )
    return (pixels.float() - mean) / std


def labels_of(classes: Tensor) -> Tensor:
    """Classes, where void is -1, as the labels of the losses, where void is 255."""
    return torch.where(classes < 0, IGNORE, classes)


class ClassNames:
    """The class names of a run and their embeddings in the joint space.

    Args:
        model: provides the text encoder and the templates.
        names: the class names, in order; "sofa|couch" are synonyms.
    """

    def __init__(self, model: DeOP, names: Sequence[str]) -> None:
        self.vocabulary: Vocabulary = model.vocabulary(names if isinstance(names, (set, frozenset)) else list(names))
        self.owner = torch.tensor([index for index, synonyms in enumerate(self.vocabulary.synonyms) for _ in synonyms])
        self._frozen: ClassTensors | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, including synonyms."""
        return self.vocabulary.texts

    def frozen(self, model: DeOP) -> ClassTensors:
        """The embeddings of a text encoder that is not trained. They are computed once."""
        if self._frozen is None:
            with torch.inference_mode(False), torch.no_grad():
                classes = embed_vocabulary(self.vocabulary, model.text, cache=model.cache, progress=True)
            self._frozen = ClassTensors.of(classes, "cpu")
        self._frozen = ClassTensors.of(self._frozen, model.device)
        return self._frozen

    def trained(self, model: DeOP) -> ClassTensors:
        """The embeddings with a prompt that is trained: computed in each call, with gradients (docs/method.md §4)."""
        rows = F.normalize(model.text.embed(self.texts), dim=-1)
        return ClassTensors(rows, self.owner.to(rows.device), self.vocabulary.names)


def describe(model: DeOP, stage: str, base: str, folder: LabelledData, names: ClassNames) -> None:
    """Record in the card and calibration of a model what it was trained on.

    Args:
        model: the trained model, changed in place.
        stage: name of the stage.
        base: name or folder of the model that training started from.
        folder: the training photos.
        names: the names of their classes.
    """
    card, calibration = model.card, model.settings.calibration
    root = Path(folder.root)
    root = root.parent if root.name in ("train", "val") else root
    data = f"{root.name}: {len(folder.pairs)} photos, {len(folder.classes)} names (stage {stage!r})"
    model.card = replace(
        card,
        name=f"{card.name or Path(base).name} {stage}",
        source="; ".join(part for part in (card.source, f"trained from {base} by deop {__version__}") if part),
        training_data="; ".join(part for part in (card.training_data, data) if part),
        scores="",  # those of the base model no longer hold
    )
    trained = tuple(dict.fromkeys((*calibration.trained_names, *names.texts)))
    model.settings = replace(model.settings, calibration=replace(calibration, trained_names=trained))


@dataclass(frozen=True)
class Validation:
    """Photos that are evaluated during training.

    Attributes:
        data: the photos; None: no validation.
        proposals: "model": the model's own masks; "oracle": the true masks.

    Raises:
        SettingError: unknown proposals.
    """

    data: Data | None = None
    proposals: Literal["model", "oracle"] = "model"

    def __post_init__(self) -> None:
        if self.proposals not in ("model", "oracle"):
            raise SettingError(f"unknown proposals {self.proposals!r} of the validation: choose model or oracle")

    def check(self, loop: LoopSettings) -> None:
        """Raise a ``SettingError`` if the loop validates without photos, or has photos and never validates."""
        if self.data is None and loop.validate_every:
            raise SettingError("loop.validate_every needs photos: set validation.data.folder")
        if self.data is not None and not loop.validate_every:
            raise SettingError("validation.data has no effect: set loop.validate_every to 1 or more steps")

    def open(self, training: LabelledData) -> LabelledData | None:
        """The photos, or None.

        Args:
            training: the training photos.

        Raises:
            SettingError: photos that are also trained on.
            DataError: as ``Data.open``.
        """
        if self.data is None:
            return None
        folder = self.data.open()
        trained = {identity(pair.photo) for pair in training.pairs}
        if shared := sum(identity(pair.photo) in trained for pair in folder.pairs):
            raise SettingError(
                f"{shared} of the {len(folder.pairs)} validation photos in {folder.root} are also trained on: set "
                "validation.data.split to another split, such as val"
            )
        return folder

    def measure(self, model: DeOP, folder: LabelledData | None) -> dict[str, float]:
        """mIoU and pixel accuracy of a model on the photos, in [0, 1]."""
        from deop.evaluation.evaluate import Protocol, evaluate

        if folder is None:
            return {}
        scores = evaluate(model, folder, Protocol(self.proposals))
        return {key: float(scores[key] or 0) for key in ("miou", "pixel_accuracy")}


def check_ranges(recipe: object, *, positive: Sequence[str] = (), not_negative: Sequence[str] = ()) -> None:
    """Check numeric fields of a recipe.

    Raises:
        SettingError: a value of 0 or less, or a negative value; NaN is refused too.
    """
    for name in (*positive, *not_negative):
        value = getattr(recipe, name)
        if name in positive and not value > 0:
            raise SettingError(f"{name} is {value}: expected a number above 0")
        if not value >= 0:
            raise SettingError(f"{name} is {value}: expected 0 or more")
