"""The names of the recipe as vectors, with their aliases, and which ImageNet class is a kind of which name."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.encoders.nano_text import NanoText
from deop.errors import SettingError

HERE = Path(__file__).parent


def read_lists(path: Path) -> dict[str, list[str]]:
    """``name: a, b, c`` lines -> {name: [a, b, c]}."""
    lists = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(":")
            lists[name.strip()] = [word.strip() for word in rest.split(",") if word.strip()]
    return lists


def vectors(names: Sequence[str], text: NanoText, aliases: dict[str, list[str]]) -> Tensor:
    """Vectors (K, A, C) of K names, the name itself first, then its aliases, again from the first where it has few."""
    groups = [[name, *aliases.get(name, [])] for name in names]
    longest = max(len(group) for group in groups)
    rows = [text.embed([group[index % len(group)] for index in range(longest)])[:, :-1] for group in groups]
    return torch.stack(rows)


def sample(table: Tensor, alias: float, noise: float) -> Tensor:
    """(K, C) rows of unit length from ``vectors``: now and then an alias in a name's place, and noise."""
    count, others, width = table.shape
    pick = torch.randint(0, others, (count,), device=table.device)
    pick = torch.where(torch.rand(count, device=table.device) < alias, pick, 0)
    rows = F.normalize(table[torch.arange(count, device=table.device), pick], dim=-1)
    return F.normalize(rows + noise * width**-0.5 * torch.randn_like(rows), dim=-1)


def parents(imagenet: list[str], listed: Path = HERE / "parents.txt") -> dict[int, str]:
    """For classes of ImageNet the name that they are a kind of."""
    first: dict[str, int] = {}
    for index, name in enumerate(imagenet):
        first.setdefault(name, index)
    result = {}
    for parent, kinds in read_lists(listed).items():
        for kind in kinds:
            low, _, high = kind.partition("..")
            if low not in first or (high and high not in first):
                raise SettingError(f"parents.txt: no ImageNet class {kind!r}")
            start, stop = first[low], first[high or low] + 1
            # Some names occur twice, and a range may begin after its end for the second of them.
            result.update(dict.fromkeys(range(start, max(stop, start + 1)), parent))
    return result
