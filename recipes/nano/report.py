"""All figures of a split at the end of a run."""

from collections.abc import Callable

import measure
import torch
from settings import Names, Nano, Settings
from torch import Tensor

import data


def report(
    model: Nano,
    sets: tuple[data.Photos, ...],
    vocabularies: list[Names],
    settings: Settings,
    unseen: Tensor,
    which: str,
    say: Callable[..., None],
) -> None:
    """All figures of a split."""
    device = settings.device
    with torch.inference_mode():
        text = [model.map_text(names.rows()) for names in vocabularies]
    ready = [measure.prepare(photos, settings.short, device) for photos in sets]
    things = sets[0].things.to(device)
    for kind in ("self", "none", "gate", "gate-normalized", "affinity", "affinity-normalized"):
        result = measure.oracle(model.encoder, ready[0], text[0], things, kind)
        hits, _ = result.pop("hits"), result.pop("wanted")
        say(split=which, true_masks="coco", severance=kind, regions_counted=len(hits), **result)
        if bool(unseen.any()) and kind == "self":
            for lower in (0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 10, 12, 15):
                again = measure.oracle(model.encoder, ready[0], text[0], things, kind, bias=lower * (~unseen).float())
                seen, fresh, mean = measure.held_out(again, unseen)
                say(split=which, lowered=lower, seen=seen, unseen=fresh, harmonic=mean)
    for present in (False, True):
        say(
            split=which,
            own_masks="coco",
            present=present,
            **measure.own_masks(model.encoder, model.proposer, ready[0], text[0], present=present),
        )
    say(
        split=which,
        own_masks="coco",
        severance="none",
        **measure.own_masks(model.encoder, model.proposer, ready[0], text[0], kind="none"),
    )
    for short in (384, 512) if which == "tune" else ():
        other = measure.prepare(sets[0], short, device)
        result = measure.oracle(model.encoder, other, text[0], things, "self")
        own = measure.own_masks(model.encoder, model.proposer, other, text[0])
        say(split=which, short=short, regions=result["regions"], true_miou=result["miou"], **own)
    say(split=which, cells="coco", **measure.cells(model.encoder, ready[0], text[0]))
    result = measure.oracle(model.encoder, ready[1], text[1], sets[1].things.to(device), "self")
    result.pop("hits"), result.pop("wanted")
    say(split=which, true_masks="camvid", **result)
    say(split=which, own_masks="camvid", **measure.own_masks(model.encoder, model.proposer, ready[1], text[1]))
