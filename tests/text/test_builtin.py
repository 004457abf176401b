"""Built-in vocabularies: valid, without duplicates, readable, with things and stuff."""

import warnings

import pytest

import deop
from deop.errors import VocabularyError
from deop.text.builtin import LISTS, builtin_vocabulary
from deop.text.class_lists import official_classes
from deop.text.embedding import embed_vocabulary
from deop.text.folding import fold
from deop.text.things import is_thing
from deop.text.vocabulary import Vocabulary

SIZES = {"coco": 171, "ade20k": 150, "cityscapes": 19}


@pytest.mark.parametrize("name", LISTS)
def test_every_text_is_read_and_differs_from_all_others(name):
    """By the word table of the model in the package, in which plural and singular may be the same."""
    vocabulary, text = builtin_vocabulary(name), deop.load("nano").text
    assert vocabulary.source == name
    assert len(vocabulary.isthing) == len(vocabulary.names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classes = embed_vocabulary(vocabulary, text)
    assert len(classes.rows) == len({fold(text) for text in vocabulary.texts})
    assert vocabulary.everything_else is None


@pytest.mark.parametrize(("name", "count"), SIZES.items())
def test_lists_of_data_sets(name, count):
    vocabulary, classes = builtin_vocabulary(name), official_classes(LISTS[name])
    assert len(vocabulary.names) == len(classes) == count
    assert vocabulary.isthing == tuple(entry.isthing for entry in classes)
    assert builtin_vocabulary("coco").names[161] == "wall"  # in ordinary words, not "wall-other"


def test_everyday():
    vocabulary = builtin_vocabulary("everyday")
    assert 300 <= len(vocabulary.names) <= 400
    flags = dict(zip(vocabulary.names, vocabulary.isthing, strict=True))
    assert flags["dog"] and flags["cup"] and not flags["sky"] and not flags["wall"]  # noqa: PT018
    guesses = [is_thing(name) == isthing for name, isthing in flags.items()]
    assert sum(guesses) / len(guesses) > 0.8


def test_subjects_of_ordinary_photos():
    texts = set(builtin_vocabulary("everyday").texts)
    for subject in (
        "person, dog, bird, car, bicycle, airplane, traffic light, table, sofa, lamp, oven, cup, laptop, book, hat",
        "shoe, ball, guitar, hammer, apple, bread, pizza, sky, tree, grass, mountain, sea, road, building, window",
        "door, floor, curtain, water, snow, text",
    ):
        assert set(subject.split(", ")) <= texts


def test_parsing_keeps_the_source():
    vocabulary = Vocabulary.parse(builtin_vocabulary("everyday"), background="smog", things="dog")
    assert (vocabulary.source, vocabulary.background, sum(vocabulary.things)) == ("everyday", ("smog",), 1)
    assert Vocabulary.parse("cat").source is None


def test_unknown_vocabulary():
    with pytest.raises(VocabularyError, match="'lvis': choose one of coco, ade20k, cityscapes, everyday"):
        builtin_vocabulary("lvis")
