"""What a batch teaches: regions, cells and proposals named, whole photos named, photos divided."""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from batches import Batch
from losses import coverage_of, cross_entropy, divide_loss, pool, similarity
from recipe import SEGMENTS, Nano, NanoRecipe, Teacher
from torch import Tensor

import data
from deop.encoders.nano import coarse, confident


@dataclass
class Seen:
    """A batch as the networks see it.

    Attributes:
        batch: the crops.
        views: severed patches (B, C + 1, h, w) of the encoder; where there is a local branch, of both together first,
            then of each.
        whole: (B, C + 1) of images, nothing severed.
        divisions: of each layer the logits (B, Q, h, w) of which query owns a pixel, of the labelled crops.
        hidden: (B, 1280, h, w) before ImageNet's classifier.
        phase: the first row and column of the cells that are there.
        single: photos of ImageNet by themselves: (n, C + 1), the classifier's belief (n, 1000), which they are (n,)
    """

    batch: Batch
    views: list[Tensor]
    whole: Tensor
    divisions: list[Tensor]
    hidden: Tensor
    phase: tuple[int, int]
    single: tuple[Tensor, Tensor, Tensor] | None = None


def see(model: Nano, teacher: Teacher, batch: Batch, recipe: NanoRecipe, imagenet: Tensor, divide: bool) -> Seen:
    """Put a batch through all networks, in whatever precision is set.

    Args:
        model: all parts.
        teacher: the trunk as ImageNet left it.
        batch: crops as the trunk saw them.
        recipe: the run's.
        imagenet: photos of one object each.
        divide: whether masks are trained in this step too.
    """
    # A random phase of every n-th cell, to save time; regions are pooled over the cells that are there.
    phase = (random.randrange(recipe.cells), random.randrange(recipe.cells))
    views, whole = encode(model, batch.features, recipe.cells, phase)
    with torch.set_grad_enabled(divide):
        divisions = model.proposer.divide([feature[: batch.bounds[2]] for feature in batch.features])
    with torch.no_grad():
        hidden = F.relu6(teacher.head(batch.old))
    seen = Seen(batch, views, whole, divisions, hidden, phase)
    if recipe.singles and random.random() < 0.25:
        seen.single = see_singles(model, teacher, imagenet, recipe.singles)
    return seen


def see_singles(model: Nano, teacher: Teacher, imagenet: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Some photos of ImageNet by themselves, as in ``Seen.single``."""
    chosen = torch.randint(0, len(imagenet), (count,), device=imagenet.device)
    side = random.choice((160, 192, 224, 256))
    photo = F.interpolate(imagenet[chosen].float(), size=(side, side), mode="bilinear", align_corners=False)
    photo = torch.where(torch.rand(len(photo), 1, 1, 1, device=photo.device) < 0.5, photo, photo.flip(-1))
    photo = data.normalize(data.colour(photo))
    single = encode(model, model.trunk(photo))[1]
    with torch.no_grad():
        hidden = F.relu6(teacher.head(teacher.trunk(photo)[-1])).mean((2, 3))
        belief = teacher.classifier(hidden).float().softmax(-1)
    return single, belief, chosen


def losses_of(seen: Seen, teacher: Teacher, recipe: NanoRecipe, text: list[Tensor], parent: Tensor,
              divide: bool) -> dict[str, Tensor]:  # fmt: skip
    """The weighted losses of a batch, in float32.

    Args:
        seen: of ``see``.
        teacher: its classifier.
        recipe: the run's.
        text: rows of the names of the three sets.
        parent: for each ImageNet class the name of coco that it is a kind of, or -1.
        divide: as in ``see``.
    """
    batch, weights = seen.batch, recipe.weights
    classes, bounds, every, phase = batch.classes, batch.bounds, recipe.cells, seen.phase
    labelled = bounds[2]
    numbers = renumbered = batch.segments
    if random.random() < 0.5:  # one region a name, as it is tested
        numbers = data.renumber((classes + 1).clamp_max(127), SEGMENTS)
        numbers[labelled:] = renumbered[labelled:]

    # True regions.
    coverage = coverage_of(numbers, SEGMENTS, 8)
    fewer = coverage[:, :, phase[0] :: every, phase[1] :: every]
    size = coverage.sum((2, 3))
    region_class = class_of_regions(numbers, classes)
    weight = ((size > 0.5) & (region_class >= 0)).float() * size.clamp_max(16).div(16).sqrt()
    weight = weight * (size / 100).clamp(0.16, 40) ** weights.area

    losses: dict[str, Tensor] = {}

    def add(key: str, loss: Tensor) -> None:
        losses[key] = losses[key] + loss if key in losses else loss

    def name_regions(regions: Tensor, share: float) -> None:
        for number, key in enumerate(("region", "camvid_region", "tile")):
            rows = slice(bounds[number], bounds[number + 1])
            if bounds[number] == bounds[number + 1]:
                continue
            target = F.one_hot(region_class[rows].clamp_min(0), len(text[number])).float()
            loss = cross_entropy(similarity(regions[rows], text[number]), target, weight[rows], recipe.smooth)
            if number == 2:
                above = parent[region_class[rows].clamp_min(0)]
                target = F.one_hot(above.clamp_min(0), len(text[0])).float()
                loss = loss + cross_entropy(
                    similarity(regions[rows], text[0]), target, weight[rows] * (above >= 0), recipe.smooth
                )
            amount = weights.tile if number == 2 else weights.region if number == 0 else weights.region * 0.3
            add(key, loss * amount * share)

    # Cells and proposals.
    cells = classes[:, 4::8, 4::8][:, phase[0] :: every, phase[1] :: every].flatten(1)
    kinds = []
    for number, rows in enumerate((slice(0, bounds[1]), slice(bounds[1], labelled))):
        if rows.start == rows.stop:
            continue
        valid = (cells[rows] >= 0).float()
        frequency = F.one_hot(cells[rows].clamp_min(0), len(text[number])).float()
        amount = (frequency * valid[..., None]).sum((0, 1)).clamp_min(1)
        balance = (1 + amount.mean() / amount.sqrt() / amount.mean().sqrt())[cells[rows].clamp_min(0)].clamp_max(4)
        division = seen.divisions[-1][rows].detach().float().softmax(1)
        quarter = classes[rows, 2::4, 2::4]
        same = quarter[..., None] + 1 == torch.arange(len(text[number]) + 1, device=quarter.device)
        histogram = torch.einsum("bqhw,bhwk->bqk", division, same.float())
        total = histogram.sum(-1)
        inside = histogram[..., 1:]
        known = inside.sum(-1)
        wanted = inside / known.clamp_min(1e-3)[..., None]
        trust = ((known > 0.5 * total) & (total > 0.001 * quarter[0].numel())).float() * total.sqrt()
        shares = F.avg_pool2d(division, 2)[:, :, phase[0] :: every, phase[1] :: every]
        kinds.append((number, rows, frequency, balance * valid, wanted, trust, shares))

    def name_cells(patches: Tensor, share: float) -> None:
        for number, rows, frequency, balance, wanted, trust, shares in kinds:
            amount, key = (share, "") if number == 0 else (share * 0.5, "camvid_")
            logits = similarity(patches[rows].flatten(2).mT, text[number])
            add(key + "cell", weights.cell * amount * cross_entropy(logits, frequency, balance, recipe.smooth))
            logits = similarity(pool(patches[rows], shares), text[number])
            add(key + "proposal", weights.proposal * amount * cross_entropy(logits, wanted, trust, recipe.smooth))

    for number, patches in enumerate(seen.views):
        share = 1.0 if number == 0 else weights.parts
        regions = pool(patches, fewer)  # (B, S, C + 1)
        name_regions(regions, share)
        name_cells(patches, share)
        if number == 0:
            # What the ImageNet classifier sees in a region.
            few = F.avg_pool2d(coverage, 4)
            felt = torch.einsum("bnhw,bchw->bnc", few, seen.hidden.float()) / few.sum((2, 3)).clamp_min(1e-4)[..., None]
            belief = teacher.classifier(felt).softmax(-1)
            losses["distil"] = weights.distil * cross_entropy(
                similarity(regions, text[2]), belief, weight * belief.amax(-1)
            )

    # Whole photos, nothing severed: what the class token learns from.
    for number in range(3):
        rows = slice(bounds[number], bounds[number + 1])
        if bounds[number] < bounds[number + 1]:
            present = F.one_hot(region_class[rows].clamp_min(0), len(text[number])) * weight[rows][..., None]
            present = present.sum(1) / weight[rows].sum(1).clamp_min(1e-3)[:, None]
            sure = (weight[rows].sum(1) > 0).float()
            losses[f"image{number}"] = weights.image * cross_entropy(
                similarity(seen.whole[rows], text[number]), present, sure
            )
    if seen.single is not None:
        single, belief, chosen = seen.single
        target = 0.5 * belief + 0.5 * F.one_hot(chosen, 1000)
        one = torch.ones(len(single), device=single.device)
        losses["single"] = 2 * weights.image * cross_entropy(similarity(single, text[2]), target, one)

    # Masks last: matching waits for the device.
    if divide:
        losses["divide"] = weights.divide * 0.5 * divide_loss(seen.divisions, renumbered[:labelled], SEGMENTS)
    return losses


def class_of_regions(numbers: Tensor, classes: Tensor) -> Tensor:
    """The class of each of the regions (B, H, W), -1 for none, as (B, SEGMENTS), -1: void."""
    found = torch.zeros(len(numbers), SEGMENTS, dtype=torch.int64, device=numbers.device)
    flat = numbers.flatten(1)
    found.scatter_(1, flat.clamp_min(0), torch.where(flat >= 0, classes.flatten(1) + 1, 0))
    # A void pixel may have written region 0's class: that is found once more, as the largest among its own pixels.
    found[:, 0] = torch.where(flat == 0, classes.flatten(1) + 1, 0).amax(1)
    return found - 1


def encode(
    model: Nano, features: list[Tensor], every: int = 1, phase: tuple[int, int] = (0, 0)
) -> tuple[list[Tensor], Tensor]:
    """The encoder on features that are there already: severed patches as in ``Seen.views``, and whole images.

    Args:
        model: all parts.
        features: of the trunk.
        every: only every n-th cell a side.
        phase: the first row and column of those.
    """
    encoder = model.encoder
    residuals = encoder.severance.residuals(len(encoder.blocks))
    x = whole = encoder.tokens(features)
    for index, block in enumerate(encoder.blocks):
        if residuals and index >= min(residuals):
            whole = block(whole, None, None, 1.0)
            x = block(x, None, (lambda values: values) if index in residuals else None, residuals.get(index, 1.0))
        else:
            x = whole = block(x, None, None, 1.0)
    views = [encoder.finish(x, features, every, phase)[1]]
    if model.local is not None:
        local = model.local(features[1], coarse(features), features[2].shape[-2:], every, phase)
        views = [views[0] + local, views[0], local]
    return [confident(view) for view in views], confident(encoder.projection(encoder.norm(whole[:, 0])))
