"""The losses of a training step.

Regions, cells and the proposer's masks are classified from severed patches, whole photos from unsevered embeddings, and
the masks themselves are trained by ``partition_loss``. Every classification happens in the joint softmax, and for some
data sets in a softmax over their own names, too (``sets.py``).

Dimensions: B crops, the first P of photos and the first J of data sets with joint labels; N = SEGMENTS regions per
crop; Q queries (the proposer's masks); h x w cells at stride 8; G joint names; L labels, the first ``first_imagenet``
of which photos have.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.nano import data
from recipes.nano.batches import Batch
from recipes.nano.forward import CellGrid, Outputs
from recipes.nano.losses import (
    cross_entropy,
    is_informative,
    label_loss,
    label_shares_loss,
    partition_loss,
    pool_regions,
    region_coverage,
    similarity,
    weighted_mean,
)
from recipes.nano.recipe import SEGMENTS, ImageNetClassifier, NanoRecipe
from recipes.nano.sets import DATA_SETS, LabelSpace

Losses = dict[str, Tensor]


@dataclass
class Labels:
    """The labels of a batch and their meaning: what all losses need.

    Attributes:
        batch: the crops.
        recipe: the recipe of the run.
        space: the meaning of the labels.
        text: embeddings (K, C) of the names: "joint", "mosaics" (ImageNet's classes), and each data set's own.
        grid: the cells of the stride-8 grid that the patches have.
        is_pseudo: (B, S, S) bool, which labels are pseudo-labels; None: none is.
    """

    batch: Batch
    recipe: NanoRecipe
    space: LabelSpace
    text: dict[str, Tensor]
    grid: CellGrid
    is_pseudo: Tensor | None

    def __post_init__(self) -> None:
        rows = self.batch.rows
        joint_rows = {name: rows[name] for name in rows if name in DATA_SETS and DATA_SETS[name].joint}
        self.joint = slice(0, max(own.stop for own in joint_rows.values()))
        """The rows with joint labels; they come first."""
        weights = [
            torch.full((own.stop - own.start, 1), self.recipe.weights.of_joint_labels(name))
            for name, own in joint_rows.items()
        ]
        self.joint_weight = torch.cat(weights).to(self.batch.labels.device)
        """(J, 1), the weight of each crop's joint labels."""

    def own_softmax(self) -> Iterator[tuple[str, slice]]:
        """The sources with a softmax over their own names, and their rows; the last are the mosaics."""
        return ((name, self.batch.rows[name]) for name in self.space.own_index if name in self.batch.rows)

    def own_target(self, source: str, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (...) as one-hot rows (..., K) among a source's own names, and whether they are in it (0 or 1)."""
        index = torch.where(labels >= 0, self.space.own_index[source][labels.clamp_min(0)], -1)
        return F.one_hot(index.clamp_min(0), len(self.text[source])).float(), (index >= 0).float()

    def joint_loss(self, embeddings: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean loss of embeddings (..., C + 1) with labels (...) in the joint softmax."""
        logits = similarity(embeddings, self.text["joint"])
        loss = label_loss(logits, labels, self.space.allowed, self.recipe.smooth)
        return weighted_mean(loss, weight * is_informative(labels, self.space.allowed))

    def cells(self, pixels: Tensor) -> Tensor:
        """The value of the photos' cells, (P, cells): that of the pixel (4, 4) of each, from (B, S, S)."""
        return self.grid.select(pixels[: self.batch.photo_count, 4::8, 4::8]).flatten(1)

    def informative(self) -> Tensor:
        """(first_imagenet,) bool, the labels of photos that allow at least one joint name, but not all."""
        labels = torch.arange(self.space.first_imagenet, device=self.batch.labels.device)
        return is_informative(labels, self.space.allowed)

    def label_weight(self) -> Tensor:
        """(first_imagenet,), 1, or less for labels that only exclude names."""
        return torch.where(self.space.positive[: self.space.first_imagenet], 1.0, self.recipe.weights.negative)


@dataclass
class Regions:
    """Ground-truth regions.

    Attributes:
        coverage: (B, N, S / 8, S / 8), the share of each cell that a region covers.
        labels: (B, N) int64; -1: void.
        weight: (B, N); 0 for void or tiny regions.
    """

    coverage: Tensor
    labels: Tensor
    weight: Tensor


@dataclass
class Cells:
    """The photos' cells.

    Attributes:
        labels: (P, cells) int64; -1: void.
        balance: (P, cells), larger for rare labels.
        weight: (P, cells), in the joint softmax.
    """

    labels: Tensor
    balance: Tensor
    weight: Tensor


@dataclass
class Proposals:
    """The proposer's masks on photos, labelled by the pixels in them.

    Attributes:
        masks: (P, Q, h, w), probabilities.
        label_area: (P, Q, first_imagenet), pixels at stride 4 of each label.
        area: (P, Q), pixels at stride 4.
        target: (P, Q, first_imagenet), weighted share of each label among the informative ones.
        weight: (P, Q), in the joint softmax; 0 for masks that are tiny or mostly unlabelled.
    """

    masks: Tensor
    label_area: Tensor
    area: Tensor
    target: Tensor
    weight: Tensor


def batch_losses(
    outputs: Outputs, classifier: ImageNetClassifier, recipe: NanoRecipe, space: LabelSpace, text: dict[str, Tensor],
    is_pseudo: Tensor | None, train_masks: bool,
) -> Losses:  # fmt: skip
    """The weighted losses of a batch, in float32.

    Args:
        outputs: what the networks computed.
        classifier: the ImageNet classifier.
        recipe: the recipe of the run.
        space: the meaning of the labels.
        text: embeddings of the names, as in ``Labels``.
        is_pseudo: (B, S, S) bool, which labels are pseudo-labels; None: none is.
        train_masks: whether the partition loss is computed.
    """
    labels = Labels(outputs.batch, recipe, space, text, outputs.grid, is_pseudo)
    regions = label_regions(labels)
    cells = label_cells(labels)
    proposals = label_proposals(labels, outputs.partitions[-1])
    losses: Losses = {}
    for index, patches in enumerate(outputs.views):
        embeddings = pool_regions(patches, outputs.grid.select(regions.coverage))
        view_losses = region_losses(labels, regions, embeddings)
        view_losses |= cell_losses(labels, cells, patches)
        view_losses |= proposal_losses(labels, proposals, patches)
        for key, loss in view_losses.items():
            losses[key] = losses.get(key, 0) + loss * (recipe.weights.parts if index else 1.0)
        if index == 0:
            losses["distil"] = distillation_loss(labels, regions, embeddings, outputs.hidden, classifier)
    losses["image"] = image_loss(labels, regions, outputs.images)
    if outputs.singles is not None:
        losses["single"] = singles_loss(labels, outputs)
    if train_masks:  # last, because matching waits for the GPU
        count = outputs.batch.photo_count
        masks = partition_loss(
            [logits[:count] for logits in outputs.partitions], outputs.batch.segments[:count], SEGMENTS
        )
        losses["divide"] = recipe.weights.divide * 0.5 * masks
    return losses


def label_regions(labels: Labels) -> Regions:
    """Ground-truth regions: segments or, in half of the steps, all pixels of a name together, as in evaluation."""
    batch, space = labels.batch, labels.space
    is_named = space.positive[batch.labels.clamp_min(0)] & (batch.labels >= 0)
    if labels.is_pseudo is not None:
        is_named &= ~labels.is_pseudo
    numbers = batch.segments.clamp_min(-1)
    if random.random() < 0.5:
        named = torch.where(is_named, batch.labels + 1, 0)[: batch.photo_count]
        by_name = data.renumber_by_area(named, SEGMENTS, space.first_imagenet)
        numbers = torch.cat([by_name, numbers[batch.photo_count :]])
    coverage = region_coverage(numbers, SEGMENTS, 8)
    size = coverage.sum((2, 3))  # in cells
    label = labels_of_regions(numbers, torch.where(is_named, batch.labels, -1))
    weight = ((size > 0.5) & (label >= 0)).float() * size.clamp_max(16).div(16).sqrt()
    weight = weight * (size / 100).clamp(0.16, 40) ** labels.recipe.weights.area
    return Regions(coverage, label, weight)


def labels_of_regions(numbers: Tensor, labels: Tensor) -> Tensor:
    """The label of each region.

    Args:
        numbers: (B, H, W) int64, region numbers below N; -1: no region.
        labels: (B, H, W) int64, of the pixels; all pixels of a region have the same one. -1: void.

    Returns:
        (B, N) int64; -1: void.
    """
    result = torch.zeros(len(numbers), SEGMENTS, dtype=torch.int64, device=numbers.device)
    numbers, labels = numbers.flatten(1), labels.flatten(1) + 1
    result.scatter_(1, numbers.clamp_min(0), torch.where(numbers >= 0, labels, 0))
    # Pixels without region may have overwritten region 0.
    result[:, 0] = torch.where(numbers == 0, labels, 0).amax(1)
    return result - 1


def label_cells(labels: Labels) -> Cells:
    """The photos' cells, weighted against the imbalance of labels."""
    label = labels.cells(labels.batch.labels)
    count = torch.zeros(labels.space.first_imagenet + 1, device=label.device)
    count.scatter_add_(0, (label + 1).flatten(), torch.ones_like(label, dtype=torch.float).flatten())
    count = count[1:].clamp_min(1)
    balance_of_label = (1 + (count.mean() / count).sqrt()).clamp_max(4)
    balance = balance_of_label[label.clamp_min(0)]
    weight = (balance_of_label * labels.label_weight())[label.clamp_min(0)] * (label >= 0)
    if labels.is_pseudo is not None:
        weight = torch.where(labels.cells(labels.is_pseudo), balance * labels.recipe.weights.pseudo, weight)
    return Cells(label, balance, weight)


def label_proposals(labels: Labels, logits: Tensor) -> Proposals:
    """Label the proposer's masks.

    Args:
        labels: the labels of the batch.
        logits: (P, Q, 2h, 2w) at stride 4, of the query that a pixel belongs to.
    """
    partition = logits.detach().float().softmax(1)
    pixel_labels = labels.batch.labels[: len(logits), 2::4, 2::4]
    label_numbers = torch.arange(labels.space.first_imagenet, device=logits.device)
    one_hot = (pixel_labels[..., None] == label_numbers).float()
    label_area = torch.einsum("bqhw,bhwk->bqk", partition, one_hot)
    area = partition.sum((2, 3))
    informative_area = label_area * labels.informative()
    labelled = informative_area.sum(-1)
    target = informative_area * labels.label_weight() / labelled.clamp_min(1e-3)[..., None]
    weight = proposal_weight(labelled, area, pixel_labels[0].numel())
    if labels.is_pseudo is not None:
        is_pseudo = labels.is_pseudo[: len(logits), 2::4, 2::4].float()
        pseudo_share = torch.einsum("bqhw,bhw->bq", partition, is_pseudo) / area.clamp_min(1e-3)
        weight = weight * (1 - (1 - labels.recipe.weights.pseudo) * pseudo_share)
    masks = labels.grid.select(F.avg_pool2d(partition, 2))
    return Proposals(masks, label_area, area, target, weight)


def proposal_weight(labelled: Tensor, area: Tensor, pixels: int) -> Tensor:
    """The square root of a mask's area; 0 if it is tiny (0.1 % of the ``pixels`` of a crop) or mostly unlabelled."""
    return ((labelled > 0.5 * area) & (area > 0.001 * pixels)).float() * area.sqrt()


def region_losses(labels: Labels, regions: Regions, embeddings: Tensor) -> Losses:
    """Classification of ground-truth regions from their embeddings (B, N, C + 1)."""
    weights, joint = labels.recipe.weights, labels.joint
    weight = regions.weight[joint] * labels.joint_weight
    losses = {"region": weights.region * labels.joint_loss(embeddings[joint], regions.labels[joint], weight)}
    for source, rows in labels.own_softmax():
        target, exists = labels.own_target(source, regions.labels[rows])
        logits = similarity(embeddings[rows], labels.text[source])
        loss = cross_entropy(logits, target, regions.weight[rows] * exists, labels.recipe.smooth)
        if source == "mosaics":
            loss = loss + labels.joint_loss(embeddings[rows], regions.labels[rows], regions.weight[rows])
            losses["mosaics_region"] = weights.tile * loss
        else:
            losses[f"{source}_region"] = weights.region * weights.of_own_labels(source) * loss
    return losses


def cell_losses(labels: Labels, cells: Cells, patches: Tensor) -> Losses:
    """Classification of single cells from severed patches (B, C + 1, h, w)."""
    weights, joint = labels.recipe.weights, labels.joint
    embeddings = patches.flatten(2).mT
    weight = cells.weight[joint] * labels.joint_weight
    losses = {"cell": weights.cell * labels.joint_loss(embeddings[joint], cells.labels[joint], weight)}
    for source, rows in labels.own_softmax():
        if source == "mosaics":
            continue
        target, exists = labels.own_target(source, cells.labels[rows])
        logits = similarity(embeddings[rows], labels.text[source])
        loss = cross_entropy(logits, target, cells.balance[rows] * exists, labels.recipe.smooth)
        losses[f"{source}_cell"] = weights.cell * weights.of_own_labels(source) * loss
    return losses


def proposal_losses(labels: Labels, proposals: Proposals, patches: Tensor) -> Losses:
    """Classification of the proposer's masks from severed patches (B, C + 1, h, w)."""
    weights, joint, space, smooth = labels.recipe.weights, labels.joint, labels.space, labels.recipe.smooth
    embeddings = pool_regions(patches[: labels.batch.photo_count], proposals.masks)
    logits, target = similarity(embeddings[joint], labels.text["joint"]), proposals.target[joint]
    weight = proposals.weight[joint] * labels.joint_weight
    loss = label_shares_loss(logits, target, space.allowed, space.multi_name_labels, smooth) * weight
    losses = {"proposal": weights.proposal * loss.sum() / (target.sum(-1) * weight).sum().clamp_min(1e-6)}
    pixels = (labels.batch.labels.shape[-1] // 4) ** 2
    for source, rows in labels.own_softmax():
        if source == "mosaics":
            continue
        all_labels = torch.arange(space.first_imagenet, device=patches.device)
        to_own, exists = labels.own_target(source, all_labels)
        own_area = proposals.label_area[rows] @ (to_own * exists[:, None])
        labelled = own_area.sum(-1)
        loss = cross_entropy(
            similarity(embeddings[rows], labels.text[source]),
            own_area / labelled.clamp_min(1e-3)[..., None],
            proposal_weight(labelled, proposals.area[rows], pixels),
            smooth,
        )
        losses[f"{source}_proposal"] = weights.proposal * weights.of_own_labels(source) * loss
    return losses


def distillation_loss(
    labels: Labels, regions: Regions, embeddings: Tensor, hidden: Tensor, classifier: ImageNetClassifier
) -> Tensor:
    """Cross-entropy with the ImageNet classifier's prediction for each region.

    Args:
        labels: the labels of the batch.
        regions: ground-truth regions.
        embeddings: (B, N, C + 1), of the regions.
        hidden: (B, 1280, S / 32, S / 32), the last feature map before the classifier.
        classifier: the ImageNet classifier.
    """
    coverage = F.avg_pool2d(regions.coverage, 4)
    pooled = torch.einsum("bnhw,bchw->bnc", coverage, hidden.float())
    pooled = pooled / coverage.sum((2, 3)).clamp_min(1e-4)[..., None]
    probabilities = classifier.classifier(pooled).softmax(-1)
    logits = similarity(embeddings, labels.text["mosaics"])
    weight = regions.weight * probabilities.amax(-1)
    return labels.recipe.weights.distil * cross_entropy(logits, probabilities, weight)


def image_loss(labels: Labels, regions: Regions, images: Tensor) -> Tensor:
    """Classification of whole photos from unsevered embeddings (B, C + 1), which trains the class token.

    The target are the shares of the names in the photo. In the joint softmax only coco-mini takes part, because other
    photos are labelled in part.
    """
    space, total = labels.space, images.new_zeros((), dtype=torch.float32)
    if "coco" in labels.batch.rows:
        rows = labels.batch.rows["coco"]
        weight = regions.weight[rows]
        shares = F.one_hot(regions.labels[rows].clamp_min(0), space.first_imagenet) * weight[..., None]
        shares = (shares * labels.informative()).sum(1) / weight.sum(1).clamp_min(1e-3)[:, None]
        logits = similarity(images[rows], labels.text["joint"])
        loss = label_shares_loss(logits, shares, space.allowed, space.multi_name_labels)
        total = total + weighted_mean(loss, (weight.sum(1) > 0).float())
    for source, rows in labels.own_softmax():
        target, exists = labels.own_target(source, regions.labels[rows])
        weight = regions.weight[rows] * exists
        shares = (target * weight[..., None]).sum(1) / weight.sum(1).clamp_min(1e-3)[:, None]
        logits = similarity(images[rows], labels.text[source])
        total = total + cross_entropy(logits, shares, (weight.sum(1) > 0).float())
    return labels.recipe.weights.image * total


def singles_loss(labels: Labels, outputs: Outputs) -> Tensor:
    """Classification of single ImageNet photos; the target is half the true class, half the classifier's prediction."""
    singles = outputs.singles
    assert singles is not None
    target = 0.5 * singles.probabilities + 0.5 * F.one_hot(singles.classes, singles.probabilities.shape[1])
    logits = similarity(singles.embeddings, labels.text["mosaics"])
    weight = torch.ones(len(logits), device=logits.device)
    return 2 * labels.recipe.weights.image * cross_entropy(logits, target, weight)
