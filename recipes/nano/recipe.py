"""The recipe of a training run of the small model, and the modules that it trains."""

from dataclasses import dataclass

import torch
from torch import nn

from deop.encoders.nano import NanoConfig, NanoEncoder, RegionBranch
from deop.errors import SettingError
from deop.networks.efficientnet import EfficientNetLite
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.nano import NanoProposer, NanoProposerConfig
from deop.training.task import LoopSettings
from recipes.nano.sets import CROP_SOURCES, DATA_SETS
from recipes.nano.snapshot import snapshot_parts

SEGMENTS = 40
"""The number of segments per crop that take part in training, largest first."""


@dataclass(frozen=True)
class Weights:
    """Weights of the losses.

    Attributes:
        region: classification of ground-truth regions.
        tile: classification of the photos in mosaics of ImageNet.
        cell: classification of single cells.
        proposal: classification of the proposer's masks.
        image: classification of whole photos, without severance.
        distil: the ImageNet classifier's prediction for a region.
        divide: partition of a photo into masks.
        parts: classification by each of the two branches alone, relative to their sum.
        area: exponent of a region's area in its weight.
        negative: pixels whose label only excludes names, relative to labelled ones.
        msrc: labels of msrc; half for its labels as sets of names, half for the softmax over its own names.
        pets: labels of pets.
        pseudo: pixels with pseudo-labels, relative to labelled ones.
        camvid: labels of camvid-mini.
    """

    region: float = 1.0
    tile: float = 0.5
    cell: float = 0.7
    proposal: float = 0.7
    image: float = 0.2
    distil: float = 0.3
    divide: float = 1.0
    parts: float = 0.5
    area: float = 0.25
    negative: float = 0.2
    msrc: float = 0.6
    pets: float = 0.5
    pseudo: float = 0.5
    camvid: float = 0.4

    def of_joint_labels(self, source: str) -> float:
        """The weight of a data set's labels in the joint softmax."""
        return {"msrc": self.msrc / 2, "pets": self.pets}.get(source, 1.0)

    def of_own_labels(self, source: str) -> float:
        """The weight of a data set's labels in the softmax over its own names."""
        return {"msrc": self.msrc / 2, "camvid": self.camvid}[source]


@dataclass(frozen=True)
class Pseudo:
    """Pseudo-labels: a moving average of the model labels pixels that have no label.

    Attributes:
        start: fraction of the run after which pseudo-labels are used; 1: never.
        confidence: minimum probability of a pseudo-label.
        decay: decay of the moving average per step.
    """

    start: float = 1.0
    confidence: float = 0.6
    decay: float = 0.99


@dataclass(frozen=True)
class NanoRecipe:
    """A training run of the small model.

    Attributes:
        data: directory of the data sets, or of the files that ``packed.py`` writes.
        trunk: ImageNet weights of the trunk, a file written by ``trunk.py``.
        loop: length and optimization; its batch must be the sum of all crops of a step.
        start: snapshot of an earlier run whose weights this one starts from, as ``snapshot`` or ``snapshot.py`` wrote
            it; "": the trunk starts from ``trunk`` and everything else at random. The optimizer starts without a state.
        words: a word table written by ``text_table.py``; "": the one of the shipped model.
        coco: crops of coco-mini per step. A data set with 0 crops is not read.
        msrc: crops of msrc per step.
        pets: crops of pets per step.
        things: crops of coco-things per step.
        unlabelled: crops of coco-unlabelled per step; they have pseudo-labels only.
        bsds: crops of bsds per step; they train the masks only.
        camvid: crops of camvid-mini per step.
        mosaics: mosaics of ImageNet photos per step.
        singles: single photos of ImageNet, in a quarter of the steps.
        crop: side of a crop, pixels.
        short: shorter side of a photo at scale 1 and at inference, pixels.
        min_scale: minimum scale of a photo in a crop.
        max_scale: maximum scale.
        paste: fraction of crops onto which objects of another crop are pasted.
        rate: base learning rate.
        trunk_rate: learning rate of the trunk; 0: the trunk is frozen.
        decay: weight decay of matrices; the trunk has 0.01.
        noise: noise on the embeddings of names, relative to their length.
        alias: probability that an alias replaces a name.
        smooth: label smoothing.
        unseen: names that are excluded from training.
        licenses: COCO's numbers of the licenses that a photo may have, to train only on photos whose terms allow
            commercial use. Data sets for research, and ImageNet's photos, must then have 0 crops. Empty: all photos.
        tune: hold out every n-th training photo of each set for evaluation; 0: train on all.
        fold: which of every n photos is held out, counted from the last.
        layers: transformer layers.
        residual: weight of the residual connection in severed layers.
        region_width: channels of the region branch.
        region_hidden: channels of its hidden layer.
        dropout: dropout of the region branch.
        local_width: channels of the local branch, which is used in training only; 0: none.
        pool: crops per photo whose features are computed once and reused, which needs a frozen trunk; 0: new crops in
            every step.
        cells: step between the cells of the region branch that are trained, per axis.
        divide_every: the losses of masks are computed every n-th step.
        weights: weights of the losses.
        pseudo: pseudo-labels.
        threshold: score threshold of the finished model; chosen with ``calibrate.py``, see NOTES.md.
        seen_penalty: penalty for seen names of the finished model (``Calibration``); chosen with held-out names.
        snapshot: file to which each validation and the end of training write the weights as float16, for
            ``unpack.py``; "": none.
    """

    data: str
    trunk: str
    loop: LoopSettings
    start: str = ""
    words: str = ""
    coco: int = 10
    msrc: int = 0
    pets: int = 0
    things: int = 0
    unlabelled: int = 0
    bsds: int = 0
    camvid: int = 0
    mosaics: int = 2
    singles: int = 16
    crop: int = 512
    short: int = 448
    min_scale: float = 0.5
    max_scale: float = 2.0
    paste: float = 0.5
    rate: float = 8e-4
    trunk_rate: float = 5e-5
    decay: float = 0.05
    noise: float = 0.15
    alias: float = 0.4
    smooth: float = 0.05
    unseen: tuple[str, ...] = ()
    licenses: tuple[int, ...] = ()
    tune: int = 0
    fold: int = 0
    layers: int = 3
    residual: float = 0.2
    region_width: int = 256
    region_hidden: int = 512
    dropout: float = 0.1
    local_width: int = 256
    pool: int = 0
    cells: int = 1
    divide_every: int = 1
    weights: Weights = Weights()
    pseudo: Pseudo = Pseudo()
    threshold: float = 0.05
    seen_penalty: float = 3.0
    snapshot: str = ""

    def __post_init__(self) -> None:
        if self.loop.batch != sum(self.counts.values()):
            sources = " + ".join(name for name, count in self.counts.items() if count)
            raise SettingError(
                f"loop.batch is {self.loop.batch}, but {sources} is {sum(self.counts.values())}; the two must be equal"
            )
        if self.pool and (self.trunk_rate or self.singles):
            raise SettingError("cached features (pool) need a frozen trunk: set trunk_rate and singles to 0")
        if self.start and self.local_width:
            raise SettingError("a snapshot has no local branch, so a run that starts from one needs local_width: 0")
        terms = {name: data_set.terms for name, data_set in DATA_SETS.items()}
        research = [name for name, count in self.counts.items() if count and terms.get(name, "research") == "research"]
        research += ["singles"] if self.singles else []
        if self.licenses and research:
            raise SettingError(
                f"licenses are given, but the terms of {', '.join(research)} allow research only: set them to 0"
            )
        if self.unlabelled and self.pseudo.start >= 1:
            raise SettingError("unlabelled photos need pseudo-labels: set pseudo.start below 1, or unlabelled to 0")

    @property
    def counts(self) -> dict[str, int]:
        """Crops of each source in a step, in the order of a batch."""
        return {name: getattr(self, name) for name in CROP_SOURCES}


class Nano(nn.Module):
    """The modules that are trained."""

    def __init__(self, recipe: NanoRecipe) -> None:
        super().__init__()
        self.trunk = SharedTrunk(EfficientNetLite())
        config = NanoConfig(
            layers=recipe.layers,
            residual=recipe.residual,
            region_width=recipe.region_width,
            region_hidden=recipe.region_hidden,
            dropout=recipe.dropout,
        )
        self.encoder = NanoEncoder(config, self.trunk)
        # Used in training only: it sees the trunk's features but no attention, so that what those know about names is
        # not learned by attention, which would overfit to a hundred photos.
        self.local = RegionBranch(config, sum(config.sources[2:]), recipe.local_width) if recipe.local_width else None
        self.proposer = NanoProposer(NanoProposerConfig(), self.trunk)

    def snapshot_parts(self) -> dict[str, nn.Module]:
        """The modules in a snapshot: all but the local branch."""
        return snapshot_parts(self.trunk, self.encoder, self.proposer)


class ImageNetClassifier(nn.Module):
    """The trunk with its original ImageNet weights, and its classifier."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.trunk = EfficientNetLite(dense=False)
        trunk = {
            key.removeprefix("trunk."): value.float() for key, value in weights.items() if key.startswith("trunk.")
        }
        self.trunk.load_state_dict(trunk)
        self.head, self.classifier = nn.Conv2d(352, 1280, 1), nn.Linear(1280, 1000)
        self.head.load_state_dict({"weight": weights["head.weight"][:, :, None, None], "bias": weights["head.bias"]})
        self.classifier.load_state_dict({key: weights[f"classifier.{key}"] for key in ("weight", "bias")})
