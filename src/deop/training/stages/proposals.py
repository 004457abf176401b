"""Stage 2: trains the proposal network and the "no object" vector (docs/method.md §2, §7 and §9)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deop.data.augment import STAGE_2, Augmentation
from deop.data.samples import TrainingBatch, TrainingPhotos
from deop.errors import SettingError
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.networks.loading import load_strictly, read_weights
from deop.proposals.maskformer import MaskFormer, MaskFormerConfig, from_original_state
from deop.regions.classification import classify
from deop.training.loop import Run, fit
from deop.training.losses import ProposalWeights, Targets, proposal_losses, target_count
from deop.training.matching import DEOP_COSTS, MatchingCosts
from deop.training.process import seed_everything
from deop.training.recipe import plain
from deop.training.stages.common import ClassNames, Data, PhotoBatches, check_ranges, describe, normalized
from deop.training.task import Group, LoopSettings, Task, split_groups


@dataclass(frozen=True)
class ProposalRecipe:
    """Stage 2.

    Attributes:
        model: the model that embeds the names, and whose encoder the trained model uses: a name of the zoo or a
            folder, such as that of stage 1. Its weights stay as they are.
        data: the training photos.
        loop: settings of the training loop.
        network: sizes of the proposal network. The last number of ``class_mlp`` is set to the width of the model's
            joint space. Ignored if ``start`` is "model".
        start: initial weights. "": random; "model": those of the model's own proposer; else a safetensors file with
            the backbone under the original's names (``stem.conv1.weight``, ``res2.0.conv1.norm.weight``, ...).
        augmentation: augmentation of the photos.
        rate: base learning rate.
        backbone_rate: factor of the learning rate for the backbone.
        decay: weight decay.
        weights: weights of the losses.
        costs: weights of the matching costs.
        resize: input size of the trained model.
        templates: templates of the names, if the model has no learned prompt; None: the model's own.

    Raises:
        SettingError: a value out of range.
    """

    model: str
    data: Data
    loop: LoopSettings
    network: MaskFormerConfig = field(default_factory=MaskFormerConfig)
    start: str = ""
    augmentation: Augmentation = STAGE_2
    rate: float = 1e-4
    backbone_rate: float = 0.1
    decay: float = 1e-4
    weights: ProposalWeights = field(default_factory=ProposalWeights)
    costs: MatchingCosts = DEOP_COSTS
    resize: Resize = field(default_factory=lambda: Resize(640))
    templates: str | None = None

    def __post_init__(self) -> None:
        check_ranges(self, positive=("rate", "backbone_rate"), not_negative=("decay",))


class ProposalTask(Task):
    """The task of stage 2.

    Args:
        model: the model, as returned by ``prepare``.
        names: the seen names.
        batches: the training photos.
        recipe: the recipe of the run.
    """

    def __init__(self, model: DeOP, names: Sequence[str], batches: PhotoBatches, recipe: ProposalRecipe) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.batches: PhotoBatches = batches
        self.folder = batches.photos.folder
        self.names = ClassNames(model, names)

    @property
    def proposer(self) -> MaskFormer:
        """The proposal network, which is trained."""
        assert isinstance(self.model.proposer, MaskFormer)
        return self.model.proposer

    def groups(self) -> list[Group]:
        """The backbone has a lower rate; norm layers and queries have no decay (docs/method.md §9)."""
        names = [name for name, _ in self.named_parameters() if name.startswith(("model.proposer.", "model.no_object"))]

        def slower(name: str) -> float:
            return self.recipe.backbone_rate if ".backbone." in name else 1.0

        return split_groups(self, names, self.recipe.rate, self.recipe.decay, slower=slower)

    def train(self, mode: bool = True) -> "ProposalTask":
        """Only the proposal network is in training mode."""
        super().train(mode)
        self.model.eval()
        self.proposer.train(mode)
        return self

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The weighted losses of the last decoder layer, and the sum of those of the earlier layers."""
        weights, model = self.recipe.weights, self.model
        targets = [Targets(labels, masks) for labels, masks in batch.targets()]
        count = target_count(targets)
        output = self.proposer.predict(normalized(batch.pixels, self.proposer.normalization), auxiliary=True)
        classes = self.names.frozen(model)

        def losses_of(embeddings: Tensor, masks: Tensor) -> dict[str, Tensor]:
            regions = F.normalize(embeddings.float(), dim=-1)
            logits = classify(regions, classes, model.no_object, model.settings.temperature)
            parts = proposal_losses(logits, masks, targets, weights=weights, costs=self.recipe.costs, count=count)
            return {
                "label": weights.label * parts.label,
                "focal": weights.focal * parts.focal,
                "dice": weights.dice * parts.dice,
            }

        losses = losses_of(output.class_embeddings, output.mask_logits)
        if output.auxiliary:
            earlier = [losses_of(layer.class_embeddings, layer.mask_logits) for layer in output.auxiliary]
            losses["earlier"] = torch.stack([value for layer in earlier for value in layer.values()]).sum()
        return losses

    def export(self, folder: Path) -> None:
        """Write a model folder."""
        describe(self.model, "proposals", self.recipe.model, self.folder, self.names)
        self.model.save_pretrained(folder)


def prepare(recipe: ProposalRecipe) -> DeOP:
    """The model that the run starts from: that of the recipe with the proposal network to train.

    Raises:
        CheckpointError: initial weights that do not fit the network.
        SettingError: ``start`` is "model" and the model has no MaskFormer.
        ModelNotFoundError: as ``deop.load``.
    """
    from deop.zoo import GIVEN, load

    proposer = None if recipe.start == "model" else GIVEN
    model = load(recipe.model, engine="torch", proposer=proposer, device="cpu")
    seed_everything(recipe.loop.seed, 2)
    width = model.encoder.width
    if recipe.start != "model":
        values = asdict(recipe.network) | {"class_mlp": (*recipe.network.class_mlp[:-1], width)}
        proposer = MaskFormer(MaskFormerConfig(**values))
        if recipe.start:
            state = {f"backbone.{key}": value for key, value in read_weights(recipe.start).items()}
            backbone = {
                key.removeprefix("network.backbone."): value for key, value in from_original_state(state).items()
            }
            load_strictly(proposer.network.backbone, backbone, recipe.start)
        model.set_proposer(proposer)
    elif not isinstance(model.proposer, MaskFormer):
        kind = type(model.proposer).__name__
        raise SettingError(
            f"start is 'model', but the proposer of {recipe.model} is a {kind}: stage 2 trains a MaskFormer"
        )
    if model.no_object is None:
        model.no_object = nn.Parameter(torch.randn(width) * width**-0.5)
    # Anchors of the base model were trained on other masks.
    model.anchors = None
    model.settings = replace(
        model.settings, resize=recipe.resize, anchors="pool", templates=recipe.templates or model.settings.templates
    )
    return model


def train(recipe: ProposalRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Run stage 2. Arguments and errors are those of ``stages.deop.train``."""
    folder = recipe.data.open()
    model = prepare(recipe)
    batches = PhotoBatches(TrainingPhotos(folder, recipe.augmentation, recipe.loop.seed))
    task = ProposalTask(model, folder.names, batches, recipe)
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
