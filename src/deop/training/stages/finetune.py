"""Fine-tuning on a few photos: stage 3 with a low-rank adaptor, held-out photos and early stopping."""

import json
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deop.bank.bank import MAX_REGIONS
from deop.bank.learning import REGIONS_PER_NAME, learn_photos
from deop.bank.sources import photos_of_data
from deop.data.augment import Augmentation
from deop.data.entries import image_source
from deop.data.labelled import LabelledData
from deop.data.samples import TrainingPhotos
from deop.errors import DataError, SettingError, VocabularyError
from deop.evaluation.evaluate import evaluate
from deop.evaluation.protocol import Protocol
from deop.files import parse_json, replacing
from deop.model import DeOP
from deop.text.class_lists import official_classes
from deop.training.loop import Run, fit
from deop.training.losses import AnchorWeights
from deop.training.recipe import plain
from deop.training.stages.common import Data, PhotoBatches, Validation, check_ranges
from deop.training.stages.deop import DeOPTask
from deop.training.stages.deop_recipe import Anchors, DeOPRecipe, check_learn, prepare
from deop.training.task import LoopSettings

OTHER_NAMES = "coco-stuff"
"""The class list that measures forgetting: its names, without those that the model is tuned on."""

_OVERFITTING_GAP = 0.1  # mIoU that training photos may gain over held-out ones before there is a warning


class OverfittingWarning(UserWarning):
    """The model has memorized its training photos, or fine-tuning did not help."""


class BankWarning(UserWarning):
    """The photos cannot be examples in a bank, so that fine-tuning is not compared with one."""


def _loop() -> LoopSettings:
    return LoopSettings(
        iterations=300, batch=4, clip=0.01, save_every=20, log_every=10, validate_every=20, best="miou", patience=5
    )


@dataclass(frozen=True)
class FinetuneRecipe:
    """Fine-tuning.

    Attributes:
        data: the photos. If the folder has splits, only the training split is used.
        model: the model to tune: a name of the zoo or a folder.
        photos: number of photos to use, chosen at random with the seed; None: all.
        held_out: fraction of the photos that are not trained on, at least one photo. If the loop chooses the weights
            with the best score, the larger half of them decides and the gain is reported on the others.
        others: photos with other names, to measure forgetting; None: forgetting is only measured as the fraction of
            pixels of the held-out photos that keep their name among ``OTHER_NAMES``.
        loop: settings of the training loop.
        learn: the parts to train: some of adaptor, anchors, no_object, prompt.
        anchors: a new anchor decoder; None: continue with the model's own, or pool features if it has none.
        rank: rank of the adaptor.
        augmentation: augmentation of the photos.
        rate: learning rate.
        decay: weight decay.
        weights: weights of the losses.
        loss_stride: compute the losses only at every n-th pixel in each direction.
        bank: whether the untuned model with the training photos as examples beside words (``deop.learn``) is scored
            too, to compare: often it makes training unnecessary.

    Raises:
        SettingError: a value out of range, or an option without effect.
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
    bank: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise SettingError(f"held_out is {self.held_out}: expected a fraction between 0 and 1")
        if self.photos is not None and self.photos < 2:
            raise SettingError(f"photos is {self.photos}: expected 2 or more, one to train on and one to hold out")
        check_learn(self.learn, self.anchors)
        check_ranges(self, positive=("rate", "rank", "loss_stride"), not_negative=("decay",))


@dataclass(frozen=True)
class Division:
    """The photos of a fine-tuning run.

    Attributes:
        training: photos to train on.
        choice: held-out photos that choose the weights and the end of the run.
        report: held-out photos whose scores are reported. They are the same as ``choice`` if there is only one
            held-out photo.
        independent: whether no reported photo takes part in the choice.
    """

    training: LabelledData
    choice: LabelledData
    report: LabelledData
    independent: bool


@dataclass(frozen=True)
class Measured:
    """mIoU of a model, in [0, 1].

    Attributes:
        training: on the training photos.
        held_out: on the reported photos, which are not trained on.
        others: on photos with other names; None if there are none.
    """

    training: float
    held_out: float
    others: float | None = None


@dataclass(frozen=True)
class BankScore:
    """A bank of the training photos, with the untuned model.

    Attributes:
        held_out: mIoU on the reported photos, in [0, 1].
        seconds: time to learn the examples, with the encoding of the photos.
        regions: regions in the bank.
    """

    held_out: float
    seconds: float
    regions: int


@dataclass(frozen=True)
class Report:
    """The result of fine-tuning.

    Attributes:
        before: scores of the model before fine-tuning.
        after: scores of the tuned model.
        unchanged: fraction of the reported photos' pixels that keep their name among names that were not tuned on.
        training_photos: number of photos that were trained on.
        choice_photos: number of held-out photos that chose the weights; 0 if the last weights were used.
        reported_photos: number of held-out photos whose scores are reported.
        independent: whether the reported photos took no part in the choice of the weights. If not, the gain is too
            optimistic.
        steps: number of steps taken; the chosen weights may be of an earlier step.
        seconds: time of the training, with the choice of the weights; of a resumed run, only since then. None: written
            by an older version.
        bank: a bank of the same photos; None: not asked for, or the photos cannot be examples.
    """

    before: Measured
    after: Measured
    unchanged: float
    training_photos: int
    choice_photos: int
    reported_photos: int
    independent: bool
    steps: int
    seconds: float | None = None
    bank: BankScore | None = None

    @property
    def overfits(self) -> bool:
        """Whether the training photos gained far more than the held-out ones."""
        gain = self.after.training - self.before.training
        return gain - (self.after.held_out - self.before.held_out) > _OVERFITTING_GAP

    @property
    def helps(self) -> bool:
        """Whether the mIoU of the held-out photos is higher than before."""
        return self.after.held_out > self.before.held_out

    @property
    def held_out_label(self) -> str:
        """The held-out photos in words, for tables.

        >>> score = Measured(0.5, 0.5)
        >>> Report(score, score, 1.0, 4, 1, 1, independent=False, steps=20).held_out_label
        'held-out photos (1; the weights were chosen on these photos)'
        """
        chosen = "" if self.independent else "; the weights were chosen on these photos"
        return f"held-out photos ({self.reported_photos}{chosen})"


def divide(folder: LabelledData, recipe: FinetuneRecipe) -> Division:
    """Divide the photos at random, as the seed decides, into training photos and held-out photos.

    If the loop chooses the weights with the best score, two or more held-out photos are divided again: the larger half
    chooses, the smaller half is reported.

    Raises:
        DataError: fewer than two photos, or fewer than the recipe asks for.
    """
    if recipe.photos is not None and recipe.photos > len(folder.pairs):
        raise DataError(
            f"{folder.root} has {len(folder.pairs)} photos, fewer than photos={recipe.photos}: use a smaller number"
        )
    order = np.random.default_rng((recipe.loop.seed, 8)).permutation(len(folder.pairs))[: recipe.photos]
    if len(order) < 2:
        raise DataError(
            f"{folder.root} has only {len(order)} photo: fine-tuning needs 2 or more, one to train on and one to hold "
            "out"
        )

    def part(indices: np.ndarray) -> LabelledData:
        return replace(folder, pairs=tuple(folder.pairs[index] for index in sorted(indices)))

    count = max(1, min(round(recipe.held_out * len(order)), len(order) - 1))
    training, held_out = part(order[count:]), order[:count]
    if not recipe.loop.best:
        return Division(training, part(held_out), part(held_out), independent=True)
    if count == 1:
        return Division(training, part(held_out), part(held_out), independent=False)
    return Division(training, part(held_out[count // 2 :]), part(held_out[: count // 2]), independent=True)


def measure(model: DeOP, photos: Division, others: LabelledData | None) -> Measured:
    """mIoU of a model on the training photos, the reported photos and the photos with other names."""
    training, held_out = (
        float(evaluate(model, part, Protocol())["miou"] or 0) for part in (photos.training, photos.report)
    )
    return Measured(training, held_out, None if others is None else evaluate(model, others, Protocol())["miou"])


def score_bank(model: DeOP, photos: Division) -> BankScore | None:
    """The score of the model with the training photos as examples; None if none of them marks anything it can learn."""
    start = time.monotonic()
    names = len(photos.training.names) + 1
    limit = max(1, min(REGIONS_PER_NAME, MAX_REGIONS // names))
    marked = photos_of_data(photos.training)
    try:
        bank = learn_photos(model, marked, len(photos.training.pairs), limit=limit)
    except (DataError, VocabularyError) as error:  # names that share a synonym, for example: no reason to end the run
        warnings.warn(f"no bank of examples to compare with: {error}", BankWarning, stacklevel=3)
        return None
    seconds = time.monotonic() - start
    scores = evaluate(model, photos.report, Protocol(bank=bank))
    return BankScore(float(scores["miou"] or 0), seconds, len(bank))


def label_maps(model: DeOP, folder: LabelledData) -> list[np.ndarray]:
    """The label maps of photos, with those names of ``OTHER_NAMES`` that the folder does not have."""
    tuned = {text.casefold() for name in folder.names for text in name.split("|")}
    names = [entry.plain or entry.name for entry in official_classes(OTHER_NAMES)]
    others = [name for name in dict.fromkeys(names) if not tuned & {text.casefold() for text in name.split("|")}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not matter here if two of these names have the same embedding
        vocabulary = model.vocabulary(_without_repeated_synonyms(others))
        encoded = (model.encode([image_source(pair.photo)])[0] for pair in folder.pairs)
        return [model.label(photo, vocabulary).label_map for photo in encoded]


def _without_repeated_synonyms(names: list[str]) -> list[str]:
    """Names without the synonyms that an earlier name already has."""
    earlier: set[str] = set()
    kept = []
    for name in names:
        texts = [text for text in name.split("|") if text.casefold() not in earlier]
        earlier |= {text.casefold() for text in texts}
        if texts:
            kept.append("|".join(texts))
    return kept


def train(recipe: FinetuneRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Fine-tune a model, and write its scores before and after to ``report.json`` in ``out``.

    Args:
        recipe: the recipe.
        out: folder of the run.
        resume: continue an earlier run in that folder, if there is one.
        device: "cpu" trains on the CPU; None: on a GPU if there is one.

    Warns:
        OverfittingWarning: the model has memorized its training photos, or held-out photos have not improved.

    Raises:
        DeopError: an error of the recipe, the data, the model or the run.
    """
    from deop.zoo import load

    photos = divide(recipe.data.open(), recipe)
    others = None if recipe.others is None else recipe.others.open()
    base = load(recipe.model, engine="torch", device=device)
    before, maps_before = measure(base, photos, others), label_maps(base, photos.report)
    bank = score_bank(base, photos) if recipe.bank else None
    padding: Any = base.settings.padding
    stage_3 = DeOPRecipe(
        model=recipe.model, data=recipe.data, loop=recipe.loop, learn=recipe.learn, anchors=recipe.anchors,
        rank=recipe.rank, severance=base.settings.severance, augmentation=recipe.augmentation, rate=recipe.rate,
        decay=recipe.decay, weights=recipe.weights, loss_stride=recipe.loss_stride, padding=padding,
        resize=base.settings.resize, validation=Validation(recipe.data if recipe.loop.validate_every else None),
    )  # fmt: skip
    del base
    model = prepare(stage_3)
    batches = PhotoBatches(TrainingPhotos(photos.training, recipe.augmentation, recipe.loop.seed))
    task = DeOPTask(model, photos.training.names, batches, stage_3, photos.choice, stage="finetune")
    start = time.monotonic()
    run = fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
    seconds = time.monotonic() - start
    tuned = load(run.model, engine="torch", device=device)
    same = [first == second for first, second in zip(maps_before, label_maps(tuned, photos.report), strict=True)]
    report = Report(
        before,
        after=measure(tuned, photos, others),
        unchanged=float(np.concatenate([part.ravel() for part in same]).mean()),
        training_photos=len(photos.training.pairs),
        choice_photos=len(photos.choice.pairs) if recipe.loop.best else 0,
        reported_photos=len(photos.report.pairs),
        independent=photos.independent,
        steps=run.steps,
        seconds=seconds,
        bank=bank,
    )
    with replacing(out / "report.json") as file:
        file.write((json.dumps(plain(report), indent=2) + "\n").encode())
    _warn(report)
    return run


def read_report(folder: Path) -> Report:
    """The report of a finished run, from the folder of the run.

    Raises:
        DataError: no ``report.json``, or one that is damaged or of an older version of deop.
    """
    path = folder / "report.json"
    try:
        values = dict(parse_json(path))
        before, after = (Measured(**values.pop(key)) for key in ("before", "after"))
        bank = values.pop("bank", None)
        report = Report(before, after, **values, bank=None if bank is None else BankScore(**bank))
        scores = (before.training, before.held_out, after.training, after.held_out, report.unchanged)
        if not all(isinstance(score, (int, float)) for score in scores):
            raise TypeError("a score is not a number")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"cannot read the report {path}: {error}. Run fine-tuning again, in another folder.") from error
    return report


def _warn(report: Report) -> None:
    if report.overfits:
        training = report.after.training - report.before.training
        held_out = report.after.held_out - report.before.held_out
        warnings.warn(
            f"over-fitting: the {report.training_photos} training photos gained {100 * training:.1f} points of mIoU, "
            f"and the {report.reported_photos} held-out photos {100 * held_out:+.1f}. Use more photos, or a smaller "
            "rank or rate",
            OverfittingWarning,
            stacklevel=3,
        )
    if not report.helps:
        warnings.warn(
            f"held-out photos are not segmented better than before ({100 * report.before.held_out:.1f} and "
            f"{100 * report.after.held_out:.1f} % mIoU): keep the original model",
            OverfittingWarning,
            stacklevel=3,
        )
