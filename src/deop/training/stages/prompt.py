"""Stage 1: trains the prompt around all names, so that CLIP classifies masked crops (docs/method.md §4, §7, §9)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from deop.data.check import survey
from deop.data.entries import image_source
from deop.data.labelled import LabelledData
from deop.encoders.clip_text import CLIPText
from deop.errors import SettingError
from deop.images.preprocessing import Normalization
from deop.images.reading import read_photo
from deop.model import DeOP
from deop.regions.classification import classify
from deop.training.loop import Run, fit
from deop.training.losses import prompt_loss
from deop.training.process import seed_everything
from deop.training.recipe import plain
from deop.training.stages.common import ClassNames, Data, check_ranges, describe, normalized, shuffled
from deop.training.task import Group, LoopSettings, Task, split_groups

ORIGINAL_FILL = (0.48, 0.46, 0.41)
"""The value outside a mask, after normalization, in the original: CLIP's mean, which would be 0 (docs/method.md §9)."""


@dataclass(frozen=True)
class PromptRecipe:
    """Stage 1.

    Attributes:
        model: a CLIP: a name of the zoo or a folder.
        data: the training photos.
        loop: settings of the training loop.
        proposer: proposer of the trained model, as in ``deop.load``; None: the model's own.
        prefix: number of trained vectors before the name.
        suffix: number of trained vectors after the name.
        shots: crops per class, drawn with replacement.
        area: minimum and maximum fraction of a crop that is shown, in (0, 1].
        aspect: maximum aspect ratio of that part, in either direction; at least 1.
        flip: probability of a horizontal flip, in [0, 1].
        fill: value outside the mask: "mean", CLIP's mean colour, or "original", that colour after normalization.
        rate: base learning rate.
        decay: weight decay.

    Raises:
        SettingError: a value out of range.
    """

    model: str
    data: Data
    loop: LoopSettings
    proposer: str | None = None
    prefix: int = 16
    suffix: int = 0
    shots: int = 32
    area: tuple[float, float] = (0.08, 1.0)
    aspect: float = 4 / 3
    flip: float = 0.5
    fill: Literal["mean", "original"] = "mean"
    rate: float = 0.02
    decay: float = 5e-4

    def __post_init__(self) -> None:
        check_ranges(self, positive=("shots", "rate"), not_negative=("prefix", "suffix", "decay"))
        if not self.prefix + self.suffix:
            raise SettingError("prefix and suffix are 0, so there is nothing to train: set one of them")
        if len(self.area) != 2 or not 0 < self.area[0] <= self.area[1] <= 1:
            raise SettingError(f"area is {self.area}: expected a minimum and a maximum in (0, 1]")
        if not self.aspect >= 1:
            raise SettingError(f"aspect is {self.aspect}: expected a ratio of 1 or more")
        if not 0 <= self.flip <= 1:
            raise SettingError(f"flip is {self.flip}: expected a probability in [0, 1]")


class CropBatch(NamedTuple):
    """A batch of crops around regions of photos.

    Attributes:
        pixels: (B, 3, s, s) uint8.
        inside: (B, s, s) bool, the masks.
        labels: (B,) int64, the classes.
    """

    pixels: Tensor
    inside: Tensor
    labels: Tensor


class CropBatches:
    """Batches of tight crops around the region of one class in a photo, augmented differently in each epoch.

    Args:
        folder: photos and masks.
        recipe: provides shots, area, aspect, flip and the seed.
        side: side of a crop, pixels.
    """

    def __init__(self, folder: LabelledData, recipe: PromptRecipe, side: int) -> None:
        self.folder, self.recipe, self.side = folder, recipe, side
        rng = np.random.default_rng((recipe.loop.seed, 1))
        self.pairs: list[tuple[int, int]] = []  # a photo and a class
        for label, photos in enumerate(photos_of_classes(folder)):
            if photos:
                self.pairs += [(photos[i], label) for i in rng.integers(len(photos), size=recipe.shots)]

    def __call__(self, rows: range) -> CropBatch:
        """The crops with these numbers."""
        pixels, inside, labels = zip(*map(self.crop, rows), strict=True)
        return CropBatch(
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(np.stack(inside)),
            torch.tensor(labels),
        )

    def crop(self, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Pixels (s, s, 3) uint8, mask (s, s) bool and class of the crop with this number."""
        epoch, place = divmod(row, len(self.pairs))
        number = int(shuffled(len(self.pairs), self.recipe.loop.seed, epoch)[place])
        photo, label = self.pairs[number]
        pair = self.folder.pairs[photo]
        mask = self.folder.labels(pair) == label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        rng = np.random.default_rng((self.recipe.loop.seed, epoch, number))
        y, x, height, width = random_window(bottom - top, right - left, self.recipe.area, self.recipe.aspect, rng)
        box = (left + x, top + y, left + x + width, top + y + height)
        image = Image.fromarray(np.ascontiguousarray(read_photo(image_source(pair.photo)))).crop(box)
        inside = Image.fromarray(mask).crop(box)
        shape = (self.side, self.side)
        pixels = np.asarray(image.resize(shape, Image.Resampling.BILINEAR))
        within = np.asarray(inside.resize(shape, Image.Resampling.NEAREST))
        if rng.random() < self.recipe.flip:
            pixels, within = pixels[:, ::-1], within[:, ::-1]
        return np.ascontiguousarray(pixels), np.ascontiguousarray(within), label


def random_window(
    height: int, width: int, area: tuple[float, float], aspect: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random part of an image (Szegedy et al., Going deeper with convolutions, 2015, section 6).

    Args:
        height: height of the image, pixels.
        width: width of the image, pixels.
        area: minimum and maximum fraction of the image's area.
        aspect: maximum aspect ratio in either direction; sampled uniformly on a logarithmic scale.
        rng: random generator.

    Returns:
        Top, left, height and width. If ten attempts do not fit, the central part with the closest allowed ratio.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(-math.log(aspect), math.log(aspect)))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width * aspect)))
    return (height - h) // 2, (width - w) // 2, h, w


def photos_of_classes(folder: LabelledData) -> list[list[int]]:
    """For each class, the indices of the photos that show it."""
    present = survey(folder, use_cache=True).present
    photos: list[list[int]] = [[] for _ in folder.classes]
    labels = {entry.id: label for label, entry in enumerate(folder.classes)}
    for index, pair in enumerate(folder.pairs):
        for class_id in present.get(pair.key, ()):
            if class_id in labels:
                photos[labels[class_id]].append(index)
    return photos


class PromptTask(Task):
    """The task of stage 1.

    Args:
        model: the model, as returned by ``prepare``.
        names: the seen names.
        batches: the training crops.
        recipe: the recipe of the run.
    """

    def __init__(self, model: DeOP, names: Sequence[str], batches: CropBatches, recipe: PromptRecipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.batches: CropBatches = batches
        self.folder = batches.folder
        self.names = ClassNames(model, names)

    def groups(self) -> list[Group]:
        """The vectors of the prompt, with weight decay."""
        names = [
            name for name, value in self.named_parameters() if name.startswith("model.text.prompt.") and value.numel()
        ]
        return split_groups(self, names, self.recipe.rate, self.recipe.decay)

    def train(self, mode: bool = True) -> "PromptTask":
        """CLIP stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, batch: CropBatch) -> dict[str, Tensor]:
        """Cross-entropy over the seen names. The attention is not severed."""
        model = self.model
        with torch.no_grad():
            pixels = masked_pixels(batch, model.encoder.normalization, self.recipe.fill)
            images = F.normalize(model.encoder(pixels).image.float(), dim=-1)
        logits = classify(images, self.names.trained(model), None, model.settings.temperature)
        return {"entropy": prompt_loss(logits[:, :-1], batch.labels)}

    def export(self, folder: Path) -> None:
        """Write a model folder."""
        describe(self.model, "prompt", self.recipe.model, self.folder, self.names)
        self.model.save_pretrained(folder)


def masked_pixels(batch: CropBatch, normalization: Normalization, fill: str) -> Tensor:
    """Normalized crops (B, 3, s, s). Pixels outside the masks are 0, or ``ORIGINAL_FILL`` for fill="original"."""
    pixels = normalized(batch.pixels, normalization)
    outside = pixels.new_tensor(ORIGINAL_FILL if fill == "original" else (0.0, 0.0, 0.0))
    return torch.where(batch.inside[:, None], pixels, outside[:, None, None])


def prepare(recipe: PromptRecipe) -> DeOP:
    """The model that the run starts from. It gets a new prompt unless it already has one of this size.

    Raises:
        SettingError: a model whose text encoder does not support a learned prompt.
        ModelNotFoundError, CheckpointError: as ``deop.load``.
    """
    from deop.zoo import load

    model = load(recipe.model, engine="torch", proposer=recipe.proposer, device="cpu")
    if not isinstance(model.text, CLIPText):
        raise SettingError(
            f"{recipe.model} has no CLIP text encoder, which a learned prompt needs: choose a CLIP model"
        )
    seed_everything(recipe.loop.seed, 1)
    if model.text.config.prompt != (recipe.prefix, recipe.suffix):
        model.text.add_prompt(recipe.prefix, recipe.suffix)
    model.settings = replace(model.settings, templates="none")  # the prompt replaces templates
    return model


def train(recipe: PromptRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Run stage 1. Arguments and errors are those of ``stages.deop.train``."""
    folder = recipe.data.open()
    model = prepare(recipe)
    batches = CropBatches(folder, recipe, model.encoder.crop_side)
    task = PromptTask(model, folder.names, batches, recipe)
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
