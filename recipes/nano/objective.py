"""What a batch teaches: regions, cells and proposals named, whole photos named, photos divided."""

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from batches import Batch
from losses import (
    coverage_of,
    cross_entropy,
    divide_loss,
    label_loss,
    mean,
    pool,
    shares_loss,
    similarity,
    teaches,
)
from recipe import SEGMENTS, Nano, NanoRecipe, Teacher
from sets import PLACES, Space
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
        divisions: of each layer the logits (B, Q, h, w) of which query owns a pixel, of photos.
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
        divisions = model.proposer.divide([feature[: batch.photos] for feature in batch.features])
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


@torch.no_grad()
def guesses(average: Nano, batch: Batch, space: Space, text: Tensor, sure: float) -> Tensor:
    """Labels for pixels that have none of their own, by votes of masks, as a model in use has them.

    Args:
        average: of the model so far.
        batch: its ``things`` and ``unlabelled``; a pixel of the former gets no name of a thing.
        space: what labels mean.
        text: rows of the joint names.
        sure: least share of the votes of what may be.

    Returns:
        (B, S, S), as ``batch.labels``; -1 where nothing is sure, or where there is a label already.
    """
    found = torch.full_like(batch.labels, -1)
    present = [batch.rows[name] for name in ("things", "unlabelled") if name in batch.rows]
    if not present:
        return found
    rows = slice(present[0].start, present[-1].stop)
    labels = batch.labels[rows]
    open_to = (labels >= 0) & ~space.region[labels.clamp_min(0)]
    if batch.plain is None:
        features = [feature[rows] for feature in batch.features]
    else:
        features = average.trunk(data.normalize(batch.plain[rows]))
    patches = encode(average, features)[0][0]
    division = average.proposer.divide(features)[-1].float().softmax(1)
    shares = F.avg_pool2d(division, 2)
    # What a crop's open pixels may be: they all have one label.
    label = torch.where(open_to, labels, -1).flatten(1).amax(1).clamp_min(0)
    with torch.autocast(shares.device.type, enabled=False):
        logits = similarity(pool(patches, shares), text).masked_fill(~space.allowed[label][:, None], -torch.inf)
        votes = torch.einsum("bqk,bqhw->bkhw", logits.softmax(-1), shares)
    share, name = votes.max(1)
    name = torch.where(share > sure, name, -1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    found[rows] = torch.where(open_to, name, -1)
    return found


def losses_of(seen: Seen, teacher: Teacher, recipe: NanoRecipe, space: Space, text: dict[str, Tensor],
              guessed: Tensor | None, divide: bool) -> dict[str, Tensor]:  # fmt: skip
    """The weighted losses of a batch, in float32.

    Args:
        seen: of ``see``.
        teacher: its classifier.
        recipe: the run's.
        space: what labels mean.
        text: rows of the names: "joint", and of each set with a softmax of its own.
        guessed: (B, S, S) bool, which labels are guesses.
        divide: as in ``see``.
    """
    batch, weights = seen.batch, recipe.weights
    labels, rows, every, phase = batch.labels, batch.rows, recipe.cells, seen.phase
    photos, smooth, number = batch.photos, recipe.smooth, space.imagenet  # of labels that photos have
    joint_rows = {name: own for name, own in rows.items() if name != "mosaics" and PLACES[name].joint}
    end = max(own.stop for own in joint_rows.values())  # they come first
    share_of_row = torch.cat(
        [labels.new_full((own.stop - own.start,), weights.joint(name), dtype=torch.float)
         for name, own in joint_rows.items()]
    )[:, None]  # fmt: skip
    own_rows = {name: rows[name] for name in space.own if name in rows}
    means = space.region[labels.clamp_min(0)] & (labels >= 0)
    if guessed is not None:
        means &= ~guessed

    numbers = batch.segments.clamp_min(-1)
    if random.random() < 0.5:  # one region a name, as it is tested
        named = torch.where(means, labels + 1, 0)[:photos]
        numbers = torch.cat([data.renumber(named, SEGMENTS, number + 1), numbers[photos:]])

    # True regions.
    coverage = coverage_of(numbers, SEGMENTS, 8)
    fewer = coverage[:, :, phase[0] :: every, phase[1] :: every]
    size = coverage.sum((2, 3))
    region = class_of_regions(numbers, torch.where(means, labels, -1))
    weight = ((size > 0.5) & (region >= 0)).float() * size.clamp_max(16).div(16).sqrt()
    weight = weight * (size / 100).clamp(0.16, 40) ** weights.area

    losses: dict[str, Tensor] = {}

    def add(key: str, loss: Tensor) -> None:
        losses[key] = losses[key] + loss if key in losses else loss

    def own_target(name: str, label: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot rows among a set's own names, and which of them are there."""
        place = torch.where(label >= 0, space.own[name][label.clamp_min(0)], -1)
        return F.one_hot(place.clamp_min(0), len(text[name])).float(), (place >= 0).float()

    def joint_loss(logits: Tensor, label: Tensor, amount: Tensor) -> Tensor:
        amount = amount * teaches(label, space.allowed)
        return mean(label_loss(logits, label, space.allowed, smooth), amount)

    def name_regions(regions: Tensor, share: float) -> None:
        logits = similarity(regions[:end], text["joint"])
        add("region", weights.region * share * joint_loss(logits, region[:end], weight[:end] * share_of_row))
        for name, own in own_rows.items():
            target, there = own_target(name, region[own])
            logits = similarity(regions[own], text[name])
            loss = cross_entropy(logits, target, weight[own] * there, smooth)
            if name == "mosaics":
                loss = loss + joint_loss(similarity(regions[own], text["joint"]), region[own], weight[own])
            amount = weights.tile if name == "mosaics" else weights.region * weights.own(name)
            add(f"{name}_region", loss * amount * share)

    # Cells, and masks of the proposer: a mask is what lies in it.
    few = labels[:photos, 4::8, 4::8][:, phase[0] :: every, phase[1] :: every].flatten(1)
    counted = torch.zeros(number + 1, device=few.device).scatter_add_(
        0, (few + 1).flatten(), torch.ones_like(few, dtype=torch.float).flatten()
    )[1:].clamp_min(1)  # fmt: skip
    balance = (1 + (counted.mean() / counted).sqrt()).clamp_max(4)
    # What a label counts for: all but those that only say what is not there count in full.
    counts_for = torch.where(space.region[:number], 1.0, weights.rest)
    cell_weight = (balance * counts_for)[few.clamp_min(0)] * (few >= 0)
    division = seen.divisions[-1].detach().float().softmax(1)
    quarter = labels[:photos, 2::4, 2::4]
    same = (quarter[..., None] == torch.arange(number, device=quarter.device)).float()
    histogram = torch.einsum("bqhw,bhwk->bqk", division, same)
    total = division.sum((2, 3))
    large = total > 0.001 * quarter[0].numel()
    shares = F.avg_pool2d(division, 2)[:, :, phase[0] :: every, phase[1] :: every]
    certain = torch.ones_like(total)
    if guessed is not None:
        guess_cells = guessed[:photos, 4::8, 4::8][:, phase[0] :: every, phase[1] :: every].flatten(1)
        cell_weight = torch.where(guess_cells, balance[few.clamp_min(0)] * weights.guess, cell_weight)
        inside = torch.einsum("bqhw,bhw->bq", division, guessed[:photos, 2::4, 2::4].float())
        certain = 1 - (1 - weights.guess) * inside / total.clamp_min(1e-3)
    telling = teaches(torch.arange(number, device=few.device), space.allowed)
    known = (histogram * telling).sum(-1)
    wanted = histogram * telling * counts_for / known.clamp_min(1e-3)[..., None]
    trust = ((known > 0.5 * total) & large).float() * total.sqrt() * certain

    def name_cells(patches: Tensor, share: float) -> None:
        logits = similarity(patches[:end].flatten(2).mT, text["joint"])
        add("cell", weights.cell * share * joint_loss(logits, few[:end], cell_weight[:end] * share_of_row))
        pooled = pool(patches[:photos], shares)
        loss = shares_loss(similarity(pooled[:end], text["joint"]), wanted[:end], space.allowed, space.several, smooth)
        amount = trust[:end] * share_of_row
        loss = (loss * amount).sum() / (wanted[:end].sum(-1) * amount).sum().clamp_min(1e-6)
        add("proposal", weights.proposal * share * loss)
        for name, own in own_rows.items():
            if name == "mosaics":
                continue
            amount = share * weights.own(name)
            target, there = own_target(name, few[own])
            logits = similarity(patches[own].flatten(2).mT, text[name])
            loss = cross_entropy(logits, target, balance[few[own].clamp_min(0)] * there, smooth)
            add(f"{name}_cell", weights.cell * amount * loss)
            place = space.own[name][:number]
            to_own = F.one_hot(place.clamp_min(0), len(text[name])).float() * (place >= 0)[:, None]
            inside = histogram[own] @ to_own
            sum_inside = inside.sum(-1)
            sure = ((sum_inside > 0.5 * total[own]) & large[own]).float() * total[own].sqrt()
            loss = cross_entropy(
                similarity(pooled[own], text[name]), inside / sum_inside.clamp_min(1e-3)[..., None], sure, smooth
            )
            add(f"{name}_proposal", weights.proposal * amount * loss)

    for index, patches in enumerate(seen.views):
        share = 1.0 if index == 0 else weights.parts
        regions = pool(patches, fewer)  # (B, S, C + 1)
        name_regions(regions, share)
        name_cells(patches, share)
        if index == 0:
            # What the ImageNet classifier sees in a region.
            covered = F.avg_pool2d(coverage, 4)
            felt = torch.einsum("bnhw,bchw->bnc", covered, seen.hidden.float())
            felt = felt / covered.sum((2, 3)).clamp_min(1e-4)[..., None]
            belief = teacher.classifier(felt).softmax(-1)
            losses["distil"] = weights.distil * cross_entropy(
                similarity(regions, text["mosaics"]), belief, weight * belief.amax(-1)
            )

    # Whole photos, nothing severed: what the class token learns from. Photos that are labelled in part say little.
    if "coco" in rows:
        own = rows["coco"]
        present = F.one_hot(region[own].clamp_min(0), number) * weight[own][..., None]
        present = (present * telling).sum(1) / weight[own].sum(1).clamp_min(1e-3)[:, None]
        logits = similarity(seen.whole[own], text["joint"])
        loss = shares_loss(logits, present, space.allowed, space.several)
        add("image", weights.image * mean(loss, (weight[own].sum(1) > 0).float()))
    for name, own in own_rows.items():
        target, there = own_target(name, region[own])
        amount = weight[own] * there
        present = (target * amount[..., None]).sum(1) / amount.sum(1).clamp_min(1e-3)[:, None]
        loss = cross_entropy(similarity(seen.whole[own], text[name]), present, (amount.sum(1) > 0).float())
        add("image", weights.image * loss)
    if seen.single is not None:
        single, belief, chosen = seen.single
        target = 0.5 * belief + 0.5 * F.one_hot(chosen, belief.shape[1])
        one = torch.ones(len(single), device=single.device)
        losses["single"] = 2 * weights.image * cross_entropy(similarity(single, text["mosaics"]), target, one)

    # Masks last: matching waits for the device.
    if divide:
        divided = [logits[:photos] for logits in seen.divisions]
        losses["divide"] = weights.divide * 0.5 * divide_loss(divided, batch.segments[:photos], SEGMENTS)
    return losses


def class_of_regions(numbers: Tensor, classes: Tensor) -> Tensor:
    """The label (B, H, W) of each of the regions (B, H, W), -1 for none, as (B, SEGMENTS), -1: void."""
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
