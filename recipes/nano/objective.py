"""What a batch teaches: regions, cells and proposals named, whole photos named, photos divided."""

import random

import torch
import torch.nn.functional as F
from batches import Batch
from losses import coverage_of, cross_entropy, divide_loss, pool, similarity
from settings import SEGMENTS, Names, Nano, Settings
from torch import Tensor

import data
from deop.encoders.efficientnet import EfficientNetLite
from deop.encoders.nano import coarse, confident


def losses_of(
    model: Nano,
    batch: Batch,
    teacher: EfficientNetLite,
    head: list[Tensor],
    settings: Settings,
    imagenet: Tensor,
    vocabularies: list[Names],
    parent: Tensor,
    divide: bool = True,
) -> dict[str, Tensor]:
    """The losses of one batch.

    Args:
        model: all parts.
        batch: crops as the trunk saw them.
        teacher: the trunk as ImageNet left it.
        head: its classifier.
        settings: the run's.
        imagenet: photos of one object each.
        vocabularies: of the three data sets.
        parent: for each ImageNet class the name of coco that it is a kind of, or -1.
        divide: whether masks are trained in this step too.
    """
    device = settings.device
    amp = torch.autocast(device, torch.bfloat16)
    features, classes, bounds = batch.features, batch.classes, batch.bounds
    labelled, images = bounds[2], len(classes)
    numbers = renumbered = batch.segments
    if random.random() < 0.5:  # one region a name, as it is tested
        numbers = data.renumber((classes + 1).clamp_max(127), SEGMENTS)
        numbers[labelled:] = renumbered[labelled:]

    text = [model.map_text(names.sample(settings.alias, settings.noise)) for names in vocabularies]
    losses: dict[str, Tensor] = {}
    # A random phase of every n-th cell, to save time; regions are pooled over the cells that are there.
    every = settings.cells
    phase = (random.randrange(every), random.randrange(every))
    with amp:
        views, whole = encode(model, features, every, phase)
        with torch.no_grad() if not divide else torch.enable_grad():
            outputs = model.proposer.divide([feature[:labelled] for feature in features])
        with torch.no_grad():
            hidden = F.relu6(F.conv2d(batch.old, head[0][:, :, None, None], head[1]))

    # True regions.
    coverage = coverage_of(numbers, SEGMENTS, 8)
    fewer = coverage[:, :, phase[0] :: every, phase[1] :: every]
    size = coverage.sum((2, 3))
    pixel_class = torch.zeros(images, SEGMENTS, dtype=torch.int64, device=device)
    flat = numbers.flatten(1)
    pixel_class.scatter_(1, flat.clamp_min(0), torch.where(flat >= 0, classes.flatten(1) + 1, 0))
    # A void pixel may have written segment 0's class: write those once more.
    pixel_class = fix_first(pixel_class, flat, classes.flatten(1)) - 1
    weight = ((size > 0.5) & (pixel_class >= 0)).float() * size.clamp_max(16).div(16).sqrt()
    weight = weight * (size / 100).clamp(0.16, 40) ** settings.weight_power

    def name_regions(regions: Tensor, share: float) -> None:
        for number, key in enumerate(("region", "camvid_region", "tile")):
            rows = slice(bounds[number], bounds[number + 1])
            if bounds[number] == bounds[number + 1]:
                continue
            target = F.one_hot(pixel_class[rows].clamp_min(0), len(text[number])).float()
            loss = cross_entropy(similarity(regions[rows], text[number]), target, weight[rows], settings.smooth)
            if number == 2:
                above = parent[pixel_class[rows].clamp_min(0)]
                target = F.one_hot(above.clamp_min(0), len(text[0])).float()
                loss = loss + cross_entropy(
                    similarity(regions[rows], text[0]), target, weight[rows] * (above >= 0), settings.smooth
                )
            amount = settings.tile if number == 2 else settings.region if number == 0 else settings.region * 0.3
            losses[key] = losses.get(key, 0) + loss * amount * share

    # Cells and proposals.
    cells = classes[:, 4::8, 4::8][:, phase[0] :: every, phase[1] :: every].flatten(1)
    kinds = []
    for number, rows in enumerate((slice(0, bounds[1]), slice(bounds[1], labelled))):
        valid = (cells[rows] >= 0).float()
        frequency = F.one_hot(cells[rows].clamp_min(0), len(text[number])).float()
        amount = (frequency * valid[..., None]).sum((0, 1)).clamp_min(1)
        balance = valid * (1 + amount.mean() / amount.sqrt() / amount.mean().sqrt())[
            cells[rows].clamp_min(0)
        ].clamp_max(4)
        division = outputs[-1][rows].detach().float().softmax(1)
        quarter = classes[rows, 2::4, 2::4]
        same = quarter[..., None] + 1 == torch.arange(len(text[number]) + 1, device=device)
        histogram = torch.einsum("bqhw,bhwk->bqk", division, same.float())
        total = histogram.sum(-1)
        inside = histogram[..., 1:]
        known = inside.sum(-1)
        wanted = inside / known.clamp_min(1e-3)[..., None]
        trust = ((known > 0.5 * total) & (total > 0.001 * quarter[0].numel())).float() * total.sqrt()
        shares = F.avg_pool2d(division, 2)[:, :, phase[0] :: every, phase[1] :: every]
        kinds.append((rows, frequency, balance, wanted, trust, shares))

    def name_cells(patches: Tensor, share: float) -> None:
        for number, (rows, frequency, balance, wanted, trust, shares) in enumerate(kinds):
            amount, key = (share, "") if number == 0 else (share * 0.5, "camvid_")
            logits = similarity(patches[rows].flatten(2).mT, text[number])
            loss = settings.cell * amount * cross_entropy(logits, frequency, balance, settings.smooth)
            losses[key + "cell"] = losses.get(key + "cell", 0) + loss
            logits = similarity(pool(patches[rows], shares), text[number])
            loss = settings.proposal * amount * cross_entropy(logits, wanted, trust, settings.smooth)
            losses[key + "proposal"] = losses.get(key + "proposal", 0) + loss

    for number, patches in enumerate(views):
        share = 1.0 if number == 0 else settings.parts
        regions = pool(patches, fewer)  # (B, S, C + 1)
        name_regions(regions, share)
        name_cells(patches, share)
        if number == 0:
            # What the ImageNet classifier sees in a region.
            few = F.avg_pool2d(coverage, 4)
            seen = torch.einsum("bnhw,bchw->bnc", few, hidden.float()) / few.sum((2, 3)).clamp_min(1e-4)[..., None]
            belief = (seen @ head[2].T + head[3]).softmax(-1)
            losses["distil"] = settings.distil * cross_entropy(
                similarity(regions, text[2]), belief, weight * belief.amax(-1)
            )

    # Whole photos, nothing severed: what the class token learns from.
    for number in range(3):
        rows = slice(bounds[number], bounds[number + 1])
        if bounds[number] < bounds[number + 1]:
            present = F.one_hot(pixel_class[rows].clamp_min(0), len(text[number])) * weight[rows][..., None]
            present = present.sum(1) / weight[rows].sum(1).clamp_min(1e-3)[:, None]
            sure = (weight[rows].sum(1) > 0).float()
            losses[f"image{number}"] = settings.image * cross_entropy(
                similarity(whole[rows], text[number]), present, sure
            )
    if settings.singles and random.random() < 0.25:
        chosen = torch.randint(0, len(imagenet), (settings.singles,), device=device)
        side = random.choice((160, 192, 224, 256))
        photo = F.interpolate(imagenet[chosen].float(), size=(side, side), mode="bilinear", align_corners=False)
        photo = torch.where(torch.rand(len(photo), 1, 1, 1, device=device) < 0.5, photo, photo.flip(-1))
        photo = data.normalize(data.colour(photo))
        with amp:
            single = encode(model, model.trunk(photo))[1]
            with torch.no_grad():
                hidden = F.relu6(F.conv2d(teacher(photo)[-1], head[0][:, :, None, None], head[1])).mean((2, 3))
        belief = (hidden.float() @ head[2].T + head[3]).softmax(-1)
        target = 0.5 * belief + 0.5 * F.one_hot(chosen, 1000)
        one = torch.ones(len(single), device=device)
        losses["single"] = 2 * settings.image * cross_entropy(similarity(single, text[2]), target, one)

    # Masks last: matching waits for the device.
    if divide:
        losses["divide"] = settings.divide * 0.5 * divide_loss(outputs, renumbered[:labelled], SEGMENTS)[0]
    return losses


def fix_first(table: Tensor, numbers: Tensor, classes: Tensor) -> Tensor:
    """The class (+ 1) of region 0 anew: the largest class index among its own pixels."""
    own = torch.where(numbers == 0, classes + 1, 0)
    table = table.clone()
    table[:, 0] = own.amax(1)
    return table


def encode(
    model: Nano, features: list[Tensor], every: int = 1, phase: tuple[int, int] = (0, 0)
) -> tuple[list[Tensor], Tensor]:
    """The encoder on features that are there already: severed patches, and images with nothing severed.

    Where there is a local branch, patches are three: of both branches, of the encoder, of the local branch.

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
