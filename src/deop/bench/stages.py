"""What each stage of a photo's way takes, and the small model against its own trunk."""

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from deop.bench.report import Goal, Part, Row
from deop.bench.setup import Setup
from deop.bench.subjects import NANO_NAMES, clip_model, names
from deop.bench.timing import Stopwatch, Times, take_turns
from deop.images.canvas import canvas_of
from deop.images.preprocessing import resize_photo, to_pixels
from deop.images.reading import read_photo
from deop.model import DeOP
from deop.networks.resampling import grid_of
from deop.regions.assembly import semantic
from deop.regions.classification import classify, probabilities
from deop.regions.encoding import choose_anchors, embed_masks, stack_proposals
from deop.results.segmentation import Segmentation
from deop.text.vocabulary import Vocabulary

STAGES = ("read", "resize", "proposals", "encoder", "anchors", "classify", "assemble", "draw")


@torch.inference_mode()
def walk(model: DeOP, path: Path, words: Vocabulary) -> dict[str, float]:
    """One photo through all stages, as ``DeOP.segment`` and ``Segmentation.overlay`` do it; seconds of each."""
    watch, settings, device = Stopwatch(model.device), model.settings, model.device
    photo = watch.lap("read", read_photo(path))
    resized = resize_photo(photo, settings.resize)
    divisor, encoder = settings.resize.divisor, model.encoder
    canvas = canvas_of(photo, settings.resize)
    pixels = to_pixels(resized, encoder.normalization, divisor, device, model.dtype)[None]
    proposer: Any = model.proposer
    other = proposer.normalization != encoder.normalization
    masked = to_pixels(resized, proposer.normalization, divisor, device, model.dtype)[None] if other else pixels
    watch.lap("resize")
    proposals = watch.lap("proposals", proposer(masked))
    masks, valid = stack_proposals(proposals)
    features = encoder(
        pixels, masks.to(pixels.dtype), severance=settings.severance, valid=valid, sizes=[canvas.resized]
    ).patches
    watch.lap("encoder")
    rows, columns = grid_of(canvas.resized, encoder.patch)
    chosen = choose_anchors(None, model.anchors, settings, proposals[0])
    regions = embed_masks(
        features[:, :, :rows, :columns], proposals[0], canvas, encoder.patch, model.anchors, settings, chosen
    )
    watch.lap("anchors")
    votes = probabilities(classify(regions.embeddings[0], model.embed(words), model.no_object, settings.temperature))
    watch.lap("classify")
    labels, confidence = semantic(
        votes, proposals[0], canvas, threshold=settings.threshold, claim=settings.claim,
        smallest_region=settings.smallest_region,
    )  # fmt: skip
    found = Segmentation.from_semantic(photo, words.names, labels, confidence, {})
    watch.lap("assemble")
    found.overlay()
    watch.lap("draw")
    return watch.laps


def stages(setup: Setup) -> Part:
    """The stages of both kinds of model, and of the small one its trunk alone."""
    from deop.zoo import load

    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(setup.photo).save(path, quality=92)
        nano = load("nano", device=setup.device, dtype=setup.dtype)
        clip = clip_model("B/16", seed=setup.seed).to(setup.device, setup.dtype)
        for model, asked in ((nano, NANO_NAMES), (clip, names(20))):
            model.cache = None
            words = model.vocabulary(asked)
            turns: dict[str, list[float]] = defaultdict(list)
            for turn in range(2 + setup.repeats):
                laps = walk(model, path, words)
                for stage in STAGES if turn >= 2 else ():
                    turns[stage].append(laps[stage])
            times = {stage: Times(tuple(turns[stage])) for stage in STAGES}
            total = sum(one.p50 for one in times.values())
            label = "nano" if model is nano else "B/16, R50"
            rows += [Row(f"{label}: {key}", one, figures={"share": one.p50 / total}) for key, one in times.items()]
        rows.append(_against_trunk(setup, nano))
    return Part("stages", "Where the time of a photo goes", tuple(rows))


def _against_trunk(setup: Setup, nano: DeOP) -> Row:
    encoder: Any = nano.encoder
    words = nano.vocabulary(NANO_NAMES)
    resized = resize_photo(setup.photo, nano.settings.resize)
    pixels = to_pixels(resized, encoder.normalization, 32, setup.device, setup.dtype)[None]

    @torch.inference_mode()
    def trunk() -> object:
        return encoder.trunk.trunk(pixels)

    found = take_turns({"all": lambda: nano.segment(setup.photo, words), "trunk": trunk}, setup.repeats, setup.device)
    ratio = found["all"].p50 / found["trunk"].p50
    return Row("nano: pixels to map", found["all"], ("its trunk alone", found["trunk"]),
               {"times as long": ratio}, Goal("times as long", 4.0, least=False))  # fmt: skip
