"""The data sets of the recipe, and what their labels mean to each other.

All names that can be told from each other are the columns of one softmax. A label is a set of these: a pixel of
coco-mini that is labelled "cat" can be nothing but a cat, one of msrc labelled "building" can be a roof or a window as
well, and one of coco-things without a label can be anything but the 80 things. A set whose names mean something of
their own (camvid-mini; msrc, beside the sets) has a softmax over these names alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from names import HERE, read_lists
from torch import Tensor

from deop.errors import SettingError


@dataclass(frozen=True)
class Place:
    """Where a data set lies and what it says.

    Attributes:
        folder: below the folder of all data.
        splits: the parts that are trained on.
        joint: whether its labels are sets of the joint names.
        own: whether its names are told from each other, by themselves, too.
        rest: whether a pixel without label is known to be none of its names.
        named: whether its classes are names; otherwise they only part the photo.
        paste: whether its things are laid over other photos, and others' over its own.
    """

    folder: str
    splits: tuple[str, ...] = ("train",)
    joint: bool = False
    own: bool = False
    rest: bool = False
    named: bool = True
    paste: bool = False


PLACES = {
    "coco": Place("coco-mini", joint=True, paste=True),
    "msrc": Place("msrc", joint=True, own=True),
    "pets": Place("pets", joint=True, rest=True),
    "things": Place("coco-things", ("train", "extra"), joint=True, rest=True, paste=True),
    "unlabelled": Place("coco-unlabelled", (), joint=True),
    "bsds": Place("bsds", named=False),
    "camvid": Place("camvid-mini", own=True),
}
"""In the order of a batch; mosaics of ImageNet's photos come last."""

SETS = (*PLACES, "mosaics")


@dataclass
class Space:
    """Names and labels. Labels 0 to G - 1 are the joint names themselves.

    Attributes:
        names: the G joint names.
        allowed: (L, G) bool, the names that a label allows; none where it teaches nothing jointly.
        region: (L,) bool, whether a label says what a region is, not only what it is not.
        things: (L,) bool, whether it is a label of countable things.
        tables: of each set, (K + 1,) the label of 0 (no label: -1, the rest or anything) and of its classes.
        own_names: of sets with a softmax of their own, the names in it.
        own: of these sets, (L,) the position of a label among these names, or -1.
        imagenet: the label of ImageNet's first class; the others follow. Pixels of photos have labels before it.
    """

    names: tuple[str, ...]
    allowed: Tensor
    region: Tensor
    things: Tensor
    tables: dict[str, Tensor]
    own_names: dict[str, tuple[str, ...]]
    own: dict[str, Tensor]
    imagenet: int

    def __post_init__(self) -> None:
        some = self.allowed.any(1) & ~self.allowed.all(1)
        some[: len(self.names)] = False
        self.several = some[: self.imagenet].nonzero()[:, 0]
        """Labels of photos, beside the names themselves, that allow some names and not all."""

    def to(self, device: torch.device) -> "Space":
        """The same on another device; labels are looked up there at each step."""
        if self.allowed.device == device:
            return self
        for key in ("allowed", "region", "things", "several"):
            setattr(self, key, getattr(self, key).to(device))
        for held in (self.tables, self.own):
            held.update({key: value.to(device) for key, value in held.items()})
        return self


def first(name: str) -> str:
    """A name without its synonyms: "road|street" is "road"."""
    return name.partition("|")[0].strip()


def space_of(
    classes: Mapping[str, Sequence[str]],
    things: Mapping[str, Tensor],
    parent: Mapping[int, str],
    imagenet: int,
    unseen: Sequence[str] = (),
    listed: Path = HERE / "sets.txt",
) -> Space:
    """The names and labels of some data sets.

    Args:
        classes: of each set that takes part, the names of its classes.
        things: of each, which classes are things.
        parent: for classes of ImageNet, the name that they are a kind of.
        imagenet: number of ImageNet's classes.
        unseen: names that are not trained on. A label that could be one of them is void.
        listed: what labels mean that are not just their name.

    Raises:
        SettingError: an unseen name that no set has.
    """
    meanings = {}
    for key, allowed in read_lists(listed).items():
        name, _, label = key.partition("/")
        meanings[name.strip(), label.strip()] = allowed
    joint = [name for name in classes if PLACES[name].joint]
    every = dict.fromkeys(first(label) for name in joint for label in classes[name])
    if strange := set(unseen) - set(every):
        raise SettingError(f"unseen has names that no data set has: {', '.join(sorted(strange))}")
    names = tuple(name for name in every if name not in unseen)
    column = {name: number for number, name in enumerate(names)}

    sets: list[list[str]] = [[name] for name in names]
    region = [True] * len(names)
    countable = [False] * len(names)
    tables: dict[str, Tensor] = {}
    own_names: dict[str, tuple[str, ...]] = {}
    positions: dict[str, dict[int, int]] = {}

    def new_label(allowed: Sequence[str], says_what: bool, thing: bool = False) -> int:
        sets.append([name for name in allowed if name in column])
        region.append(says_what)
        countable.append(thing)
        return len(sets) - 1

    for name, labels in classes.items():
        place = PLACES[name]
        means = {label: meanings.get((name, first(label)), [first(label)]) for label in labels}
        named = {one for allowed in means.values() for one in allowed}
        table = [-1]
        if place.rest:
            table = [new_label([one for one in names if one not in named], says_what=False)]
        elif name == "unlabelled":
            table = [new_label(names, says_what=False)]
        if place.own:
            own_names[name] = tuple(first(label) for label in labels if first(label) not in unseen)
            positions[name] = {}
        for number, label in enumerate(labels):
            thing, allowed = bool(things[name][number]), means[label]
            if not place.named:
                table.append(-1)
            elif place.own:
                usable = place.joint and not set(allowed) & set(unseen)
                if first(label) in unseen:
                    table.append(-1)
                else:
                    table.append(new_label(allowed if usable else (), True, thing))
                    positions[name][table[-1]] = own_names[name].index(first(label))
            elif set(allowed) & set(unseen):
                table.append(-1)
            elif allowed == [first(label)]:
                table.append(column[allowed[0]])
                countable[table[-1]] |= thing
            else:
                table.append(new_label(allowed, True, thing))
        tables[name] = torch.tensor(table)
    start = len(sets)
    for number in range(imagenet):
        new_label([parent[number]] if number in parent else (), True)
    allowed = torch.zeros(len(sets), len(names), dtype=torch.bool)
    for row, members in zip(allowed, sets, strict=True):
        row[[column[member] for member in members]] = True
    own = {name: torch.full((len(sets),), -1) for name in positions}
    for name, places in positions.items():
        for label, position in places.items():
            own[name][label] = position
    own_names["mosaics"] = ()
    own["mosaics"] = torch.cat([torch.full((start,), -1), torch.arange(imagenet)])
    return Space(
        names, allowed, torch.tensor(region), torch.tensor(countable), tables, own_names, own, start
    )  # fmt: skip
