"""Stage 2: the proposal network and the "no object" vector, against the seen names (METHOD sections 2, 7 and 9)."""

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
from deop.training.stages.common import Data, Names, PhotoBatches, describe, normalized
from deop.training.task import Group, LoopSettings, Task, split_groups


@dataclass(frozen=True)
class ProposalRecipe:
    """Stage 2.

    Attributes:
        model: what the names are embedded by, and what the finished model names with: a name of the zoo or a folder,
            such as stage 1's. It is left as it is.
        data: what is learned from.
        loop: for how long.
        network: sizes of the proposal network; the last of ``class_mlp`` is the width of the model's space.
        start: "": random weights, or the model's own proposer where "model"; else a safetensors file with weights of
            the backbone under the original's names (``stem.conv1.weight``, ``res2.0.conv1.norm.weight``, ...).
        augmentation: of photos.
        rate: base learning rate.
        backbone_rate: share of it that the backbone has.
        decay: weight decay.
        weights: of the losses.
        costs: of the matching.
        resize: of the finished model.
        templates: of the names where the model has no learned prompt; None: the model's own.
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


class ProposalTask(Task):
    """Stage 2 as a task."""

    def __init__(self, model: DeOP, names: Sequence[str], batches: PhotoBatches, recipe: ProposalRecipe) -> None:
        """``model`` as ``prepare`` makes it, ``names`` the seen ones."""
        super().__init__()
        self.model, self.recipe = model, recipe
        self.batches: PhotoBatches = batches
        self.folder = batches.photos.folder
        self.names = Names(model, names)

    @property
    def proposer(self) -> MaskFormer:
        """What learns."""
        assert isinstance(self.model.proposer, MaskFormer)
        return self.model.proposer

    def groups(self) -> list[Group]:
        """The backbone learns more slowly; norm layers and queries do not decay (METHOD section 9)."""
        names = [name for name, _ in self.named_parameters() if name.startswith(("model.proposer.", "model.no_object"))]

        def slower(name: str) -> float:
            return self.recipe.backbone_rate if ".backbone." in name else 1.0

        return split_groups(self, names, self.recipe.rate, self.recipe.decay, slower=slower)

    def train(self, mode: bool = True) -> "ProposalTask":
        """Only the proposal network is ever in training mode."""
        super().train(mode)
        self.model.eval()
        self.proposer.train(mode)
        return self

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Weighted label, focal and dice loss of the last decoder layer, and all of the earlier ones together."""
        weights, model = self.recipe.weights, self.model
        targets = [Targets(labels, masks) for labels, masks in batch.targets()]
        count = target_count(targets)
        output = self.proposer.predict(normalized(batch.pixels, self.proposer.normalization), auxiliary=True)
        rows = self.names.fixed(model)

        def losses_of(embeddings: Tensor, masks: Tensor) -> dict[str, Tensor]:
            regions = F.normalize(embeddings.float(), dim=-1)
            logits = classify(regions, rows, model.no_object, model.settings.temperature)
            found = proposal_losses(logits, masks, targets, weights=weights, costs=self.recipe.costs, count=count)
            return {
                "label": weights.label * found.label,
                "focal": weights.focal * found.focal,
                "dice": weights.dice * found.dice,
            }

        losses = losses_of(output.class_embeddings, output.mask_logits)
        if output.auxiliary:
            earlier = [losses_of(layer.class_embeddings, layer.mask_logits) for layer in output.auxiliary]
            losses["earlier"] = torch.stack([value for layer in earlier for value in layer.values()]).sum()
        return losses

    def export(self, folder: Path) -> None:
        """A model folder."""
        describe(self.model, "proposals", self.recipe.model, self.folder, self.names)
        self.model.save_pretrained(folder)


def prepare(recipe: ProposalRecipe) -> DeOP:
    """The model that the run starts from: that of the recipe with a proposal network to be trained.

    Raises:
        CheckpointError: weights to start from that do not fit.
        ModelNotFoundError: as ``deop.load``.
    """
    from deop.zoo import GIVEN, load

    model = load(recipe.model, proposer=None if recipe.start == "model" else GIVEN, device="cpu")
    seed_everything(recipe.loop.seed, 2)
    width = model.encoder.width
    if recipe.start != "model":
        values = asdict(recipe.network) | {"class_mlp": (*recipe.network.class_mlp[:-1], width)}
        proposer = MaskFormer(MaskFormerConfig(**values))
        if recipe.start:
            state = {f"backbone.{key}": value for key, value in read_weights(recipe.start).items()}
            own = {key.removeprefix("network.backbone."): value for key, value in from_original_state(state).items()}
            load_strictly(proposer.network.backbone, own, recipe.start)
        model.set_proposer(proposer)
    elif not isinstance(model.proposer, MaskFormer):
        kind = type(model.proposer).__name__
        raise SettingError(f"start is 'model', and {recipe.model} has a {kind}: only a MaskFormer is trained here")
    if model.no_object is None:
        model.no_object = nn.Parameter(torch.randn(width) * width**-0.5)
    # Anchors of the model before belong to other masks.
    model.anchors = None
    model.settings = replace(
        model.settings, resize=recipe.resize, anchors="pool", templates=recipe.templates or model.settings.templates
    )
    return model


def train(recipe: ProposalRecipe, out: Path, *, resume: bool = False, device: str | None = None) -> Run:
    """Run stage 2; arguments and errors as in ``stages.deop.train``."""
    folder = recipe.data.open()
    model = prepare(recipe)
    batches = PhotoBatches(TrainingPhotos(folder, recipe.augmentation, recipe.loop.seed))
    task = ProposalTask(model, folder.names, batches, recipe)
    return fit(task, recipe.loop, out, recipe=plain(recipe), resume=resume, device=device)
