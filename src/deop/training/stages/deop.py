"""Stage 3: anchors, learned positions, prompt and "no object", all else frozen (METHOD sections 7 and 9)."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deop.data.augment import STAGE_3, Augmentation
from deop.data.folder import LabelledFolder
from deop.data.samples import TrainingBatch, TrainingPhotos
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images.canvas import Canvas
from deop.images.preprocessing import IMAGENET, Resize
from deop.model import DeOP
from deop.proposals.filtering import drop_redundant
from deop.proposals.types import Proposals
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.regions.classification import classify
from deop.regions.encoding import encode_one_pass, stack_proposals
from deop.settings import Settings
from deop.text.embedding import Classes
from deop.training.loop import Run, fit
from deop.training.losses import AnchorLosses, AnchorWeights, anchor_losses
from deop.training.process import seed_everything
from deop.training.recipe import plain
from deop.training.stages.adaptor import PARAMETER as ADAPTOR
from deop.training.stages.adaptor import add_adaptor, fold_adaptor
from deop.training.stages.common import (
    Data,
    Names,
    PhotoBatches,
    Validation,
    describe,
    labels_of,
    normalized,
)
from deop.training.task import Group, LoopSettings, Task, split_groups

LEARN = {
    "positions": r"model\.encoder\.learned_positions\..*",
    "anchors": r"model\.anchors\..*",
    "no_object": r"model\.no_object",
    "prompt": r"model\.text\.prompt\..*",
    "adaptor": rf"model\.encoder\..*{ADAPTOR}",
}
"""What may learn, and the parameters that it means."""


@dataclass(frozen=True)
class Anchors:
    """A fresh anchor decoder; the defaults are the paper's script's. See ``AnchorConfig``."""

    heads: int = 8
    layers: int = 1
    hidden: int = 1024
    dropout: float = 0.1
    query: Literal["slot", "mask"] = "slot"
    gated_layers: bool = False

    def build(self, model: DeOP) -> AnchorDecoder:
        """With the width of the model's space, and a query for each slot of its proposer.

        Raises:
            SettingError: slot-tied queries for a proposer without slots.
        """
        slots = getattr(getattr(model.proposer, "config", None), "queries", None)
        if self.query == "slot" and slots is None:
            raise SettingError(
                "anchors.query=slot needs a proposer whose masks have a query each, and "
                f"{type(model.proposer).__name__} has none: use anchors.query=mask"
            )
        return AnchorDecoder(AnchorConfig(width=model.encoder.width, slots=slots or 0, **asdict(self)))


@dataclass(frozen=True)
class Tower:
    """What becomes of CLIP's vision tower.

    Attributes:
        positions_at_input: a learned table is added at the input (METHOD section 3, "Positions").
        positions_in_blocks: blocks, counted from 0, that one more is added in.
        positions_grid: patches a side of these tables.
        position_rule: how tables are fitted to a photo: "grid", or "count" as the original (METHOD 13.7).
        statistics: of the pixels: the tower's "own", or "imagenet" as the original's stage 3 (METHOD section 1).
    """

    positions_at_input: bool = False
    positions_in_blocks: tuple[int, ...] = ()
    positions_grid: int = 24
    position_rule: Literal["grid", "count"] = "grid"
    statistics: Literal["own", "imagenet"] = "own"

    def rebuild(self, encoder: Any) -> Any:
        """The same tower with the tables that it lacks, drawn as METHOD section 3 says; others as they are.

        Raises:
            SettingError: changes to an encoder that is no CLIP.
        """
        if not isinstance(encoder, CLIPVision):
            if self != Tower():
                raise SettingError(f"tower is for CLIP's encoder; {type(encoder).__name__} is left as it is")
            return encoder
        old = encoder.config
        own = asdict(old) | {
            "learned_at_input": self.positions_at_input or old.learned_at_input,
            "learned_in_blocks": self.positions_in_blocks or old.learned_in_blocks,
            "learned_grid": old.learned_grid if encoder.learned_positions else self.positions_grid,
            "position_rule": self.position_rule,
            "normalization": IMAGENET if self.statistics == "imagenet" else old.normalization,
        }
        rebuilt = CLIPVision(VisionConfig(**own))
        rebuilt.load_state_dict(encoder.state_dict(), strict=False)  # all but the tables that are new
        return rebuilt


@dataclass(frozen=True)
class DeOPRecipe:
    """Stage 3.

    Attributes:
        model: what it starts from: a name of the zoo or a folder, such as stage 2's.
        data: what it learns from.
        loop: for how long.
        proposer: another source of masks than the model's own, as ``deop.load`` takes it.
        learn: what learns: some of positions, anchors, no_object, prompt, adaptor.
        anchors: a fresh decoder; None: the model's own, or pooling where it has none.
        tower: changes to CLIP's encoder.
        rank: of the adaptor, where it learns (``stages.adaptor``).
        severance: None: the model's own.
        augmentation: of photos.
        rate: base learning rate.
        decay: weight decay.
        weights: of the losses.
        sharpness: tau of the losses (METHOD section 7).
        loss_stride: only every n-th pixel a side counts in the losses; 1: all.
        noisy_masks: the frozen proposal network's dropout stays on, as in the original (METHOD 13.14).
        padding: "outside" or "inside", as in ``Settings``.
        resize: of the finished model; None: as it was.
        templates: of the finished model where it has no learned prompt; None: as it was.
        validation: what is measured meanwhile.
    """

    model: str
    data: Data
    loop: LoopSettings
    proposer: str | None = None
    learn: tuple[str, ...] = ("positions", "anchors", "no_object", "prompt")
    anchors: Anchors | None = field(default_factory=Anchors)
    tower: Tower = field(default_factory=Tower)
    rank: int = 4
    severance: Severance | None = None
    augmentation: Augmentation = STAGE_3
    rate: float = 2e-4
    decay: float = 1e-4
    weights: AnchorWeights = field(default_factory=AnchorWeights)
    sharpness: float = 3.0
    loss_stride: int = 1
    noisy_masks: bool = False
    padding: Literal["outside", "inside"] = "outside"
    resize: Resize | None = None
    templates: str | None = None
    validation: Validation = field(default_factory=Validation)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.learn) - set(LEARN)):
            raise SettingError(f"learn has {', '.join(unknown)}: choose from {', '.join(LEARN)}")


class DeOPTask(Task):
    """Stage 3 as a task.

    Args:
        model: as ``prepare`` makes it.
        names: the seen names.
        batches: photos.
        recipe: the run's.
        validation: photos to measure on, or None.
        stage: what the model's card says.
    """

    def __init__(
        self,
        model: DeOP,
        names: Sequence[str],
        batches: PhotoBatches,
        recipe: DeOPRecipe,
        validation: LabelledFolder | None = None,
        stage: str = "deop",
    ) -> None:
        super().__init__()
        self.stage = stage
        self.model, self.recipe = model, recipe
        self.batches: PhotoBatches = batches
        self.folder, self.validation = batches.photos.folder, validation
        self.names = Names(model, names)

    def groups(self) -> list[Group]:
        """Norm layers and the queries of slots do not decay (METHOD section 9)."""
        names = [
            name
            for name, parameter in self.named_parameters()
            if parameter.numel() and any(re.fullmatch(LEARN[part], name) for part in self.recipe.learn)
        ]
        return split_groups(self, names, self.recipe.rate, self.recipe.decay)

    def train(self, mode: bool = True) -> "DeOPTask":
        """What is frozen stays as it is in use, but for the original's noisy masks."""
        super().train(mode)
        self.model.eval()
        if self.model.anchors is not None:
            self.model.anchors.train(mode)
        if isinstance(self.model.proposer, nn.Module):
            self.model.proposer.train(mode and self.recipe.noisy_masks)
        return self

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The weighted focal and dice losses of the assembled map."""
        model, recipe = self.model, self.recipe
        pixels = normalized(batch.pixels, model.encoder.normalization)
        proposals = self.propose(batch, pixels)
        classes = self.names.learning(model) if "prompt" in recipe.learn else self.names.fixed(model)
        first = recipe.loss_stride // 2
        labels = labels_of(batch.classes)[:, first :: recipe.loss_stride, first :: recipe.loss_stride]
        losses = map_losses(model, pixels, batch.sizes, proposals, labels, classes, recipe.sharpness,
                            frozen=not {"positions", "adaptor"} & set(recipe.learn))  # fmt: skip
        return {"focal": recipe.weights.focal * losses.focal, "dice": recipe.weights.dice * losses.dice}

    @torch.no_grad()
    def propose(self, batch: TrainingBatch, pixels: Tensor) -> list[Proposals]:
        """The frozen proposer's masks, those dropped that would be dropped in use."""
        model = self.model
        assert model.proposer is not None
        same = model.proposer.normalization == model.encoder.normalization
        found = model.proposer(pixels if same else normalized(batch.pixels, model.proposer.normalization))
        return [drop_redundant(own) for own in found] if model.settings.drop_redundant else found

    def validate(self) -> dict[str, float]:
        """mIoU and pixel accuracy on the validation photos."""
        return self.recipe.validation.measure(self.model, self.validation)

    def export(self, folder: Path) -> None:
        """A model folder, the adaptor folded into its encoder."""
        fold_adaptor(self.model.encoder)
        describe(self.model, self.stage, self.recipe.model, self.folder, self.names)
        self.model.save_pretrained(folder)


class _Frozen:
    """An encoder that does not learn: no gradient passes, and a trunk shared with the proposer works once."""

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.patch = encoder, encoder.patch

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with torch.no_grad():
            return self.encoder(*arguments, **options)


def map_losses(
    model: DeOP,
    pixels: Tensor,
    sizes: Sequence[tuple[int, int]],
    proposals: Sequence[Proposals],
    labels: Tensor,
    classes: Classes,
    sharpness: float = 3.0,
    *,
    frozen: bool = False,
) -> AnchorLosses:
    """The losses of stage 3 for a batch, through the same parts as in use (METHOD sections 3, 5, 6, 7).

    Args:
        model: its encoder, anchors, no-object vector and settings.
        pixels: (B, 3, H, W) float, normalised for the encoder.
        sizes: of each image, (height, width) that is not padding.
        proposals: B of them.
        labels: (B, h, w) int64 over the canvas, of any stride, 255 void.
        classes: the seen names.
        sharpness: tau.
        frozen: the encoder does not learn.
    """
    canvas = (pixels.shape[-2], pixels.shape[-1])
    canvases = [Canvas(size, size, canvas) for size in sizes]
    encoder: Any = _Frozen(model.encoder) if frozen else model.encoder
    looks = encode_one_pass(
        encoder, model.anchors, model.settings, pixels, canvases, proposals, model.settings.severance
    )
    masks, valid = stack_proposals(proposals)
    masks = masks.masked_fill(~valid[..., None, None], -100.0)  # a mask that is not there covers nothing
    rows = [classify(look.regions, classes, model.no_object, model.settings.temperature) for look in looks]
    logits = torch.stack([nn.functional.pad(own, (0, 0, 0, masks.shape[1] - len(own))) for own in rows])
    return anchor_losses(logits, masks, labels, sharpness=sharpness)


def prepare(recipe: DeOPRecipe) -> DeOP:
    """The model that the run starts from, with what is new in it drawn from the seed.

    Raises:
        SettingError: something is to learn that the model does not have.
        ModelNotFoundError, CheckpointError: as ``deop.load``.
    """
    from deop.zoo import load

    model = load(recipe.model, proposer=recipe.proposer, device="cpu")
    if model.proposer is None:
        raise SettingError(f"{recipe.model} has no proposer: set proposer to a model that proposes masks")
    seed_everything(recipe.loop.seed, 3)
    model.encoder = recipe.tower.rebuild(model.encoder)
    if recipe.anchors is not None:
        model.anchors = recipe.anchors.build(model)
    elif model.anchors is None and "anchors" in recipe.learn:
        raise SettingError(f"{recipe.model} has no anchors to go on with: describe new ones in anchors")
    if "no_object" in recipe.learn and model.no_object is None:
        width = model.encoder.width
        model.no_object = nn.Parameter(torch.randn(width) * width**-0.5)
    if "prompt" in recipe.learn and getattr(model.text, "prompt", None) is None:
        raise SettingError(f"{recipe.model} has no learned prompt: begin with stage 1, or leave prompt out of learn")
    if "positions" in recipe.learn and not getattr(model.encoder, "learned_positions", None):
        raise SettingError("there are no learned positions: describe them in tower, or leave positions out of learn")
    if "adaptor" in recipe.learn:
        add_adaptor(model.encoder, recipe.rank)
    model.settings = settings_of(model, recipe)
    return model


def settings_of(model: DeOP, recipe: DeOPRecipe) -> Settings:
    """How the finished model is used."""
    old = model.settings
    tied = model.anchors is not None and model.anchors.config.query == "slot"
    return replace(
        old,
        resize=recipe.resize or old.resize,
        severance=recipe.severance or old.severance,
        templates=recipe.templates or old.templates,
        anchors="pool" if model.anchors is None else "decoder",
        drop_redundant=old.drop_redundant and not tied,
        padding=recipe.padding,
    )


def train(recipe: DeOPRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Run stage 3.

    Args:
        recipe: what and how.
        out: folder of the run.
        resume: go on where an earlier run stopped.
        device: "cpu" keeps off a GPU.

    Raises:
        DeopError: of the recipe, the data, the model or the run, by name.
    """
    folder, validation = recipe.data.open(), recipe.validation.open()
    model = prepare(recipe)
    batches = PhotoBatches(TrainingPhotos(folder, recipe.augmentation, recipe.loop.seed))
    task = DeOPTask(model, folder.names, batches, recipe, validation)
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
