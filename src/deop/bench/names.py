"""Cost against the number of names, and CLIPSeg, which passes the photo once for each of them."""

from functools import partial

import numpy as np

from deop.bench.report import Goal, Part, Row, faster
from deop.bench.setup import Setup
from deop.bench.subjects import CLIPSegUsed, clip_model, names
from deop.bench.timing import Subject, take_turns
from deop.model import DeOP
from deop.results.segmentation import Segmentation
from deop.text.vocabulary import Vocabulary

COUNTS = (10, 100, 1_000, 10_000)
MOST = 0.15
"""By which ten thousand names may be slower than ten."""
CLIPSEG_GOALS = {20: 4.0, 150: 25.0}


def vocabulary(setup: Setup) -> Part:
    """Photo to map with more and more names, embedded before."""
    from deop.zoo import load

    counts = setup.some(COUNTS)
    models = {
        "B/16": clip_model("B/16", seed=setup.seed).to(setup.device, setup.dtype),
        "nano": load("nano", device=setup.device, dtype=setup.dtype),
    }
    rows = []
    for label, model in models.items():
        model.cache = None
        subjects: dict[str, Subject] = {}
        for count in counts:
            words = model.vocabulary(names(count))
            subjects[str(count)] = partial(_segment, model, setup.photo, words)
        found = take_turns(subjects, setup.repeats, setup.device)
        first = found[str(counts[0])]
        for count in counts:
            goal = Goal("times as long", 1 + MOST, least=False) if count == COUNTS[-1] else None
            figures = {"times as long": found[str(count)].p50 / first.p50}
            rows.append(Row(f"{label}, {count:,} names", found[str(count)], figures=figures, goal=goal))
    return Part("names", "Photo to map by names: B/16 at 512 with R50 and 100 masks; nano", tuple(rows))


def _segment(model: DeOP, photo: np.ndarray, words: Vocabulary) -> Segmentation:
    return model.label(model.encode([photo])[0], words)


def clipseg(setup: Setup) -> Part:
    """Against transformers' CLIPSeg."""
    model = clip_model("B/16", seed=setup.seed).to(setup.device, setup.dtype)
    other = CLIPSegUsed(setup.device, setup.dtype, setup.seed)
    rows: list[Row] = []
    for count in setup.some((2, 20, 150)):
        words = model.vocabulary(names(count))
        repeats = setup.repeats if count < 100 else setup.few
        found = take_turns(
            {
                "deop": partial(model.segment, setup.photo, words),
                "documented": partial(other.documented, setup.photo, count),
                "once": partial(other.once, setup.photo, count),
            },
            repeats,
            setup.device,
            warm=int(count < 100),
        )
        goal = CLIPSEG_GOALS.get(count)
        rows.append(
            faster(f"{count} names, CLIPSeg as documented", found["deop"], found["documented"], "CLIPSeg", goal)
        )
        rows.append(faster(f"{count} names, CLIPSeg encoding once", found["deop"], found["once"], "CLIPSeg, once"))
    return Part(
        "clipseg",
        "deop (B/16 at 512, R50, 100 masks), and CLIPSeg (B/16 at 352)",
        tuple(rows),
        "As documented: the photo beside every prompt. Encoding once: its own parts, the photo encoded once and the "
        "prompts before.",
    )
