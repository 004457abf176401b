"""What a training run of the small model is made of: settings, names, and the model's parts."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from text_table import read_lists
from torch import Tensor, nn

import data
from deop.encoders.efficientnet import EfficientNetLite, SharedTrunk
from deop.encoders.nano import NanoConfig, NanoEncoder, RegionBranch
from deop.proposals.nano import NanoProposer, NanoProposerConfig

HERE = Path(__file__).parent
SEGMENTS = 40  # segments a crop that are trained on


@dataclass
class Settings:
    """What can be set on the command line."""

    seed: int = 0
    steps: int = 3000
    seconds: float = 1e9  # the schedule is shortened to fit
    crop: int = 512
    short: int = 448  # the photo's shorter side at scale 1, and in evaluation
    coco: int = 12
    camvid: int = 4
    mosaics: int = 2
    singles: int = 16
    rate: float = 8e-4
    warmup: int = 150  # steps
    trunk_rate: float = 5e-5
    decay: float = 0.05
    ema: float = 0.998
    low: float = 0.5
    high: float = 2.0
    paste: float = 0.5
    noise: float = 0.15
    alias: float = 0.4
    smooth: float = 0.05
    region: float = 1.0
    proposal: float = 0.7
    cell: float = 0.7
    tile: float = 0.5
    image: float = 0.2
    distil: float = 0.3
    divide: float = 1.0
    dropout: float = 0.1
    text_map: float = 0.0  # learning rate of a linear map of the text space, 0: none
    held_out: str = ""  # names not trained on, comma-separated
    tune: int = 0  # every n-th training photo is kept for tuning; 0: all are trained on
    validate: bool = False  # look at the validation photos at the end
    layers: int = 3
    residual: float = 0.2
    region_width: int = 256
    region_hidden: int = 512
    local_width: int = 256  # channels of the local branch; 0: there is none
    parts: float = 0.5  # weight of the losses of each branch by itself, where there are two
    weight_power: float = 0.25  # of a region's area in its loss
    fold: int = 0  # which of every n photos is kept for tuning, from the last
    device: str = "cuda"
    report: bool = True  # measure on the tuning split at the end
    benchmark: bool = False
    start: str = ""  # weights of an earlier run to go on from, all but the trunk's
    save: str = "nano.safetensors"
    pool: int = 0  # crops a photo whose features are kept, so that the trunk stays as it is; 0: the trunk learns
    crops: str = "crops.pt"  # the file beside the result that they are kept in
    cells: int = 1  # in training, every n-th cell of the region branch a side
    divide_every: int = 1  # steps from one with the losses of masks to the next


class Names:
    """A vocabulary with its aliases as vectors."""

    def __init__(
        self, names: list[str], vectors: dict[str, Tensor], aliases: dict[str, list[str]], device: str
    ) -> None:
        self.names = names
        groups = [[name, *(alias for alias in aliases.get(name, []) if alias in vectors)] for name in names]
        longest = max(len(group) for group in groups)
        self.table = torch.stack(
            [torch.stack([vectors[group[index % len(group)]] for index in range(longest)]) for group in groups]
        ).to(device)  # (K, A, C), the name itself first

    def rows(self) -> Tensor:
        """(K, C), L2-normalised."""
        return F.normalize(self.table[:, 0], dim=-1)

    def sample(self, alias: float, noise: float) -> Tensor:
        """(K, C): now and then an alias in a name's place, and noise."""
        count, others, width = self.table.shape
        device = self.table.device
        pick = torch.randint(0, others, (count,), device=device)
        pick = torch.where(torch.rand(count, device=device) < alias, pick, 0)
        rows = F.normalize(self.table[torch.arange(count, device=device), pick], dim=-1)
        return F.normalize(rows + noise * width**-0.5 * torch.randn_like(rows), dim=-1)


class Nano(nn.Module):
    """All parts; the map of the text space, where there is one, is folded into the word table afterwards."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.trunk = SharedTrunk(EfficientNetLite())
        config = NanoConfig(
            layers=settings.layers,
            residual=settings.residual,
            region_width=settings.region_width,
            region_hidden=settings.region_hidden,
            dropout=settings.dropout,
        )
        self.encoder = NanoEncoder(config, self.trunk)
        # Beside the transformer, in training only: it sees the trunk's features alone, and keeps what they know of
        # names from being learned by attention over a hundred photos.
        self.local = (
            RegionBranch(config, sum(config.sources[2:]), settings.local_width) if settings.local_width else None
        )
        self.proposer = NanoProposer(NanoProposerConfig(), self.trunk)
        self.text_map = nn.Parameter(torch.eye(config.text))

    def map_text(self, rows: Tensor) -> Tensor:
        """Names (K, C) into the joint space."""
        return F.normalize(rows @ self.text_map, dim=-1)


def parents(names: list[str], imagenet: list[str]) -> Tensor:
    """For each ImageNet class the index of the name that it is a kind of, or -1 (``parents.txt``)."""
    first = {}
    for index, name in enumerate(imagenet):
        first.setdefault(name, index)
    result = torch.full((len(imagenet),), -1)
    for parent, kinds in read_lists(HERE / "parents.txt").items():
        if parent not in names:
            continue
        for kind in kinds:
            low, _, high = kind.partition("..")
            if low not in first or (high and high not in first):
                raise SystemExit(f"parents.txt: no ImageNet class {kind!r}")
            start, stop = first[low], first[high or low] + 1
            # Some names occur twice, and a range may begin after its end for the second of them.
            result[start : max(stop, start + 1)] = names.index(parent)
    return result


def split_tuning(photos: data.Photos, every: int, fold: int = 0) -> tuple[data.Photos, data.Photos | None]:
    """Training photos, and each ``every``-th kept apart."""
    if not every:
        return photos, None
    kept = [index for index in range(len(photos)) if index % every != every - 1 - fold]
    apart = [index for index in range(len(photos)) if index % every == every - 1 - fold]
    return photos.take(kept), photos.take(apart)


def sampler(photos: data.Photos) -> Tensor:
    """Chances of photos: those with rare names come more often."""
    held = torch.stack([(photos.classes == value + 1).flatten(1).any(1) for value in range(len(photos.names))], 1)
    frequency = held.float().mean(0).clamp_min(1e-6)
    repeat = (0.1 / frequency).sqrt().clamp(1, 3)
    return torch.where(held, repeat, torch.ones_like(repeat)).amax(1)
