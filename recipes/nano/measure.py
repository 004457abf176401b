"""The figures of the small model on photos with masks: naming under true masks, own masks, and severance."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from losses import pool, similarity
from PIL import Image
from torch import Tensor

from data import Photos
from deop.encoders.efficientnet import NORMALIZATION
from deop.encoders.nano import NanoEncoder
from deop.encoders.severance import Severance
from deop.images import Resize, resize_photo, to_pixels
from deop.proposals.nano import NanoProposer


@dataclass
class Prepared:
    """A photo as the networks see it, and its truth."""

    pixels: Tensor  # (1, 3, Hp, Wp)
    resized: tuple[int, int]
    truth: Tensor  # (H, W) int64, -1: void
    present: list[int]
    coverage: Tensor  # (1, R, gh, gw), one region a class in the photo
    logits: Tensor  # (1, R, Hp / 4, Wp / 4), the same as mask logits
    segments: Tensor  # (H, W) int64, -1: void


def prepare(photos: Photos, short: int, device: str) -> list[Prepared]:
    """Resize all photos of a set, once."""
    ready = []
    for index, file in enumerate(photos.files):
        photo = np.array(Image.open(file).convert("RGB"))
        small = resize_photo(photo, Resize(short, short * 2, divisor=1))
        pixels = to_pixels(small, NORMALIZATION, 32)[None].to(device)
        height, width = photo.shape[:2]
        truth = photos.classes[index, :height, :width].long().to(device) - 1
        segments = photos.segments[index, :height, :width].long().to(device) - 1
        present = [int(value) for value in truth.unique() if value >= 0]
        masks = torch.stack([truth == value for value in present]).float()[None]
        masks = F.interpolate(masks, size=small.shape[:2], mode="bilinear", align_corners=False, antialias=True)
        padded = F.pad(masks, (0, pixels.shape[3] - masks.shape[3], 0, pixels.shape[2] - masks.shape[2]))
        logits = torch.logit(F.avg_pool2d(padded, 4), 1e-4)
        ready.append(
            Prepared(pixels, small.shape[:2], truth, present, F.avg_pool2d(padded, 8), logits, segments)  # type: ignore[arg-type]
        )
    return ready


def figures(confusion: Tensor) -> tuple[float, float]:
    """mIoU over classes that occur in the truth, and pixel accuracy, of (K, K) counts [truth, answer]."""
    hit = confusion.diag().double()
    truth, answer = confusion.sum(1).double(), confusion.sum(0).double()
    seen = truth > 0
    iou = hit[seen] / (truth + answer - hit)[seen]
    return float(iou.mean()), float(hit.sum() / truth.sum())


def count(confusion: Tensor, truth: Tensor, answer: Tensor) -> None:
    """Add a photo to counts [truth, answer]."""
    names = len(confusion)
    inside = truth >= 0
    pairs = truth[inside] * names + answer[inside]
    confusion += torch.bincount(pairs, minlength=names * names).view(names, names)


@torch.inference_mode()
def oracle(
    encoder: NanoEncoder, ready: list[Prepared], text: Tensor, things: Tensor, kind: str, bias: Tensor | None = None
) -> dict[str, object]:
    """Naming of true masks: region accuracy, of things and of stuff, mIoU, pixels."""
    names = len(text)
    confusion = torch.zeros(names, names, dtype=torch.int64, device=text.device)
    right, labels = [], []
    for photo in ready:
        features = encoder(photo.pixels, photo.logits, severance=Severance.parse(kind, encoder.severance))
        scores = similarity(pool(features.patches, photo.coverage)[0], text)
        answer = (scores if bias is None else scores - bias).argmax(1)
        wanted = torch.tensor(photo.present, device=text.device)
        right.append(answer == wanted)
        labels.append(wanted)
        table = torch.full((names + 1,), 0, device=text.device)
        table[wanted] = answer
        count(confusion, photo.truth, table[photo.truth.clamp_min(0)])
    hits, wanted = torch.cat(right).float(), torch.cat(labels)
    miou, pixels = figures(confusion)
    return {
        "regions": float(hits.mean()),
        "things": float(hits[things[wanted]].mean()) if bool(things[wanted].any()) else None,
        "stuff": float(hits[~things[wanted]].mean()),
        "miou": miou,
        "pixels": pixels,
        "hits": hits,
        "wanted": wanted,
    }


@torch.inference_mode()
def own_masks(
    encoder: NanoEncoder,
    proposer: NanoProposer,
    ready: list[Prepared],
    text: Tensor,
    kind: str = "self",
    present: bool = False,
    sharpen: float = 1.0,
) -> dict[str, float]:
    """The whole model: mIoU and pixels of the semantic map, and how good the masks are."""
    names = len(text)
    confusion = torch.zeros(names, names, dtype=torch.int64, device=text.device)
    best, areas, counts = [], [], []
    for photo in ready:
        proposals = proposer(photo.pixels)[0]
        features = encoder(photo.pixels, proposals.logits[None], severance=Severance.parse(kind, encoder.severance))
        masks = proposals.logits.float().sigmoid()
        scores = similarity(pool(features.patches, F.avg_pool2d(masks, 2)[None])[0], text) * sharpen
        if present:
            absent = torch.ones(names, dtype=torch.bool, device=text.device)
            absent[photo.present] = False
            scores[:, absent] = -1e4
        votes = torch.einsum("nk,nhw->khw", scores.softmax(1), masks)
        full = F.interpolate(votes[None], scale_factor=4, mode="bilinear", align_corners=False)
        full = full[:, :, : photo.resized[0], : photo.resized[1]]
        answer = F.interpolate(full, size=photo.truth.shape, mode="bilinear", align_corners=False)[0].argmax(0)
        count(confusion, photo.truth, answer)
        # Masks as a division of the photo: best IoU of every true segment. Superpixels are none.
        masks = masks[masks.amax((1, 2)) >= 0.5]
        big = F.interpolate(masks[None], scale_factor=4, mode="bilinear", align_corners=False)
        big = big[:, :, : photo.resized[0], : photo.resized[1]]
        winner = F.interpolate(big, size=photo.truth.shape, mode="bilinear", align_corners=False)[0].argmax(0)
        segments, count_masks = photo.segments, len(masks)
        inside = segments >= 0
        most = int(segments.max()) + 1
        table = torch.bincount(segments[inside] * count_masks + winner[inside], minlength=most * count_masks)
        table = table.view(most, count_masks).float()
        union = table.sum(1, keepdim=True) + table.sum(0, keepdim=True) - table
        area = table.sum(1)
        best.append((table / union.clamp_min(1)).amax(1)[area > 0])
        areas.append(area[area > 0])
        counts.append(count_masks)
    miou, pixels = figures(confusion)
    overlap, area = torch.cat(best), torch.cat(areas)
    return {
        "miou": miou,
        "pixels": pixels,
        "mbo": float(overlap.mean()),
        "mbo_area": float((overlap * area).sum() / area.sum()),
        "masks": float(np.mean(counts)),
    }


@torch.inference_mode()
def cells(encoder: NanoEncoder, ready: list[Prepared], text: Tensor) -> dict[str, float]:
    """No masks at all: every cell of eight pixels is named by itself."""
    names = len(text)
    confusion = torch.zeros(names, names, dtype=torch.int64, device=text.device)
    for photo in ready:
        features = encoder(photo.pixels, severance=encoder.severance)
        votes = torch.einsum("chw,kc->khw", 100 * features.patches[0, :-1], text).softmax(0)
        full = F.interpolate(votes[None], scale_factor=8, mode="bilinear", align_corners=False)
        full = full[:, :, : photo.resized[0], : photo.resized[1]]
        answer = F.interpolate(full, size=photo.truth.shape, mode="bilinear", align_corners=False)[0].argmax(0)
        count(confusion, photo.truth, answer)
    miou, pixels = figures(confusion)
    return {"miou": miou, "pixels": pixels}


def held_out(result: dict[str, object], unseen: Tensor) -> tuple[float, float, float]:
    """Region accuracy of trained names, of held-out names, and their harmonic mean."""
    hits, wanted = result["hits"], result["wanted"]
    new = unseen[wanted]  # type: ignore[index]
    seen, fresh = float(hits[~new].mean()), float(hits[new].mean())  # type: ignore[index]
    return seen, fresh, 2 * seen * fresh / max(seen + fresh, 1e-9)
