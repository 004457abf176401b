"""Fine-tuning on a few photos of one's own: stage 3 with a light adaptor, held-out photos and early stopping."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deop.data.augment import Augmentation
from deop.data.class_lists import official_classes
from deop.data.folder import LabelledFolder
from deop.data.samples import TrainingPhotos
from deop.errors import DataError, SettingError
from deop.evaluation.evaluate import evaluate
from deop.evaluation.protocol import Protocol
from deop.files import replacing
from deop.model import DeOP
from deop.training.loop import Run, fit
from deop.training.losses import AnchorWeights
from deop.training.recipe import plain
from deop.training.stages.common import Data, PhotoBatches, Validation
from deop.training.stages.deop import Anchors, DeOPRecipe, DeOPTask, prepare
from deop.training.task import LoopSettings

OTHER_NAMES = "coco-stuff"
"""The list whose names are asked for to see what a model has forgotten, those apart that it was tuned on."""

_GAP = 0.1  # by which training photos may gain more than held-out ones before it is told of


class OverfittingWarning(UserWarning):
    """The model has learned its training photos rather than the names."""


def _loop() -> LoopSettings:
    return LoopSettings(
        iterations=300, batch=4, clip=0.01, save_every=20, log_every=10, validate_every=20, best="miou", patience=5
    )


@dataclass(frozen=True)
class FinetuneRecipe:
    """Fine-tuning.

    Attributes:
        data: photos of one's own. Where there are splits, the training one alone is used.
        model: what is tuned: a name of the zoo or a folder.
        photos: how many of them, drawn with the seed; None: all.
        held_out: share of the photos that are kept apart, to see when to stop; at least one.
        others: photos with other names, to see what is forgotten; None: it is only seen how many pixels of the
            held-out photos change their name among ``OTHER_NAMES``.
        loop: for how long at most.
        learn: what learns: some of adaptor, anchors, no_object, prompt.
        anchors: fresh anchors; None: the model's own go on, or there are none and features are pooled.
        rank: of the adaptor.
        augmentation: of photos.
        rate: learning rate.
        decay: weight decay.
        weights: of the losses.
        loss_stride: only every n-th pixel a side counts in the losses.
    """

    data: Data
    model: str = "nano"
    photos: int | None = None
    held_out: float = 0.2
    others: Data | None = None
    loop: LoopSettings = field(default_factory=_loop)
    learn: tuple[str, ...] = ("adaptor", "anchors")
    anchors: Anchors | None = field(default_factory=lambda: Anchors(heads=1, hidden=512, query="mask"))
    rank: int = 4
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(short_sides=(448, 512, 576), crop=448, pad=448)
    )
    rate: float = 1e-3
    decay: float = 1e-2
    weights: AnchorWeights = field(default_factory=AnchorWeights)
    loss_stride: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise SettingError(f"held_out is {self.held_out}: expected a share between 0 and 1")


@dataclass(frozen=True)
class Measured:
    """A model at one time.

    Attributes:
        training: mIoU on the photos that it learns from.
        held_out: mIoU on those kept apart.
        others: mIoU on photos with other names; None where there are none.
    """

    training: float
    held_out: float
    others: float | None = None


@dataclass(frozen=True)
class Report:
    """What fine-tuning did.

    Attributes:
        before: the model as it was.
        after: as it is now.
        unchanged: share of the held-out photos' pixels that keep their name among names it was not tuned on.
        photos: learned from, and held out.
        steps: taken; those of the weights that were kept may be fewer.
    """

    before: Measured
    after: Measured
    unchanged: float
    photos: tuple[int, int]
    steps: int

    @property
    def overfits(self) -> bool:
        """Whether the training photos gained far more than the held-out ones."""
        learned = self.after.training - self.before.training
        return learned - (self.after.held_out - self.before.held_out) > _GAP

    @property
    def helps(self) -> bool:
        """Whether held-out photos are named better than before."""
        return self.after.held_out > self.before.held_out


def divide(folder: LabelledFolder, recipe: FinetuneRecipe) -> tuple[LabelledFolder, LabelledFolder]:
    """The photos to learn from and those kept apart, drawn with the seed.

    Raises:
        DataError: fewer than two photos.
    """
    order = np.random.default_rng((recipe.loop.seed, 8)).permutation(len(folder.pairs))[: recipe.photos]
    if len(order) < 2:
        raise DataError(f"{folder.root} has {len(order)} photo to use: give one to learn from and one to keep apart")
    apart = max(1, round(recipe.held_out * len(order)))
    chosen = (sorted(order[apart:]), sorted(order[:apart]))
    learn, held = (replace(folder, pairs=tuple(folder.pairs[i] for i in part)) for part in chosen)
    return learn, held


def measure(model: DeOP, learn: LabelledFolder, held: LabelledFolder, others: LabelledFolder | None) -> Measured:
    """mIoU on the three sets."""
    training, held_out = (float(evaluate(model, part, Protocol())["miou"] or 0) for part in (learn, held))
    return Measured(training, held_out, None if others is None else evaluate(model, others, Protocol())["miou"])


def answers(model: DeOP, folder: LabelledFolder) -> list[np.ndarray]:
    """The label maps of photos among names that are not the folder's."""
    own = {text.casefold() for name in folder.names for text in name.split("|")}
    names = [entry.plain or entry.name for entry in official_classes(OTHER_NAMES)]
    others = [name for name in dict.fromkeys(names) if not own & {text.casefold() for text in name.split("|")}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that two of these names are alike to the model is no matter here
        vocabulary = model.vocabulary(_distinct(others))
        encoded = (model.encode([pair.photo])[0] for pair in folder.pairs)
        return [model.label(photo, vocabulary).label_map for photo in encoded]


def _distinct(names: list[str]) -> list[str]:
    """Names with those synonyms left out that stood in an earlier name."""
    seen: set[str] = set()
    kept = []
    for name in names:
        texts = [text for text in name.split("|") if text.casefold() not in seen]
        seen |= {text.casefold() for text in texts}
        if texts:
            kept.append("|".join(texts))
    return kept


def train(recipe: FinetuneRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Fine-tune; ``report.json`` in ``out`` has before and after.

    Args:
        recipe: what and how.
        out: folder of the run.
        resume: go on where an earlier run stopped.
        device: "cpu" keeps off a GPU.

    Warns:
        OverfittingWarning: the model has learned its training photos, or held-out photos are named no better.

    Raises:
        DeopError: of the recipe, the data, the model or the run, by name.
    """
    from deop.zoo import load

    learn, held = divide(recipe.data.open(), recipe)
    others = None if recipe.others is None else recipe.others.open()
    start = load(recipe.model, device=device)
    before, named = measure(start, learn, held, others), answers(start, held)
    padding: Any = start.settings.padding
    third = DeOPRecipe(
        model=recipe.model, data=recipe.data, loop=recipe.loop, learn=recipe.learn, anchors=recipe.anchors,
        rank=recipe.rank, severance=start.settings.severance, augmentation=recipe.augmentation, rate=recipe.rate,
        decay=recipe.decay, weights=recipe.weights, loss_stride=recipe.loss_stride, padding=padding,
        resize=start.settings.resize, validation=Validation(recipe.data),
    )  # fmt: skip
    del start
    model = prepare(third)
    batches = PhotoBatches(TrainingPhotos(learn, recipe.augmentation, recipe.loop.seed))
    task = DeOPTask(model, learn.names, batches, third, held, stage="finetune")
    run = fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
    tuned = load(run.model, device=device)
    same = [first == second for first, second in zip(named, answers(tuned, held), strict=True)]
    unchanged = float(np.concatenate([part.ravel() for part in same]).mean())
    after = measure(tuned, learn, held, others)
    report = Report(before, after, unchanged, (len(learn.pairs), len(held.pairs)), run.steps)
    with replacing(out / "report.json") as file:
        file.write((json.dumps(plain(report), indent=2) + "\n").encode())
    _warn(report)
    return run


def read_report(folder: Path) -> Report:
    """The report of a run that is done, from its folder."""
    values: Mapping[str, Any] = json.loads((folder / "report.json").read_text())
    before, after = (Measured(**values[key]) for key in ("before", "after"))
    return Report(before, after, values["unchanged"], tuple(values["photos"]), values["steps"])


def _warn(report: Report) -> None:
    if report.overfits:
        learned = report.after.training - report.before.training
        gained = report.after.held_out - report.before.held_out
        warnings.warn(
            f"over-fitting: the {report.photos[0]} training photos gained {100 * learned:.1f} points of mIoU and the "
            f"{report.photos[1]} held-out ones {100 * gained:+.1f}. More photos help most; else a smaller rank or rate",
            OverfittingWarning,
            stacklevel=3,
        )
    if not report.helps:
        warnings.warn(
            f"held-out photos are named no better than before ({100 * report.before.held_out:.1f} and "
            f"{100 * report.after.held_out:.1f} % mIoU): use the model as it was",
            OverfittingWarning,
            stacklevel=3,
        )
