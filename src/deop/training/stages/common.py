"""What the stages share: the photos of a recipe, names as rows, and what is said of the model in the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deop._version import __version__
from deop.data.check import only_seen, sound
from deop.data.folder import LabelledFolder, open_folder
from deop.data.samples import TrainingBatch, TrainingPhotos, TrainingSample, collate
from deop.images.preprocessing import Normalization
from deop.model import DeOP
from deop.text.embedding import Classes, embed_vocabulary
from deop.text.vocabulary import Vocabulary
from deop.training.losses import IGNORE


@dataclass(frozen=True)
class Data:
    """A labelled folder, and what training sees of it.

    Attributes:
        folder: as docs/training.md describes it.
        split: "train"; unused where the folder has no splits.
        unseen: names that training never hears; their pixels are void, and photos with nothing else are left out
            (METHOD section 10). None: those that the folder's list says are not seen.
        skip_broken: leave out what cannot be read or has no mask, instead of refusing.
        limit: photos, the first of them; None: all.
    """

    folder: str
    split: str = "train"
    unseen: tuple[str, ...] | None = None
    skip_broken: bool = False
    limit: int | None = None

    def open(self) -> LabelledFolder:
        """The folder with the seen classes alone; every file is looked at first.

        Raises:
            DataError: as ``open_folder``, ``sound`` and ``only_seen``.
        """
        root = Path(self.folder)
        split = None if (root / "images").is_dir() else self.split
        found = open_folder(root, split, skip_unpaired=self.skip_broken)
        if self.limit is not None:
            found = replace(found, pairs=found.pairs[: self.limit])
        return only_seen(sound(found, self.skip_broken), self.unseen)


@dataclass
class PhotoBatches:
    """Augmented photos in an order that the seed decides, anew in each epoch.

    Attributes:
        photos: what they are taken from.
        divisor: both sides of a batch are multiples of it.
    """

    photos: TrainingPhotos
    divisor: int = 32

    def __call__(self, rows: range) -> TrainingBatch:
        """The samples of these numbers."""
        return collate([self.sample(row) for row in rows], self.photos.augmentation.fill, self.divisor)

    def sample(self, row: int) -> TrainingSample:
        """A sample by its number."""
        epoch, place = divmod(row, len(self.photos))
        return self.photos.sample(epoch, int(shuffled(len(self.photos), self.photos.seed, epoch)[place]))


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below ``count`` in the order of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def normalized(pixels: Tensor, normalization: Normalization) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 as a network takes it."""
    mean, std = (
        torch.tensor(part, device=pixels.device)[:, None, None] for part in (normalization.mean, normalization.std)
    )
    return (pixels.float() - mean) / std


def labels_of(classes: Tensor) -> Tensor:
    """Classes with void as -1 -> labels with void as 255 and more, as the losses have them."""
    return torch.where(classes < 0, IGNORE, classes)


class Names:
    """The names of a run as rows of the joint space.

    Args:
        model: its text encoder and templates.
        names: of the classes; "sofa|couch" are synonyms.
    """

    def __init__(self, model: DeOP, names: Sequence[str]) -> None:
        self.vocabulary: Vocabulary = model.vocabulary(list(names))
        self.owner = torch.tensor([index for index, synonyms in enumerate(self.vocabulary.synonyms) for _ in synonyms])
        self._fixed: Classes | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, synonyms included."""
        return self.vocabulary.texts

    def fixed(self, model: DeOP) -> Classes:
        """The rows of a text encoder that does not learn, made once."""
        if self._fixed is None:
            self._fixed = embed_vocabulary(self.vocabulary, model.text, cache=model.cache, progress=True)
        self._fixed = self._fixed.to(model.device)
        return self._fixed

    def learning(self, model: DeOP) -> Classes:
        """The rows through a prompt that learns: with a gradient, made anew each time (METHOD section 4)."""
        rows = F.normalize(model.text.embed(self.texts), dim=-1)
        return Classes(rows, self.owner.to(rows.device), self.vocabulary.names)


def describe(model: DeOP, stage: str, base: str, folder: LabelledFolder, names: Names) -> None:
    """Say in a model's card and calibration what it was trained on."""
    card, calibration = model.card, model.settings.calibration
    place = folder.root if folder.root.name not in ("train", "val") else folder.root.parent
    seen = f"{place.name}: {len(folder.pairs)} photos, {len(folder.classes)} names (stage {stage!r})"
    model.card = replace(
        card,
        name=f"{card.name or Path(base).name} {stage}",
        source="; ".join(part for part in (card.source, f"trained from {base} by deop {__version__}") if part),
        training_data="; ".join(part for part in (card.training_data, seen) if part),
        scores="",  # they were the base's
    )
    trained = tuple(dict.fromkeys((*calibration.trained_names, *names.texts)))
    model.settings = replace(model.settings, calibration=replace(calibration, trained_names=trained))


@dataclass(frozen=True)
class Validation:
    """Photos that are named now and then while a model learns.

    Attributes:
        data: which; None: none, and nothing is measured.
        proposals: "model": the model's own; "oracle": the true masks.
    """

    data: Data | None = None
    proposals: str = "model"

    def open(self) -> LabelledFolder | None:
        """The photos, or None."""
        return None if self.data is None else self.data.open()

    def measure(self, model: DeOP, folder: LabelledFolder | None) -> dict[str, float]:
        """mIoU and the share of pixels that are right."""
        from deop.evaluation.evaluate import Protocol, evaluate

        if folder is None:
            return {}
        found = evaluate(model, folder, Protocol(self.proposals))
        return {key: float(found[key] or 0) for key in ("miou", "pixel_accuracy")}
