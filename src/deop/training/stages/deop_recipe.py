"""The recipe of stage 3, and the model that it starts from."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from deop.data.augment import STAGE_3, Augmentation
from deop.encoders.clip import CLIPVision, VisionConfig
from deop.encoders.severance import Severance
from deop.errors import SettingError
from deop.images.preprocessing import IMAGENET, Resize
from deop.model import DeOP
from deop.regions.anchors import AnchorConfig, AnchorDecoder
from deop.settings import Settings
from deop.training.losses import AnchorWeights
from deop.training.process import seed_everything
from deop.training.stages.adaptor import PARAMETER as ADAPTOR
from deop.training.stages.adaptor import add_adaptor
from deop.training.stages.common import Data, Validation, check_ranges
from deop.training.task import LoopSettings

LEARN = {
    "positions": r"model\.encoder\.learned_positions\..*",
    "anchors": r"model\.anchors\..*",
    "no_object": r"model\.no_object",
    "prompt": r"model\.text\.prompt\..*",
    "adaptor": rf"model\.encoder\..*{ADAPTOR}",
}
"""The parts that can be trained, and regular expressions for the names of their parameters."""


@dataclass(frozen=True)
class Anchors:
    """A new anchor decoder; see ``AnchorConfig``. The defaults are those of the paper's training script."""

    heads: int = 8
    layers: int = 1
    hidden: int = 1024
    dropout: float = 0.1
    query: Literal["slot", "mask"] = "slot"
    gated_layers: bool = False

    def build(self, model: DeOP) -> AnchorDecoder:
        """A decoder for a model: with the width of its joint space, and one query per slot of its proposer.

        Raises:
            SettingError: queries tied to slots, for a proposer without slots.
        """
        slots = getattr(getattr(model.proposer, "config", None), "queries", None)
        if self.query == "slot" and slots is None:
            raise SettingError(
                f"anchors.query=slot needs a proposer with one query per mask, which {type(model.proposer).__name__} "
                "does not have: use anchors.query=mask"
            )
        return AnchorDecoder(AnchorConfig(width=model.encoder.width, slots=slots or 0, **asdict(self)))


@dataclass(frozen=True)
class TowerChanges:
    """Changes to CLIP's vision tower before training.

    Attributes:
        positions_at_input: add a learned position table at the input (docs/method.md §3, "Positions").
        positions_in_blocks: blocks, counted from 0, with a learned position table of their own.
        positions_grid: patches per side of these tables.
        position_rule: how tables are fitted to the size of a photo: "grid", or "count" as in the original
            (docs/method.md §13.7).
        statistics: normalization of the pixels: "own" keeps the tower's, "imagenet" is that of the original's stage 3
            (docs/method.md §1).
    """

    positions_at_input: bool = False
    positions_in_blocks: tuple[int, ...] = ()
    positions_grid: int = 24
    position_rule: Literal["grid", "count"] = "grid"
    statistics: Literal["own", "imagenet"] = "own"

    def apply(self, encoder: Any) -> Any:
        """The tower with the missing tables, initialized as in docs/method.md §3. Existing tables are kept.

        Raises:
            SettingError: changes to an encoder other than CLIP's.
        """
        if not isinstance(encoder, CLIPVision):
            if self != TowerChanges():
                raise SettingError(f"tower changes CLIP's encoder, and this is a {type(encoder).__name__}: omit tower")
            return encoder
        old = encoder.config
        values = asdict(old) | {
            "learned_at_input": self.positions_at_input or old.learned_at_input,
            "learned_in_blocks": self.positions_in_blocks or old.learned_in_blocks,
            "learned_grid": old.learned_grid if encoder.learned_positions else self.positions_grid,
            "position_rule": self.position_rule,
            "normalization": IMAGENET if self.statistics == "imagenet" else old.normalization,
        }
        changed = CLIPVision(VisionConfig(**values))
        changed.load_state_dict(encoder.state_dict(), strict=False)  # all but the new tables
        return changed


@dataclass(frozen=True)
class DeOPRecipe:
    """Stage 3.

    Attributes:
        model: the model to start from: a name of the zoo or a folder, such as that of stage 2.
        data: the training photos.
        loop: settings of the training loop.
        proposer: another source of masks, as in ``deop.load``; None: the model's own.
        learn: the parts to train: some of positions, anchors, no_object, prompt, adaptor.
        anchors: a new anchor decoder; None: the model's own, or mask pooling if it has none.
        tower: changes to CLIP's vision tower.
        rank: rank of the adaptor, if it is trained (``stages.adaptor``).
        severance: severance of the encoder; None: the model's own.
        augmentation: augmentation of the photos.
        rate: base learning rate.
        decay: weight decay.
        weights: weights of the losses.
        sharpness: tau of the losses (docs/method.md §7).
        loss_stride: compute the losses only at every n-th pixel in each direction; 1: at all pixels.
        noisy_masks: keep the dropout of the frozen proposal network, as the original does (docs/method.md §13.14).
        padding: "outside" or "inside", as in ``Settings``.
        resize: input size of the trained model; None: unchanged.
        templates: templates of the trained model, if it has no learned prompt; None: unchanged.
        partition: "none" or "score", as in ``Settings``; None: unchanged.
        prior: of the trained model, as in ``Settings``; it has no effect on training itself. None: unchanged.
        validation: photos to evaluate during training.

    Raises:
        SettingError: a value out of range, or an option without effect.
    """

    model: str
    data: Data
    loop: LoopSettings
    proposer: str | None = None
    learn: tuple[str, ...] = ("positions", "anchors", "no_object", "prompt")
    anchors: Anchors | None = field(default_factory=Anchors)
    tower: TowerChanges = field(default_factory=TowerChanges)
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
    partition: Literal["none", "score"] | None = None
    prior: float | None = None
    validation: Validation = field(default_factory=Validation)

    def __post_init__(self) -> None:
        check_learn(self.learn, self.anchors)
        check_ranges(self, positive=("rate", "sharpness", "loss_stride"), not_negative=("decay",))
        self.validation.check(self.loop)


def check_learn(learn: tuple[str, ...], anchors: Anchors | None) -> None:
    """Check the parts to train.

    Raises:
        SettingError: an unknown part, none at all, or a new anchor decoder that would stay untrained.
    """
    if isinstance(learn, str):
        raise SettingError(f"learn is {learn!r}: give a list")
    if unknown := sorted(set(learn) - set(LEARN)):
        raise SettingError(f"learn has {', '.join(unknown)}: choose from {', '.join(LEARN)}")
    if not learn:
        raise SettingError(f"learn is empty: choose from {', '.join(LEARN)}")
    if anchors is not None and "anchors" not in learn:
        raise SettingError(
            "anchors describes a new decoder, which would stay untrained: set anchors=null, or add it to learn"
        )


def prepare(recipe: DeOPRecipe) -> DeOP:
    """The model that the run starts from. New parts are initialized from the seed.

    Raises:
        SettingError: the model lacks a part that is to be trained.
        ModelNotFoundError, CheckpointError: as ``deop.load``.
    """
    from deop.zoo import load

    model = load(recipe.model, engine="torch", proposer=recipe.proposer, device="cpu")
    if model.proposer is None:
        raise SettingError(f"{recipe.model} has no proposer: set proposer to a model that proposes masks")
    seed_everything(recipe.loop.seed, 3)
    model.encoder = recipe.tower.apply(model.encoder)
    if recipe.anchors is not None:
        model.anchors = recipe.anchors.build(model)
    elif model.anchors is None and "anchors" in recipe.learn:
        raise SettingError(f"{recipe.model} has no anchor decoder to train: describe a new one in anchors")
    if "no_object" in recipe.learn and model.no_object is None:
        width = model.encoder.width
        model.no_object = nn.Parameter(torch.randn(width) * width**-0.5)
    if "prompt" in recipe.learn and getattr(model.text, "prompt", None) is None:
        raise SettingError(f"{recipe.model} has no learned prompt: start with stage 1, or omit prompt from learn")
    if "positions" in recipe.learn and not getattr(model.encoder, "learned_positions", None):
        raise SettingError(
            f"{recipe.model} has no learned positions: describe them in tower, or omit positions from learn"
        )
    if "adaptor" in recipe.learn:
        add_adaptor(model.encoder, recipe.rank)
    model.settings = _trained_settings(model, recipe)
    return model


def _trained_settings(model: DeOP, recipe: DeOPRecipe) -> Settings:
    """The settings of the trained model."""
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
        partition=recipe.partition or old.partition,
        prior=old.prior if recipe.prior is None else recipe.prior,
    )
