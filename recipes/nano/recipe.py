"""What a training run of the small model is made of: its recipe, and the parts that learn."""

from dataclasses import dataclass

import torch
from sets import SETS
from torch import nn

from deop.encoders.nano import NanoConfig, NanoEncoder, RegionBranch
from deop.errors import SettingError
from deop.networks.efficientnet import EfficientNetLite
from deop.networks.shared_trunk import SharedTrunk
from deop.proposals.nano import NanoProposer, NanoProposerConfig
from deop.training.task import LoopSettings

SEGMENTS = 40  # segments a crop that are trained on


@dataclass(frozen=True)
class Weights:
    """Of the losses.

    Attributes:
        region: true regions named.
        tile: photos of ImageNet in mosaics named.
        cell: every cell named by itself.
        proposal: the proposer's masks named.
        image: whole photos named, nothing severed.
        distil: what ImageNet's classifier sees in a region.
        divide: photos divided among queries.
        parts: of both branches by themselves, where there are two, beside their sum.
        area: power of a region's area in its loss.
        rest: of a pixel that is only known not to be one of a set's names.
        msrc: of that set's labels, half by what they allow, half among its own names.
        pets: of that set's labels.
        guess: of pixels that the teacher has labelled.
        camvid: of that set's labels.
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
    rest: float = 0.2
    msrc: float = 0.6
    pets: float = 0.5
    guess: float = 0.5
    camvid: float = 0.4

    def joint(self, name: str) -> float:
        """What a crop of a data set counts for, where its labels are sets of the joint names."""
        return {"msrc": self.msrc / 2, "pets": self.pets}.get(name, 1.0)

    def own(self, name: str) -> float:
        """What a data set's own names count for."""
        return {"msrc": self.msrc / 2, "camvid": self.camvid}[name]


@dataclass(frozen=True)
class Pseudo:
    """Labels that the average of the model so far gives to pixels that have none.

    Attributes:
        start: share of the run after which it does so; 1: never.
        sure: least share of the votes that the name must have.
        keep: of the average, a step.
    """

    start: float = 1.0
    sure: float = 0.6
    keep: float = 0.99


@dataclass(frozen=True)
class NanoRecipe:
    """The small model.

    Attributes:
        data: a folder with the data sets, or with the files that ``packed.py`` makes of them.
        trunk: weights of ImageNet's trunk, as ``trunk.py`` writes them.
        loop: for how long; its batch is the sum of all crops of a step.
        words: a table of ``text_table.py``; "": that of the model that ships.
        coco: crops of coco-mini a step. A set without crops takes no part at all.
        msrc: crops of msrc.
        pets: crops of pets.
        things: crops of coco-things.
        unlabelled: crops of coco-unlabelled, for the teacher to label.
        bsds: crops of bsds, for masks only.
        camvid: crops of camvid-mini.
        mosaics: mosaics of ImageNet's photos.
        singles: photos of ImageNet by themselves in every fourth step.
        crop: side of a crop, pixels.
        short: the photo's shorter side at scale 1, and in use.
        low: the least scale of a crop.
        high: the largest.
        paste: share of crops with things of another laid over.
        rate: base learning rate.
        trunk_rate: of the trunk; 0: it stays as it is.
        decay: weight decay of matrices; the trunk has 0.01.
        noise: on vectors of names, of their length.
        alias: share of names that an alias stands for.
        smooth: smoothing of labels.
        unseen: names that are not trained on.
        tune: every n-th training photo of each set is kept apart, to be measured on; 0: all are trained on.
        fold: which of every n photos is kept apart, from the last.
        layers: of the transformer.
        residual: weight of the residual stream in its severed layers.
        region_width: channels of the region branch.
        region_hidden: of its inner layer.
        dropout: in it.
        local_width: channels of the local branch, which takes part in training only; 0: there is none.
        pool: crops a photo whose features are made once and kept, so that the trunk stays as it is; 0: new crops each
            step.
        cells: every n-th cell of the region branch a side learns.
        divide_every: steps from one with the losses of masks to the next.
        weights: of the losses.
        pseudo: labels for what has none.
        threshold: of the finished model; chosen for the one that ships with calibrate.py, see NOTES.md.
        seen_penalty: likewise, chosen with names held out (``Calibration``).
        snapshot: a file that the weights are written to with every validation and in the end, as float16, to be made a
            model of elsewhere (``unpack.py``); "": none.
    """

    data: str
    trunk: str
    loop: LoopSettings
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
    low: float = 0.5
    high: float = 2.0
    paste: float = 0.5
    rate: float = 8e-4
    trunk_rate: float = 5e-5
    decay: float = 0.05
    noise: float = 0.15
    alias: float = 0.4
    smooth: float = 0.05
    unseen: tuple[str, ...] = ()
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
            found = " + ".join(name for name, count in self.counts.items() if count)
            raise SettingError(f"loop.batch is {self.loop.batch}, {found} are {sum(self.counts.values())}")
        if self.pool and (self.trunk_rate or self.singles):
            raise SettingError("features that are kept (pool) need a trunk that stays: set trunk_rate and singles to 0")
        if self.unlabelled and self.pseudo.start >= 1:
            raise SettingError("photos without labels need the teacher: set pseudo.start below 1, or unlabelled to 0")

    @property
    def counts(self) -> dict[str, int]:
        """Crops of each set in a step, in the order of a batch."""
        return {name: getattr(self, name) for name in SETS}


class Nano(nn.Module):
    """All parts that learn."""

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
        # Beside the transformer, in training only: it sees the trunk's features alone, and keeps what they know of
        # names from being learned by attention over a hundred photos.
        self.local = RegionBranch(config, sum(config.sources[2:]), recipe.local_width) if recipe.local_width else None
        self.proposer = NanoProposer(NanoProposerConfig(), self.trunk)


class Teacher(nn.Module):
    """The trunk as ImageNet left it, and its classifier: what it sees in a photo or a region of it."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.trunk = EfficientNetLite(dense=False)
        own = {key.removeprefix("trunk."): value.float() for key, value in weights.items() if key.startswith("trunk.")}
        self.trunk.load_state_dict(own)
        self.head, self.classifier = nn.Conv2d(352, 1280, 1), nn.Linear(1280, 1000)
        self.head.load_state_dict({"weight": weights["head.weight"][:, :, None, None], "bias": weights["head.bias"]})
        self.classifier.load_state_dict({key: weights[f"classifier.{key}"] for key in ("weight", "bias")})
