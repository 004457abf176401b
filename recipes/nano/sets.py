"""The data sets of the recipe, and a label space that joins their labels.

All names that exclude each other share one softmax, the joint softmax. A label is a set of these names: a pixel of
coco-mini labelled "cat" can only be a cat, one of msrc labelled "building" may also be a roof or a window, and an
unlabelled pixel of coco-things can be anything but the 80 things. A data set whose names have a meaning of their own
has a softmax over its own names (camvid-mini, and msrc in addition to the joint softmax).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deop.errors import SettingError
from recipes.nano.names import FOLDER, read_lists, without_synonyms


@dataclass(frozen=True)
class DataSet:
    """A data set and the meaning of its labels.

    Attributes:
        folder: its directory in the directory of all data sets.
        splits: the splits that are used for training.
        joint: whether its labels are sets of names of the joint softmax.
        own: whether it has a softmax over its own names.
        exhaustive: whether an unlabelled pixel is known to show none of its names.
        named: whether its classes are names; otherwise they only partition the photo.
        paste: whether its objects are pasted onto other crops, and those of others onto its own.
        terms: what its terms allow. "open": any use. "each photo": that depends on the license of each photo, which its
            panoptic.json names. "research": research only.
    """

    folder: str
    splits: tuple[str, ...] = ("train",)
    joint: bool = False
    own: bool = False
    exhaustive: bool = False
    named: bool = True
    paste: bool = False
    terms: str = "research"


DATA_SETS = {
    "coco": DataSet("coco-mini", joint=True, paste=True, terms="each photo"),
    "msrc": DataSet("msrc", joint=True, own=True),
    "pets": DataSet("pets", joint=True, exhaustive=True, terms="open"),
    "things": DataSet("coco-things", ("train", "extra"), joint=True, exhaustive=True, paste=True, terms="each photo"),
    "unlabelled": DataSet("coco-unlabelled", (), joint=True),
    "bsds": DataSet("bsds", named=False),
    "camvid": DataSet("camvid-mini", own=True),
}
"""In the order of a batch: those with joint labels first."""

CROP_SOURCES = (*DATA_SETS, "mosaics")
"""All kinds of crops; mosaics of ImageNet photos come last in a batch."""


@dataclass
class LabelSpace:
    """The G joint names and the L labels. Labels 0 to G - 1 are the joint names themselves.

    Attributes:
        names: the joint names.
        allowed: (L, G) bool, the names that each label allows; none for labels without a joint meaning.
        positive: (L,) bool, whether a label says what a region is, rather than what it is not.
        things: (L,) bool, whether it is the label of a thing.
        label_of_class: per data set, (K + 1,) int64: the label of unlabelled pixels (-1: void), then of the K classes.
        own_names: per data set with its own softmax, the names in it.
        own_index: per data set with its own softmax, (L,) int64: the index of a label's name in it, or -1. Its
            "mosaics" has the index of the ImageNet class.
        first_imagenet: the label of ImageNet's first class; the others follow. Pixels of photos have labels below it.
    """

    names: tuple[str, ...]
    allowed: Tensor
    positive: Tensor
    things: Tensor
    label_of_class: dict[str, Tensor]
    own_names: dict[str, tuple[str, ...]]
    own_index: dict[str, Tensor]
    first_imagenet: int

    def __post_init__(self) -> None:
        informative = self.allowed.any(1) & ~self.allowed.all(1)
        informative[: len(self.names)] = False
        self.multi_name_labels = informative[: self.first_imagenet].nonzero()[:, 0]
        """Labels of photos from G on that allow at least one name, but not all."""

    def to(self, device: torch.device) -> "LabelSpace":
        """Move the tensors to a device, and return this object."""
        if self.allowed.device == device:
            return self
        for key in ("allowed", "positive", "things", "multi_name_labels"):
            setattr(self, key, getattr(self, key).to(device))
        for tensors in (self.label_of_class, self.own_index):
            tensors.update({key: value.to(device) for key, value in tensors.items()})
        return self


class _Labels:
    """The labels of a ``LabelSpace`` while it is built; starts with one label per joint name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.column = {name: number for number, name in enumerate(names)}
        self.names = list(names)
        self.allowed: list[list[str]] = [[name] for name in names]
        self.positive = [True] * len(names)
        self.things = [False] * len(names)

    def add(self, allowed: Sequence[str], *, positive: bool = True, thing: bool = False) -> int:
        """Add a label, and return its number. Names that are not joint names are ignored."""
        self.allowed.append([name for name in allowed if name in self.column])
        self.positive.append(positive)
        self.things.append(thing)
        return len(self.allowed) - 1

    def of_name(self, name: str, thing: bool) -> int:
        """The label that is a joint name itself."""
        label = self.column[name]
        self.things[label] |= thing
        return label

    def allowed_matrix(self) -> Tensor:
        """(L, G) bool."""
        matrix = torch.zeros(len(self.allowed), len(self.names), dtype=torch.bool)
        for row, members in zip(matrix, self.allowed, strict=True):
            row[[self.column[member] for member in members]] = True
        return matrix


def build_label_space(
    classes: Mapping[str, Sequence[str]],
    things: Mapping[str, Tensor],
    imagenet_parents: Mapping[int, str],
    imagenet_classes: int,
    unseen: Sequence[str] = (),
    file: Path = FOLDER / "sets.txt",
) -> LabelSpace:
    """Join the labels of several data sets.

    Args:
        classes: per data set, the names of its K classes.
        things: per data set, (K,) bool, which classes are things.
        imagenet_parents: for some ImageNet classes, the name that they are a kind of.
        imagenet_classes: number of ImageNet classes.
        unseen: names that are excluded from training. A label that could be one of them is void.
        file: labels that mean another set of names than their own.

    Raises:
        SettingError: an unseen name is in no data set.
    """
    meanings = {}
    for key, allowed in read_lists(file).items():
        source, _, class_name = key.partition("/")
        meanings[source.strip(), class_name.strip()] = allowed
    joint_sets = [source for source in classes if DATA_SETS[source].joint]
    candidates = dict.fromkeys(without_synonyms(label) for source in joint_sets for label in classes[source])
    if unknown := set(unseen) - set(candidates):
        raise SettingError(f"unseen has names that are in no data set: {', '.join(sorted(unknown))}")
    names = tuple(name for name in candidates if name not in unseen)
    labels = _Labels(names)

    label_of_class: dict[str, Tensor] = {}
    own_names: dict[str, tuple[str, ...]] = {}
    own_labels: dict[str, dict[int, int]] = {}  # per data set, the index of each label among its own names
    for source, class_names in classes.items():
        data_set = DATA_SETS[source]
        own = [without_synonyms(name) for name in class_names]
        meaning = [meanings.get((source, name), [name]) for name in own]
        if data_set.own:
            own_names[source] = tuple(name for name in own if name not in unseen)
            own_labels[source] = {}
        table = [_label_of_unlabelled(labels, source, {name for allowed in meaning for name in allowed})]
        for name, allowed, thing in zip(own, meaning, things[source].tolist(), strict=True):
            is_void = bool(set(allowed) & set(unseen))
            if not data_set.named or (name in unseen if data_set.own else is_void):
                table.append(-1)
            elif data_set.own:
                # If a joint name is excluded, the label still counts among the data set's own names.
                label = labels.add(allowed if data_set.joint and not is_void else (), thing=thing)
                own_labels[source][label] = own_names[source].index(name)
                table.append(label)
            elif allowed == [name]:
                table.append(labels.of_name(name, thing))
            else:
                table.append(labels.add(allowed, thing=thing))
        label_of_class[source] = torch.tensor(table)

    first_imagenet = len(labels.allowed)
    for index in range(imagenet_classes):
        labels.add([imagenet_parents[index]] if index in imagenet_parents else ())
    own_index = {source: torch.full((len(labels.allowed),), -1) for source in own_labels}
    for source, index_of in own_labels.items():
        own_index[source][list(index_of)] = torch.tensor(list(index_of.values()), dtype=torch.int64)
    own_names["mosaics"] = ()
    own_index["mosaics"] = torch.cat([torch.full((first_imagenet,), -1), torch.arange(imagenet_classes)])
    return LabelSpace(
        names,
        labels.allowed_matrix(),
        torch.tensor(labels.positive),
        torch.tensor(labels.things),
        label_of_class,
        own_names,
        own_index,
        first_imagenet,
    )


def _label_of_unlabelled(labels: _Labels, source: str, named: set[str]) -> int:
    """The label of unlabelled pixels of a data set whose classes cover the names ``named``; -1: void."""
    if DATA_SETS[source].exhaustive:
        return labels.add([name for name in labels.names if name not in named], positive=False)
    if source == "unlabelled":
        return labels.add(labels.names, positive=False)
    return -1
