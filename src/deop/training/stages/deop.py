"""Stage 3: trains anchors, learned positions, prompt and "no object" vector (docs/method.md §7 and §9)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deop.data.labelled import LabelledData
from deop.data.samples import TrainingBatch, TrainingPhotos
from deop.images.canvas import Canvas
from deop.model import DeOP
from deop.proposals.filtering import drop_redundant
from deop.proposals.partition import partition_by_score
from deop.proposals.types import Proposals
from deop.regions.classification import ClassTensors, classify
from deop.regions.encoding import encode_one_pass, stack_proposals
from deop.training.loop import Run, fit
from deop.training.losses import AnchorLosses, anchor_losses
from deop.training.recipe import plain
from deop.training.stages.adaptor import fold_adaptor
from deop.training.stages.common import ClassNames, PhotoBatches, describe, labels_of, normalized
from deop.training.stages.deop_recipe import LEARN, Anchors, DeOPRecipe, TowerChanges, prepare
from deop.training.task import Group, Task, split_groups

__all__ = ["Anchors", "DeOPRecipe", "DeOPTask", "TowerChanges", "map_losses", "prepare", "train"]


class DeOPTask(Task):
    """The task of stage 3.

    Args:
        model: the model, as returned by ``prepare``.
        names: the seen names.
        batches: the training photos.
        recipe: the recipe of the run.
        validation: photos to evaluate during training, or None.
        stage: name of the stage, for the card of the trained model.
    """

    def __init__(
        self,
        model: DeOP,
        names: Sequence[str],
        batches: PhotoBatches,
        recipe: DeOPRecipe,
        validation: LabelledData | None = None,
        stage: str = "deop",
    ) -> None:
        super().__init__()
        self.stage = stage
        self.model, self.recipe = model, recipe
        self.batches: PhotoBatches = batches
        self.folder, self.validation = batches.photos.folder, validation
        self.names = ClassNames(model, names)

    def groups(self) -> list[Group]:
        """The parameters that ``learn`` names. Norm layers and slot queries have no decay (docs/method.md §9)."""
        names = [
            name
            for name, parameter in self.named_parameters()
            if parameter.numel() and any(re.fullmatch(LEARN[part], name) for part in self.recipe.learn)
        ]
        return split_groups(self, names, self.recipe.rate, self.recipe.decay)

    def train(self, mode: bool = True) -> "DeOPTask":
        """Only the anchors are in training mode, and the proposer if the recipe asks for noisy masks."""
        super().train(mode)
        self.model.eval()
        if self.model.anchors is not None:
            self.model.anchors.train(mode)
        if isinstance(self.model.proposer, nn.Module):
            self.model.proposer.train(mode and self.recipe.noisy_masks)
        return self

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The weighted focal and dice losses of the assembled map."""
        model, recipe = self.model, self.recipe
        pixels = normalized(batch.pixels, model.encoder.normalization)
        proposals = self.propose(batch, pixels)
        classes = self.names.trained(model) if "prompt" in recipe.learn else self.names.frozen(model)
        first = recipe.loss_stride // 2
        labels = labels_of(batch.classes)[:, first :: recipe.loss_stride, first :: recipe.loss_stride]
        losses = map_losses(model, pixels, batch.sizes, proposals, labels, classes, recipe.sharpness,
                            frozen=not {"positions", "adaptor"} & set(recipe.learn))  # fmt: skip
        return {"focal": recipe.weights.focal * losses.focal, "dice": recipe.weights.dice * losses.dice}

    @torch.no_grad()
    def propose(self, batch: TrainingBatch, pixels: Tensor) -> list[Proposals]:
        """The masks of the frozen proposer. Redundant masks are dropped if the model drops them in use.

        Args:
            batch: the photos.
            pixels: (B, 3, H, W) float, normalized for the encoder.
        """
        model = self.model
        assert model.proposer is not None
        same = model.proposer.normalization == model.encoder.normalization
        proposals = model.proposer(pixels if same else normalized(batch.pixels, model.proposer.normalization))
        if model.settings.drop_redundant:
            proposals = [drop_redundant(one) for one in proposals]
        if model.settings.partition == "score":
            proposals = [partition_by_score(one, drop_empty=model.settings.drop_redundant) for one in proposals]
        return proposals

    def validate(self) -> dict[str, float]:
        """mIoU and pixel accuracy on the validation photos."""
        return self.recipe.validation.measure(self.model, self.validation)

    def export(self, folder: Path) -> None:
        """Write a model folder, with the adaptor folded into the encoder."""
        fold_adaptor(self.model.encoder)
        describe(self.model, self.stage, self.recipe.model, self.folder, self.names)
        self.model.save_pretrained(folder)


class _FrozenEncoder:
    """An encoder without gradients. A trunk that it shares with the proposer then runs only once."""

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.patch = encoder, encoder.patch

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with torch.no_grad():
            return self.encoder(*arguments, **options)


def map_losses(
    model: DeOP,
    pixels: Tensor,
    sizes: Sequence[tuple[int, int]],
    proposals: Sequence[Proposals],
    labels: Tensor,
    classes: ClassTensors,
    sharpness: float = 3.0,
    *,
    frozen: bool = False,
) -> AnchorLosses:
    """The losses of stage 3 for a batch, computed with the parts of the model (docs/method.md §3, §5, §6, §7).

    Args:
        model: provides encoder, anchors, "no object" vector and settings.
        pixels: (B, 3, H, W) float, normalized for the encoder.
        sizes: (height, width) of each image without padding, pixels.
        proposals: masks of each image.
        labels: (B, h, w) int64 over the padded images, at any stride; 255 is void.
        classes: embeddings of the seen names.
        sharpness: tau.
        frozen: whether the encoder is not trained.
    """
    padded = (pixels.shape[-2], pixels.shape[-1])
    canvases = [Canvas(size, size, padded) for size in sizes]
    encoder: Any = _FrozenEncoder(model.encoder) if frozen else model.encoder
    encoded = encode_one_pass(
        encoder, model.anchors, model.settings, pixels, canvases, proposals, model.settings.severance
    )
    masks, valid = stack_proposals(proposals)
    masks = masks.masked_fill(~valid[..., None, None], -100.0)  # fill-in masks cover nothing
    rows = [classify(photo.regions, classes, model.no_object, model.settings.temperature) for photo in encoded]
    logits = torch.stack([nn.functional.pad(row, (0, 0, 0, masks.shape[1] - len(row))) for row in rows])
    return anchor_losses(logits, masks, labels, sharpness=sharpness)


def train(recipe: DeOPRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Run stage 3.

    Args:
        recipe: the recipe.
        out: folder of the run.
        resume: continue an earlier run in that folder, if there is one.
        device: "cpu" trains on the CPU; None: on a GPU if there is one.

    Raises:
        DeopError: an error of the recipe, the data, the model or the run.
    """
    folder = recipe.data.open()
    validation = recipe.validation.open(folder)
    model = prepare(recipe)
    batches = PhotoBatches(TrainingPhotos(folder, recipe.augmentation, recipe.loop.seed))
    task = DeOPTask(model, folder.names, batches, recipe, validation)
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
