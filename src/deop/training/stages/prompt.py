"""Stage 1: the prompt around all names, so that CLIP names what a mask shows (METHOD sections 4, 7 and 9)."""

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
from deop.data.folder import LabelledFolder
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
from deop.training.stages.common import Data, Names, describe, normalized, shuffled
from deop.training.task import Group, LoopSettings, Task, split_groups

ORIGINAL_FILL = (0.48, 0.46, 0.41)
"""What the original puts outside a mask, after normalisation: CLIP's mean, which would be 0 there (METHOD 9)."""


@dataclass(frozen=True)
class PromptRecipe:
    """Stage 1.

    Attributes:
        model: a CLIP: a name of the zoo or a folder.
        data: what is learned from.
        loop: for how long.
        proposer: of the finished model, as ``deop.load`` takes it; None: the model's own.
        prefix: vectors before the name.
        suffix: vectors after it.
        shots: crops of each class, drawn with replacement.
        area: least and most share of a crop that is shown, before it is resized.
        aspect: most by which its width may exceed its height, or the other way round.
        flip: chance of left and right changing places.
        fill: what lies outside the mask: "mean", CLIP's mean colour, or "original", its value after normalisation.
        rate: base learning rate.
        decay: weight decay.
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


class Crops(NamedTuple):
    """Regions of photos.

    Attributes:
        pixels: (B, 3, s, s) uint8.
        inside: (B, s, s) bool, the mask.
        labels: (B,) int64.
    """

    pixels: Tensor
    inside: Tensor
    labels: Tensor


class MaskCrops:
    """Tight crops around classes of photos, a few of each class, seen anew in each epoch.

    Args:
        folder: photos and masks.
        recipe: shots, area, aspect and flip, and the seed.
        side: of a crop, pixels.
    """

    def __init__(self, folder: LabelledFolder, recipe: PromptRecipe, side: int) -> None:
        self.folder, self.recipe, self.side = folder, recipe, side
        draw = np.random.default_rng((recipe.loop.seed, 1))
        self.pairs: list[tuple[int, int]] = []  # of a photo and a class
        for label, photos in enumerate(photos_of_classes(folder)):
            if photos:
                self.pairs += [(photos[i], label) for i in draw.integers(len(photos), size=recipe.shots)]

    def __call__(self, rows: range) -> Crops:
        """The crops of these numbers."""
        found = [self.crop(row) for row in rows]
        pixels, inside, labels = zip(*found, strict=True)
        return Crops(
            torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(np.stack(inside)),
            torch.tensor(labels),
        )

    def crop(self, row: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Pixels (s, s, 3) uint8, mask (s, s) bool and class of one."""
        epoch, place = divmod(row, len(self.pairs))
        number = int(shuffled(len(self.pairs), self.recipe.loop.seed, epoch)[place])
        photo, label = self.pairs[number]
        pair = self.folder.pairs[photo]
        mask = self.folder.labels(pair) == label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        draw = np.random.default_rng((self.recipe.loop.seed, epoch, number))
        y, x, height, width = random_window(bottom - top, right - left, self.recipe.area, self.recipe.aspect, draw)
        box = (left + x, top + y, left + x + width, top + y + height)
        image = Image.fromarray(np.ascontiguousarray(read_photo(pair.photo))).crop(box)
        inside = Image.fromarray(mask).crop(box)
        shape = (self.side, self.side)
        pixels = np.asarray(image.resize(shape, Image.Resampling.BILINEAR))
        within = np.asarray(inside.resize(shape, Image.Resampling.NEAREST))
        if draw.random() < self.recipe.flip:
            pixels, within = pixels[:, ::-1], within[:, ::-1]
        return np.ascontiguousarray(pixels), np.ascontiguousarray(within), label


def random_window(
    height: int, width: int, area: tuple[float, float], aspect: float, draw: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random part of a picture (Szegedy et al., Going deeper with convolutions, 2015, section 6).

    Args:
        height: of the picture.
        width: of the picture.
        area: least and most share of it.
        aspect: most ratio of the sides, either way; drawn evenly on a log scale.
        draw: where the choices come from.

    Returns:
        Top, left, height and width; after ten tries that do not fit, the middle with the nearest ratio allowed.
    """
    for _ in range(10):
        wanted = height * width * draw.uniform(*area)
        ratio = math.exp(draw.uniform(-math.log(aspect), math.log(aspect)))
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draw.integers(height - h + 1)), int(draw.integers(width - w + 1)), h, w
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(width * aspect)))
    return (height - h) // 2, (width - w) // 2, h, w


def photos_of_classes(folder: LabelledFolder) -> list[list[int]]:
    """For each class the photos that show it, by their places in the folder."""

    present = survey(folder, remembered=True).present
    found: list[list[int]] = [[] for _ in folder.classes]
    labels = {entry.id: label for label, entry in enumerate(folder.classes)}
    for place, pair in enumerate(folder.pairs):
        for number in present.get(pair.mask.stem, ()):
            if number in labels:
                found[labels[number]].append(place)
    return found


class PromptTask(Task):
    """Stage 1 as a task."""

    def __init__(self, model: DeOP, names: Sequence[str], batches: MaskCrops, recipe: PromptRecipe) -> None:
        """``model`` as ``prepare`` makes it, ``names`` the seen ones."""
        super().__init__()
        self.model, self.recipe = model, recipe
        self.batches: MaskCrops = batches
        self.folder = batches.folder
        self.names = Names(model, names)

    def groups(self) -> list[Group]:
        """The prompt, which decays."""
        names = [
            name for name, value in self.named_parameters() if name.startswith("model.text.prompt.") and value.numel()
        ]
        return split_groups(self, names, self.recipe.rate, self.recipe.decay)

    def train(self, mode: bool = True) -> "PromptTask":
        """CLIP is as it is in use."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, batch: Crops) -> dict[str, Tensor]:
        """Cross-entropy over the seen names, of images with nothing severed."""
        model = self.model
        with torch.no_grad():
            pixels = masked_pixels(batch, model.encoder.normalization, self.recipe.fill)
            images = F.normalize(model.encoder(pixels).image.float(), dim=-1)
        logits = classify(images, self.names.learning(model), None, model.settings.temperature)
        return {"entropy": prompt_loss(logits[:, :-1], batch.labels)}

    def export(self, folder: Path) -> None:
        """A model folder."""
        describe(self.model, "prompt", self.recipe.model, self.folder, self.names)
        self.model.save_pretrained(folder)


def masked_pixels(batch: Crops, normalization: Normalization, fill: str) -> Tensor:
    """Crops (B, 3, s, s) normalised, with 0 or the original's value outside the masks."""
    pixels = normalized(batch.pixels, normalization)
    outside = pixels.new_tensor(ORIGINAL_FILL if fill == "original" else (0.0, 0.0, 0.0))
    return torch.where(batch.inside[:, None], pixels, outside[:, None, None])


def prepare(recipe: PromptRecipe) -> DeOP:
    """The model that the run starts from, with a fresh prompt unless it has one of this size.

    Raises:
        SettingError: a model whose text encoder takes no prompt.
        ModelNotFoundError, CheckpointError: as ``deop.load``.
    """
    from deop.zoo import load

    model = load(recipe.model, proposer=recipe.proposer, device="cpu")
    if not isinstance(model.text, CLIPText):
        raise SettingError(f"{recipe.model} has no CLIP text encoder: a prompt can be learned for none but CLIP's")
    seed_everything(recipe.loop.seed, 1)
    if model.text.config.prompt != (recipe.prefix, recipe.suffix):
        model.text.add_prompt(recipe.prefix, recipe.suffix)
    model.settings = replace(model.settings, templates="none")  # the prompt stands around the names instead
    return model


def train(recipe: PromptRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Run stage 1; arguments and errors as in ``stages.deop.train``."""
    folder = recipe.data.open()
    model = prepare(recipe)
    batches = MaskCrops(folder, recipe, model.encoder.crop_side)
    task = PromptTask(model, folder.names, batches, recipe)
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
