"""Forward passes of a training step: crops and single photos through the networks, and pseudo-labels."""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.encoders.nano import coarse, confident
from recipes.nano import data
from recipes.nano.batches import Batch
from recipes.nano.losses import pool_regions, similarity
from recipes.nano.recipe import ImageNetClassifier, Nano, NanoRecipe
from recipes.nano.sets import LabelSpace

SINGLES_PROBABILITY = 0.25
"""Fraction of the steps that have single photos of ImageNet."""


@dataclass(frozen=True)
class CellGrid:
    """The cells of the stride-8 grid that take part: every ``step``-th per axis, from ``row`` and ``column``."""

    step: int = 1
    row: int = 0
    column: int = 0

    @classmethod
    def random(cls, step: int) -> "CellGrid":
        """A grid with a random start."""
        return cls(step, random.randrange(step), random.randrange(step))

    def select(self, x: Tensor) -> Tensor:
        """The cells of a map (..., rows, columns)."""
        return x[..., self.row :: self.step, self.column :: self.step]


EVERY_CELL = CellGrid()


@dataclass
class SinglePhotos:
    """n photos of ImageNet that are whole crops.

    Attributes:
        embeddings: (n, C + 1), unsevered image embeddings.
        probabilities: (n, 1000), of the ImageNet classifier.
        classes: (n,) int64, the true classes.
    """

    embeddings: Tensor
    probabilities: Tensor
    classes: Tensor


@dataclass
class Outputs:
    """What the networks compute for a batch of B crops, P of which are photos.

    Attributes:
        batch: the crops.
        views: severed patches (B, C + 1, h, w) of the encoder. With a local branch: the sum of both branches, the
            transformer's branch alone, the local branch alone.
        images: (B, C + 1), unsevered image embeddings.
        partitions: per decoder layer, logits (P, Q, 2h', 2w') at stride 4 of the query that a pixel belongs to.
        hidden: (B, 1280, h', w') at stride 32, the last feature map before ImageNet's classifier.
        grid: the cells of the stride-8 grid that ``views`` have.
        singles: single photos of ImageNet; None in most steps.
    """

    batch: Batch
    views: list[Tensor]
    images: Tensor
    partitions: list[Tensor]
    hidden: Tensor
    grid: CellGrid
    singles: SinglePhotos | None = None


def run_networks(
    model: Nano, classifier: ImageNetClassifier, batch: Batch, recipe: NanoRecipe, imagenet: Tensor, train_masks: bool
) -> Outputs:
    """Run all networks on a batch.

    Args:
        model: the modules that are trained.
        classifier: the ImageNet classifier.
        batch: the crops.
        recipe: the recipe of the run.
        imagenet: (1000, 3, 160, 160) uint8, photos for ``Outputs.singles``.
        train_masks: whether the proposer gets gradients in this step.
    """
    grid = CellGrid.random(recipe.cells)  # fewer cells save time; regions are pooled over the same cells
    views, images = encode(model, batch.features, grid)
    with torch.set_grad_enabled(train_masks):
        partitions = model.proposer.divide([feature[: batch.photo_count] for feature in batch.features])
    with torch.no_grad():
        hidden = F.relu6(classifier.head(batch.imagenet_features))
    singles = None
    if recipe.singles and random.random() < SINGLES_PROBABILITY:
        singles = run_singles(model, classifier, imagenet, recipe.singles)
    return Outputs(batch, views, images, partitions, hidden, grid, singles)


def run_singles(model: Nano, classifier: ImageNetClassifier, imagenet: Tensor, count: int) -> SinglePhotos:
    """Run the encoder and the ImageNet classifier on ``count`` random photos of ImageNet."""
    classes = torch.randint(0, len(imagenet), (count,), device=imagenet.device)
    side = random.choice((160, 192, 224, 256))
    photos = F.interpolate(imagenet[classes].float(), size=(side, side), mode="bilinear", align_corners=False)
    photos = torch.where(torch.rand(len(photos), 1, 1, 1, device=photos.device) < 0.5, photos, photos.flip(-1))
    photos = data.normalize(data.jitter_colours(photos))
    _, embeddings = encode(model, model.trunk(photos))
    with torch.no_grad():
        hidden = F.relu6(classifier.head(classifier.trunk(photos)[-1])).mean((2, 3))
        probabilities = classifier.classifier(hidden).float().softmax(-1)
    return SinglePhotos(embeddings, probabilities, classes)


def encode(model: Nano, features: list[Tensor], grid: CellGrid = EVERY_CELL) -> tuple[list[Tensor], Tensor]:
    """Run the encoder on the trunk's features.

    Severed and unsevered tokens share the layers before the first severed one.

    Returns:
        ``Outputs.views`` on the cells of ``grid``, and ``Outputs.images``.
    """
    encoder = model.encoder
    residuals = encoder.severance.residuals(len(encoder.blocks))
    severed = unsevered = encoder.tokens(features)
    for index, block in enumerate(encoder.blocks):
        if residuals and index >= min(residuals):
            unsevered = block(unsevered, None, None, 1.0)
            # A severed token attends to itself only.
            mix = (lambda values, project: values) if index in residuals else None
            severed = block(severed, None, mix, residuals.get(index, 1.0))
        else:
            severed = unsevered = block(severed, None, None, 1.0)
    phase = (grid.row, grid.column)
    views = [encoder.finish(severed, features, grid.step, phase)[1]]
    if model.local is not None:
        cells = model.local(features[1], coarse(features), features[2].shape[-2:], grid.step, phase)
        local = cells.permute(0, 3, 1, 2)
        views = [views[0] + local, views[0], local]
    images = encoder.projection(encoder.norm(unsevered[:, 0]))
    return [confident(view) for view in views], confident(images)


@torch.no_grad()
def pseudo_labels(average: Nano, batch: Batch, space: LabelSpace, text: Tensor, confidence: float) -> Tensor:
    """Label the unlabelled pixels of coco-things and coco-unlabelled, by votes of masks as at inference.

    Only names that the pixel's label allows are candidates, so a pixel of coco-things never becomes a thing.

    Args:
        average: moving average of the model.
        batch: the crops.
        space: the meaning of the labels.
        text: (G, C), embeddings of the joint names.
        confidence: minimum probability.

    Returns:
        (B, S, S) int64, joint names; -1: not confident, or labelled already.
    """
    result = torch.full_like(batch.labels, -1)
    ranges = [batch.rows[name] for name in ("things", "unlabelled") if name in batch.rows]
    if not ranges:
        return result
    rows = slice(ranges[0].start, ranges[-1].stop)
    labels = batch.labels[rows]
    is_open = (labels >= 0) & ~space.positive[labels.clamp_min(0)]
    if batch.pixels is None:
        features = [feature[rows] for feature in batch.features]
    else:
        features = average.trunk(data.normalize(batch.pixels[rows]))
    patches = encode(average, features)[0][0]
    masks = F.avg_pool2d(average.proposer.divide(features)[-1].float().softmax(1), 2)  # at stride 8
    # All open pixels of a crop have the same label.
    open_label = torch.where(is_open, labels, -1).flatten(1).amax(1).clamp_min(0)
    with torch.autocast(masks.device.type, enabled=False):
        logits = similarity(pool_regions(patches, masks), text)
        logits = logits.masked_fill(~space.allowed[open_label][:, None], -torch.inf)
        votes = torch.einsum("bqk,bqhw->bkhw", logits.softmax(-1), masks)
    probability, name = votes.max(1)
    name = torch.where(probability > confidence, name, -1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    result[rows] = torch.where(is_open, name, -1)
    return result
