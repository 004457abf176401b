"""Vectors of plurals, kinds and groups of names: made-up tables, and what nano then takes words for."""

import numpy as np
import pytest
from recipes.nano.word_rows import OWN_SHARE, improve, improve_model, singulars

import deop
from deop.errors import SettingError
from deop.text.embedding import embed_texts, embed_vocabulary
from deop.text.vocabulary import Vocabulary

WORDS = ("cat", "dog", "cup", "tabby", "cups", "glass", "glasses", "animal", "s", "##s", "##es", "poo", "##dle", "pink")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def improved():
    """A table of made-up vectors, before and after, as dictionaries."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(len(WORDS), 64)).astype(np.float32)
    rows[WORDS.index("cups")] = rows[WORDS.index("cup")] + 0.6 * rows[WORDS.index("cups")]
    words, after, plurals = improve(
        WORDS,
        rows,
        names=("cat", "dog", "cup", "red cup"),
        trained=("cat", "dog", "cup", "tabby", "pink cup"),
        kinds={"cat": ["tabby"], "dog": ["poodle"], "bird": ["pink"]},
        irregular={"dog": ["dogge"]},
    )
    assert plurals == ["cups", "tabbies", "dogge"]
    return dict(zip(WORDS, rows, strict=True)), dict(zip(words, after, strict=True))


def test_a_kind_moves_towards_its_name_and_trained_words_stay(improved):
    before, after = improved
    for word in ("cat", "dog", "cup", "tabby"):
        np.testing.assert_array_equal(after[word], before[word])
    pieces = unit((before["poo"] + before["##dle"]) / 2)
    expected = unit(OWN_SHARE * pieces + (1 - OWN_SHARE) * unit(before["dog"]))
    np.testing.assert_allclose(unit(after["poodle"]), expected, atol=1e-5)
    np.testing.assert_array_equal(after["pink"], before["pink"])  # training lacked its name


def test_plurals_move_towards_their_singulars_unless_they_mean_something_else(improved):
    before, after = improved
    assert unit(after["cups"]) @ unit(before["cup"]) > 0.98 > unit(before["cups"]) @ unit(before["cup"])
    np.testing.assert_array_equal(after["glasses"], before["glasses"])
    assert unit(after["dogge"]) @ unit(before["dog"]) > 0.999
    assert np.linalg.norm(after["##s"]) == pytest.approx(0.1 * np.linalg.norm(before["##s"]), rel=1e-5)


def test_trained_names_without_a_row_keep_the_mean_of_their_words(improved):
    before, after = improved
    np.testing.assert_allclose(unit(after["pink cup"]), unit(before["pink"] + before["cup"]), atol=1e-5)


@pytest.mark.parametrize("word", ["bus", "grass", "tennis", "gas", "dog", "x's"])
def test_words_that_are_not_plurals(word):
    assert word != "bus" or not list(singulars(word))
    assert word == "gas" or not list(singulars(word))


@pytest.fixture(scope="module")
def model():
    model = deop.load("nano", engine="torch", device="cpu")
    improve_model(model)
    return model


def test_a_table_is_improved_once(model):
    with pytest.raises(SettingError, match="improved already"):
        improve_model(model)


NEAREST = [  # what is written, and the nearest of the names of the training
    ("cups", "cup"), ("sofas", "couch"), ("couches", "couch"), ("mice", "mouse"), ("knives", "knife"),
    ("skies", "sky"), ("geese", "bird"), ("kittens", "cat"), ("kitten", "cat"), ("tabby", "cat"),
    ("poodle", "dog"), ("Chihuahuas", "dog"), ("oak", "tree"), ("rose", "flower"), ("penguin", "bird"), ("taxi", "car"),
    ("tricycle", "bicycle"), ("castle", "house"), ("yacht", "boat"), ("strawberries", "fruit"), ("waiter", "person"),
    ("women", "person"), ("a woman smiling", "person"), ("red double decker bus", "bus"), ("a cup of coffee", "cup"),
    ("two dogs in the park", "dog"), ("cat sleeping on a sofa", "cat"), ("Café tables", "table"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name"), NEAREST)
def test_words_are_nearest_to_the_name_that_they_mean(model, text, name):
    rivals = model.settings.calibration.rivals
    rows = embed_texts([text, *rivals], ["{}"], model.text)
    assert rivals[int((rows[1:] @ rows[0]).argmax())] == name


def rows_of(model, names, **options):
    """For each name, how many rows it has, and the offsets of all."""
    vocabulary = Vocabulary.parse(names, **options)
    classes = embed_vocabulary(vocabulary, model.text, model.settings.calibration)
    return np.bincount(classes.owner, minlength=len(names))[: len(names)].tolist(), classes


def test_a_word_that_sums_names_up_stands_for_those_that_are_not_requested(model):
    groups = {word: len(names) for word, names in model.settings.calibration.groups}
    animals = 1 + groups["animal"]
    assert groups["animals"] == groups["animal"] >= 9
    assert rows_of(model, ["animal", "wall"])[0] == [animals, 1]
    assert rows_of(model, ["animals", "cat", "wall"])[0] == [animals - 1, 1, 1]
    assert rows_of(model, ["animal", "small pet", "wall"])[0] == [animals - 2, 3, 1]  # a cat is a pet first
    assert rows_of(model, ["vehicle"], background=["car"])[0] == [groups["vehicle"]]
    assert rows_of(model, ["kitchen appliances", "wall"])[0] == [1 + groups["appliance"], 1]  # not in the table
    counts, classes = rows_of(model, ["furniture", "wall"])
    assert classes.offset is None  # seen, as its names are
    assert counts[0] > 6


@pytest.mark.parametrize(("text", "name"), [("animal", "dog"), ("vehicles", "bus"), ("my furniture", "couch")])
def test_a_member_is_found_as_its_group(model, text, name):
    classes = rows_of(model, [text, "wall", "grass"])[1]
    [row] = embed_texts([name], ["{}"], model.text)
    assert classes.owner[int((classes.rows @ row).argmax())] == 0


def offsets(model, names):
    classes = embed_vocabulary(Vocabulary.parse(names), model.text, model.settings.calibration)
    return [0.0] * len(names) if classes.offset is None else classes.offset[: len(names)].tolist()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "wall"], [0, 0]),
        (["cat", "cups", "poodle", "a dog in the park"], [0, 0, 0, 0]),  # as good as seen
        (["cat", "guitar"], [-3, 0]),  # not seen
        (["cups", "guitar"], [-3, 0]),
        (["cat", "flibbertigibbet"], [0, -3]),  # read in pieces
        (["cat", "guitar", "flibbertigibbet"], [-3, 0, -6]),
        (["cat", "guitar", "justice"], [-3, 0, -3]),  # like nothing that training knew
    ],
)
def test_what_is_seen_is_decided_name_by_name(model, names, expected):
    assert offsets(model, names) == expected
