"""The class lists of the package: complete, unambiguous, in the order of their authors, with their source."""

import pytest

from deop.data.official import PUBLIC_SETS
from deop.text.class_lists import LISTS, official_classes, source_of
from deop.text.vocabulary import Vocabulary

SIZES = {
    "coco-stuff": 171, "voc": 20, "pascal-context-59": 59, "pascal-context-459": 459, "ade20k-150": 150,
    "ade20k-full": 847, "cityscapes": 19,
}  # fmt: skip


def test_every_list_has_its_size_and_is_used():
    assert {path.stem for path in LISTS.glob("*.json")} == set(SIZES)
    assert {entry.classes for entry in PUBLIC_SETS.values()} - {""} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_ids_and_official_values_are_unambiguous(name):
    classes = official_classes(name)
    assert [entry.id for entry in classes] == list(range(1, SIZES[name] + 1))
    assert len({entry.official for entry in classes}) == SIZES[name]
    assert "http" in source_of(name)


@pytest.mark.parametrize("name", SIZES)
def test_both_spellings_are_valid_names(name):
    classes = official_classes(name)
    assert Vocabulary.parse([entry.name for entry in classes]).names == tuple(entry.name for entry in classes)
    assert len(Vocabulary.parse([entry.plain or entry.name for entry in classes]).names) == SIZES[name]


def test_the_unseen_classes_of_coco_stuff():
    # docs/method.md §10: the unseen classes, with index in the list of 171 and official value
    expected = {
        "cow": (19, 20), "giraffe": (23, 24), "suitcase": (28, 32), "frisbee": (29, 33), "skateboard": (36, 40),
        "carrot": (51, 56), "scissors": (76, 86), "cardboard": (88, 99), "clouds": (94, 105), "grass": (112, 123),
        "playingfield": (133, 144), "river": (136, 147), "road": (137, 148), "tree": (157, 168),
        "wall-concrete": (160, 171),
    }  # fmt: skip
    classes = official_classes("coco-stuff")
    actual = {entry.name: (index, entry.official) for index, entry in enumerate(classes) if not entry.seen}
    assert actual == expected
    assert sum(bool(entry.isthing) for entry in classes) == 80
    gaps = set(range(182)) - {entry.official for entry in classes}
    assert sorted(value + 1 for value in gaps) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]


def test_the_unseen_classes_of_voc():
    unseen = {entry.name for entry in official_classes("voc") if not entry.seen}
    assert unseen == {"pottedplant", "sheep", "sofa", "train", "tvmonitor"}


def test_the_59_are_the_459_of_the_same_name():
    names = {entry.official: entry.name for entry in official_classes("pascal-context-459")}
    assert all(names[entry.official] == entry.name for entry in official_classes("pascal-context-59"))


def test_things_are_marked_if_the_authors_say_so():
    def things(name):
        return sum(bool(entry.isthing) for entry in official_classes(name))

    assert (things("cityscapes"), things("ade20k-150"), things("voc")) == (8, 100, 20)
    assert all(entry.isthing is None for entry in official_classes("ade20k-full"))
