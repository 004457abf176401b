"""Names as word embeddings, their aliases, and the ImageNet classes that are a kind of each name."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.encoders.nano_text import NanoText
from deop.errors import SettingError

FOLDER = Path(__file__).parent


def read_lists(path: Path) -> dict[str, list[str]]:
    """Read lines ``name: a, b, c`` as {name: [a, b, c]}; lines that start with # are comments."""
    lists = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, words = line.partition(":")
            lists[name.strip()] = [word.strip() for word in words.split(",") if word.strip()]
    return lists


def without_synonyms(name: str) -> str:
    """The first synonym of a name.

    >>> without_synonyms("road|street")
    'road'
    """
    return name.partition("|")[0].strip()


def name_embeddings(names: Sequence[str], text: NanoText, aliases: dict[str, list[str]]) -> Tensor:
    """Embed each name and its aliases.

    Returns:
        (K, A, C): for each of K names, the name itself and then its aliases, repeated up to the longest list.
    """
    groups = [[name, *aliases.get(name, [])] for name in names]
    longest = max(len(group) for group in groups)
    rows = [text.embed([group[index % len(group)] for index in range(longest)])[:, :-1] for group in groups]
    return torch.stack(rows)


def augmented_embeddings(table: Tensor, alias: float, noise: float) -> Tensor:
    """Draw one embedding per name, with noise.

    Args:
        table: (K, A, C), as ``name_embeddings`` returns.
        alias: probability that an alias replaces the name.
        noise: length of the noise, relative to the embedding.

    Returns:
        (K, C), of unit length.
    """
    count, alternatives, width = table.shape
    choice = torch.randint(0, alternatives, (count,), device=table.device)
    choice = torch.where(torch.rand(count, device=table.device) < alias, choice, 0)
    rows = F.normalize(table[torch.arange(count, device=table.device), choice], dim=-1)
    return F.normalize(rows + noise * width**-0.5 * torch.randn_like(rows), dim=-1)


def imagenet_parents(imagenet: list[str], file: Path = FOLDER / "parents.txt") -> dict[int, str]:
    """Map ImageNet classes to the name that they are a kind of.

    Args:
        imagenet: the names of ImageNet's classes, in order.
        file: the list of the kinds of each name.

    Raises:
        SettingError: the file lists a class that ImageNet does not have.
    """
    index_of: dict[str, int] = {}
    for index, name in enumerate(imagenet):
        index_of.setdefault(name, index)
    result = {}
    for parent, kinds in read_lists(file).items():
        for kind in kinds:
            low, _, high = kind.partition("..")
            if low not in index_of or (high and high not in index_of):
                raise SettingError(f"{file.name}: {kind!r} is not an ImageNet class or a range of classes")
            start, stop = index_of[low], index_of[high or low] + 1
            # Some names occur twice in ImageNet, so the end of a range can come before its start.
            result.update(dict.fromkeys(range(start, max(stop, start + 1)), parent))
    return result
