"""Class names in the forms that people write, and their embeddings."""

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import deop
from deop.encoders.clip_text import CLIPText
from deop.errors import VocabularyError
from deop.results.colours import vocabulary_colours
from deop.results.name_lookup import find_names
from deop.text.embedding import average_templates, embed_texts, embed_vocabulary
from deop.text.embedding_cache import EmbeddingCache
from deop.text.templates import IMAGENET, PHOTO, SINGLE, TEMPLATE_SETS, VILD
from deop.text.thresholds import Thresholds
from deop.text.vocabulary import Vocabulary, VocabularyWarning, quoted, shorten


class Letters:
    """A text encoder that can be computed by hand: it counts letters, in texts of up to 40 tokens."""

    width, identity, context_length, uses_templates = 26, "letters", 40, True

    def __init__(self):
        self.received = []

    def count_tokens(self, text):
        return len(text) + 2

    def embed(self, texts):
        self.received += texts
        rows = [[1.0 + text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts]
        return torch.tensor(rows)


def unit(row):
    return row / np.linalg.norm(row)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "sofa|couch"], (("cat",), ("sofa", "couch"))),
        ("cat, sofa | couch ,", (("cat",), ("sofa", "couch"))),
        ("cat", (("cat",),)),
        ("a red car, parked; a road", (("a red car, parked",), ("a road",))),
        ("traffic   light\nsky-other\n", (("traffic light",), ("sky-other",))),
        ("cat, dog,\n\n wall\n", (("cat",), ("dog",), ("wall",))),
        ("a cat, black;\na dog;", (("a cat, black",), ("a dog",))),
        (["a cup, half full; cold"], (("a cup, half full; cold",),)),
        (["Cat|cat|kitty"], (("Cat", "kitty"),)),
        (["cafe\u0301|café"], (("café",),)),
        (("  猫  ",), (("猫",),)),
    ],
)
def test_forms_of_names(names, expected):
    vocabulary = Vocabulary.parse(names)
    assert vocabulary.synonyms == expected
    assert vocabulary.names == tuple(texts[0] for texts in expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "empty: give at least one"),
        (None, "None as names: give a list"),
        ("", "empty: give at least one"),
        (" \n", "empty: give at least one"),
        (["cat", "   "], "blank"),
        ("cat,,dog", "blank"),
        (["sofa|"], r"'sofa\|' is blank or has a blank synonym"),
        (["cat", "dog", " Cat "], r"'Cat' is both in name 1 \(cat\) and in name 3 \(Cat\)"),
        (["sofa|couch", "couch|bench"], r"'couch' is both in name 1 \(sofa\|couch\) and in name 2"),
        (["Straße", "STRASSE"], "both in"),
        (["cat", 3], "3 in the names is not a string"),
        (["a\ud800"], "not valid Unicode"),
    ],
)
def test_names_that_cannot_be_used(names, message):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.parse(names)


def test_background():
    assert Vocabulary.parse("cat", "sky|heaven, ground, SKY").background == ("sky", "heaven", "ground")
    with pytest.raises(VocabularyError, match="and in the background"):
        Vocabulary.parse("cat, dog", ["dog"])


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("argument", ["names", "background", "things", "templates"])
def test_sets_are_rejected(kind, argument):
    """The order of a set, and with it the ids, differs from run to run."""
    arguments = {"names": ["cat", "dog"], argument: kind({"cat", "{} sky"})}
    with pytest.raises(VocabularyError, match="a set, which has no order"):
        Vocabulary.parse(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"synonyms": {("cat",), ("dog",)}},
        {"synonyms": ({"cat", "kitty"},)},
        {"synonyms": (("cat",),), "background": {"sky"}},
        {"synonyms": (("cat",),), "templates": {"{}"}},
    ],
)
def test_sets_are_rejected_by_the_constructor_too(arguments):
    with pytest.raises(VocabularyError, match="takes tuples of texts"):
        Vocabulary(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"synonyms": None}, "takes tuples of texts, not None"),
        ({"synonyms": 3}, "takes tuples of texts, not 3"),
        ({"synonyms": "cat"}, "takes tuples of texts, not 'cat'"),
        ({"synonyms": ("cat",)}, "takes tuples of texts, not 'cat'"),
        ({"synonyms": ()}, "empty: give at least one"),
        ({"synonyms": (("cat",), ())}, "empty tuple of texts"),
        ({"synonyms": (("cat", 3),)}, "3 in the names is not a string"),
        ({"background": (3,)}, "3 in the background is not a string"),
        ({"background": "sky"}, "takes tuples of texts, not 'sky'"),
        ({"templates": ("no place",)}, "'no place' has no {}"),
        ({"isthing": "yes"}, "isthing must have True or False for each name, not 'yes'"),
        ({"isthing": True}, "isthing must have True or False for each name, not True"),
        ({"isthing": (True, False)}, "isthing has 2 flags for 3 names"),
    ],
)
def test_values_that_the_constructor_refuses(arguments, message):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(**{"synonyms": (("cat",), ("dog",), ("sky",)), **arguments})


def test_the_constructor_makes_tuples():
    vocabulary = Vocabulary([["  cat ", "cafe\u0301"], ["sky"]], ["a  wall"], ["a {}"], [1, 0])
    assert vocabulary.synonyms == (("cat", "caf\xe9"), ("sky",))
    assert (vocabulary.background, vocabulary.templates) == (("a wall",), ("a {}",))
    assert vocabulary.isthing == (True, False)
    assert all(isinstance(flag, bool) for flag in vocabulary.isthing)
    assert vocabulary.texts == ("cat", "caf\xe9", "sky", "a wall")
    assert Vocabulary((("cat",),)).templates == VILD


@pytest.mark.parametrize("what", ["names", "background", "things"])
def test_arguments_that_are_no_names_are_called_by_their_name(what):
    with pytest.raises(VocabularyError, match=f"3 as {what}: give a list"):
        Vocabulary.parse(**{"names": "cat", what: 3})
    with pytest.raises(VocabularyError, match=f"3 in the {what} is not a string"):
        Vocabulary.parse(**{"names": "cat", what: ["cat", 3]})
    with pytest.raises(VocabularyError, match=f"the {what} are a set"):
        Vocabulary.parse(**{"names": "cat", what: {"cat"}})


@pytest.mark.parametrize(("length", "shown"), [(59, 59), (60, 60), (61, 60), (200, 60)])
def test_names_in_messages_have_at_most_60_characters(length, shown):
    text = "".join(chr(97 + index % 26) for index in range(length))
    assert len(shorten(text)) == shown
    assert shorten(text) == (text if length <= 60 else text[:59] + "…")
    assert quoted(text) == shorten(f"'{text}'")


def test_things():
    assert Vocabulary.parse("cat, sky, sofa|couch", things="Couch, cat").isthing == (True, False, True)
    assert Vocabulary.parse("cat, sky", things=[]).isthing == (False, False)
    assert Vocabulary.parse("cat").isthing is None
    assert Vocabulary.parse("cat, sky").things == (True, False)  # guessed
    assert Vocabulary.parse("cat, sky", things="sky").things == (False, True)
    with pytest.raises(VocabularyError, match="not among the names: tiger"):
        Vocabulary.parse("cat", things="tiger")


def test_templates():
    assert [len(TEMPLATE_SETS[name]) for name in ("single", "vild", "imagenet")] == [1, 14, 80]
    for name, sentences in TEMPLATE_SETS.items():
        assert Vocabulary.parse("cat", templates=name).templates == sentences
        assert len(set(sentences)) == len(sentences)
        assert all(sentence.count("{}") == 1 for sentence in sentences)
    assert Vocabulary.parse("cat").templates == VILD
    assert Vocabulary.parse("cat", templates="a {} at night").templates == ("a {} at night",)
    assert Vocabulary.parse("cat", templates=["{}", "{} {{x}}"]).templates == ("{}", "{} {{x}}")
    for wrong, message in (
        ("imagnet", "'imagnet': use one of single, photo, vild"),
        ([], "empty"),
        ({"a {}", "the {}"}, "a set, which has no order"),
        (["a"], "'a' has no {}"),
    ):
        with pytest.raises(VocabularyError, match=message):
            Vocabulary.parse("cat", templates=wrong)


def test_a_vocabulary_is_kept():
    first = Vocabulary.parse("cat, dog", "sky", "photo", "cat")
    assert Vocabulary.parse(first) == first
    changed = Vocabulary.parse(first, "floor", SINGLE, "dog")
    assert (changed.background, changed.templates, changed.isthing) == (("floor",), SINGLE, (False, True))
    with pytest.raises(VocabularyError, match="and in the background"):
        Vocabulary.parse(first, "dog")
    assert len({first, Vocabulary.parse(first)}) == 1


def test_rows_by_hand():
    """The normalised mean of the normalised embeddings in each template (docs/method.md §4)."""
    encoder = Letters()
    vocabulary = Vocabulary.parse("Sofa|couch, cat", "sky", ["a {}.", "the {} here"])
    classes = embed_vocabulary(vocabulary, encoder)
    assert classes.names == ("Sofa", "cat")
    assert len(classes) == 2
    assert classes.owner.tolist() == [0, 0, 1, 2]
    assert classes.owner.dtype == np.int64
    assert set(encoder.received) == {
        sentence for text in ("Sofa", "couch", "cat", "sky") for sentence in (f"a {text}.", f"the {text} here")
    }
    for row, text in zip(classes.rows, ("Sofa", "couch", "cat", "sky"), strict=True):
        one, two = Letters().embed([f"a {text}.", f"the {text} here"]).numpy()
        np.testing.assert_allclose(row, unit((unit(one) + unit(two)) / 2), rtol=1e-5)
    assert classes.rows.dtype == np.float32


def test_a_learned_prompt_replaces_templates():
    encoder = Letters()
    encoder.uses_templates = False
    embed_vocabulary(Vocabulary.parse("cat", templates="imagenet"), encoder)
    assert encoder.received == ["cat"]


def test_braces_in_names_are_kept():
    encoder = Letters()
    embed_vocabulary(Vocabulary.parse(["{0} and {}"], templates="photo"), encoder)
    assert encoder.received == ["a photo of a {0} and {}."]


names = st.lists(st.text("abcdefgh xyz", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=12).map(
    lambda texts: list({" ".join(text.split()): text for text in texts}.values())
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=names, data=st.data())
def test_permuting_names_permutes_rows(tiny_clip, tmp_path_factory, names, data):
    """The rows are exactly equal, also if they come from a cache that was filled in another order."""
    encoder = loaded(tiny_clip)
    order = data.draw(st.permutations(range(len(names))))
    cache = EmbeddingCache(tmp_path_factory.mktemp("cache")) if data.draw(st.booleans()) else None
    first = embed_vocabulary(Vocabulary.parse(names, templates="photo"), encoder, cache=cache, batch_size=4)
    second = embed_vocabulary(
        Vocabulary.parse([names[index] for index in order], templates="photo"), encoder, cache=cache, batch_size=4
    )
    assert np.array_equal(second.rows, first.rows[order])
    assert second.names == tuple(first.names[index] for index in order)


def loaded(folder, known={}):  # noqa: B006
    if folder not in known:
        known[folder] = CLIPText.from_folder(folder)
    return known[folder]


def test_cached_rows_equal_encoded_rows(tiny_clip, tmp_path):
    encoder, cache = loaded(tiny_clip), EmbeddingCache(tmp_path)
    vocabulary = Vocabulary.parse("cat, dog, sofa|couch", "wall")
    miss = embed_vocabulary(vocabulary, encoder, cache=cache)
    without = embed_vocabulary(vocabulary, encoder)
    hit = embed_vocabulary(vocabulary, encoder, cache=cache)
    assert np.array_equal(miss.rows, without.rows)
    assert np.array_equal(hit.rows, miss.rows)
    assert np.allclose(np.linalg.norm(miss.rows, axis=1), 1)


def test_only_missing_texts_are_encoded(tmp_path):
    encoder, cache = Letters(), EmbeddingCache(tmp_path)
    embed_vocabulary(Vocabulary.parse("cat, dog", templates="photo"), encoder, cache=cache)
    encoder.received = []
    embed_vocabulary(Vocabulary.parse("dog, mouse, cat", templates="photo"), encoder, cache=cache)
    assert encoder.received == ["a photo of a mouse."]
    encoder.received = []
    embed_vocabulary(Vocabulary.parse("dog", templates="single"), encoder, cache=cache)
    assert encoder.received == ["a sculpture of a dog."]
    encoder.identity, encoder.received = "other", []
    embed_vocabulary(Vocabulary.parse("dog", templates="photo"), encoder, cache=cache)
    assert encoder.received == ["a photo of a dog."]


@pytest.mark.parametrize("cached", [False, True])
def test_a_name_longer_than_the_context_warns(tmp_path, cached):
    """Also if its row comes from the cache; the length of the whole sentence counts."""
    encoder, cache = Letters(), EmbeddingCache(tmp_path)
    available = encoder.context_length - 2 - len(PHOTO[0].replace("{}", ""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_vocabulary(Vocabulary.parse(["x" * available], templates="photo"), encoder, cache=cache)
    vocabulary = Vocabulary.parse(["x" * available + "y", "cat"], templates="photo")
    if cached:
        with pytest.warns(VocabularyWarning):
            embed_vocabulary(vocabulary, encoder, cache=cache)
    with pytest.warns(VocabularyWarning, match=r"takes 41 tokens .* reads only 40: its end is cut off"):
        embed_vocabulary(vocabulary, encoder, cache=cache)


def test_names_from_generators():
    parsed = Vocabulary.parse((name for name in ("cat", "dog")), background=(name for name in ("sky",)))
    assert (parsed.names, parsed.background) == (("cat", "dog"), ("sky",))


def test_names_with_equal_embeddings_warn():
    encoder = Letters()
    with pytest.warns(VocabularyWarning, match=r"gives 'tea' and 'eat' the same embedding \(and 1 more pair"):
        embed_vocabulary(Vocabulary.parse("tea, cat, eat, act", templates="none"), encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_vocabulary(Vocabulary.parse("tea|eat, cat", templates="none"), encoder)


def test_long_names_in_other_alphabets_warn(tiny_clip):
    with pytest.warns(VocabularyWarning, match="takes 128 tokens"):
        embed_vocabulary(Vocabulary.parse(["猫" * 42], templates="none"), loaded(tiny_clip))


def test_ten_thousand_names_in_batches_with_a_progress_bar(capsys):
    encoder, sizes = Letters(), []
    embed = encoder.embed

    def record(texts):
        sizes.append(len(texts))
        return embed(texts)

    encoder.embed = record
    names = [f"name {index}" for index in range(10_000)]
    with pytest.warns(VocabularyWarning, match="same embedding"):  # the encoder counts letters alone
        classes = embed_vocabulary(Vocabulary.parse(names, templates="photo"), encoder, progress=True)
    assert classes.rows.shape == (10_000, 26)
    assert max(sizes) == 256
    assert "embedding 10000 names" in capsys.readouterr().err
    embed_vocabulary(Vocabulary.parse("cat", templates="photo"), encoder, progress=True)
    assert not capsys.readouterr().err


def test_rows_do_not_depend_on_batches():
    texts = ["cat", "dog", "a sofa"]
    whole = embed_texts(texts, IMAGENET, Letters())
    assert np.array_equal(embed_texts(texts, IMAGENET, Letters(), batch_size=7), whole)
    assert whole.shape == (3, 26)


def test_the_average_ignores_the_lengths_of_embeddings():
    embeddings = np.array([[[3, 0], [0, 0.5]]], np.float32)
    np.testing.assert_allclose(average_templates(embeddings), np.full((1, 2), 0.5**0.5), rtol=1e-6)


class Latin(Letters):
    """The same encoder without other letters than those of ASCII."""

    uses_templates = False

    def unread(self, text):
        return "".join(letter for letter in text if not letter.isascii())

    def count_tokens(self, text):
        return sum(letter.isascii() and letter.isalpha() for letter in text)


def test_unread_letters_warn():
    with pytest.warns(VocabularyWarning, match=r"does not read '猫' in the name 'cat 猫' \(and not all of 1 more name"):
        embed_vocabulary(Vocabulary.parse("cat 猫, dog, ☕ cup"), Latin())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed_vocabulary(Vocabulary.parse("cat, dog"), Latin())


@pytest.mark.parametrize(
    ("names", "message"), [("dog, 猫", "nothing of '猫':"), ("猫|кот, 犬", r"'猫\|кот' \(and nothing of 1")]
)
def test_names_of_which_nothing_is_read_are_refused(names, message):
    with pytest.raises(VocabularyError, match=message):
        embed_vocabulary(Vocabulary.parse(names), Latin())


def test_synonyms_of_which_nothing_is_read_are_left_out():
    with pytest.warns(VocabularyWarning, match="'猫' in the name '猫'"):
        classes = embed_vocabulary(Vocabulary.parse("dog, 猫|cat"), Latin())
    assert classes.owner.tolist() == [0, 1]
    assert classes.names == ("dog", "猫")


def test_accents_with_the_model_of_the_package():
    """Names that differ by accents only are the same for its word table, and that is said."""
    text = deop.load("nano").text
    with pytest.warns(VocabularyWarning, match="gives 'café' and 'cafe' the same embedding"):
        classes = embed_vocabulary(Vocabulary.parse("café, cafe, cup"), text)
    assert np.array_equal(classes.rows[0], classes.rows[1])
    with pytest.warns(VocabularyWarning, match="does not read '☕' in the name '☕ cup'"):
        cup = embed_vocabulary(Vocabulary.parse("☕ cup"), text)
    assert np.array_equal(cup.rows[0], classes.rows[2])
    with pytest.raises(VocabularyError, match="reads nothing of 'кот'"):
        embed_vocabulary(Vocabulary.parse("cat, кот"), text)


@pytest.mark.parametrize("letter", ["\u200b", "\ufeff", "\xad", "\u200e", "\u2060"])
def test_invisible_characters_are_removed(letter):
    assert Vocabulary.parse([f"{letter}cup{letter}", f"a{letter} plate"]).names == ("cup", "a plate")
    with pytest.raises(VocabularyError, match="blank"):
        Vocabulary.parse([letter])


def test_joiners_are_kept():
    assert Vocabulary.parse(["👩\u200d👧"]).names == ("👩\u200d👧",)


@pytest.mark.parametrize(("letter", "code"), [("\x00", "0000"), ("\x1b", "001B"), ("\x07", "0007")])
def test_control_characters_are_refused(letter, code):
    with pytest.raises(VocabularyError, match=rf"control character U\+{code}"):
        Vocabulary.parse([f"cup{letter}"])


def test_instance_mode_needs_things():
    with pytest.raises(VocabularyError, match=r'no name is a thing \(sky, wall\): .* things="sky" \(--things\)'):
        Vocabulary.parse("sky, wall").check_mode("instance")
    with pytest.raises(VocabularyError, match="no name is a thing"):
        Vocabulary.parse("sky, wall", things=[]).check_mode("instance", warn=False)
    with pytest.warns(VocabularyWarning, match=r'taken for stuff and cannot be found: sky. .* .--things "cat, sky"'):
        Vocabulary.parse("cat, sky").check_mode("instance")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Vocabulary.parse("sky, wall").check_mode("panoptic")
        Vocabulary.parse("cat, dog").check_mode("instance")
        Vocabulary.parse("cat, sky", things="cat").check_mode("instance")  # the user knows
        Vocabulary.parse("cat, sky").check_mode("instance", warn=False)


def test_instance_mode_does_not_miss_everything_else():
    """Everything else is no thing, so no warning lists it; of a built-in list, a photo shows only a few names."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Vocabulary.parse("cat, background").check_mode("instance")
        Vocabulary((("sky",), ("wall",)), source="everyday").check_mode("instance")
        Vocabulary((("sky",), ("cat",)), source="everyday").check_mode("instance")
    with pytest.warns(VocabularyWarning, match=r"cannot be found: sky, wall\. .*--things \"cat, dog, sky\""):
        Vocabulary.parse("cat, sky, background, dog, wall").check_mode("instance")
    with pytest.raises(VocabularyError, match="'background' means everything else, which cannot be a thing"):
        Vocabulary.parse("cat, background", things="Background")


def test_templates_that_have_no_effect_warn(tiny_clip):
    nano = deop.load("nano", engine="torch")
    with pytest.warns(VocabularyWarning, match="templates have no effect with this model"):
        nano.vocabulary("cup", templates="a photo of a {}.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nano.vocabulary("cup", templates="none")  # which is what this model does
        nano.vocabulary("cup")
        deop.DeOP(nano.encoder, loaded(tiny_clip)).vocabulary("cup", templates="photo")


@pytest.mark.parametrize(("count", "more"), [(7, ""), (8, ""), (9, " and 1 more"), (30, " and 22 more")])
def test_a_message_lists_eight_names(count, more):
    names = [f"wall {number}" for number in range(count)]
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.parse(names, things=[]).check_mode("instance")
    assert f"no name is a thing ({', '.join(names[:8])}{more}): use" in str(caught.value)


SPELLINGS = [
    ("caf\u00e9", "CAFE\u0301"),
    ("\uf900", "\u8c48"),
    ("tree", " Tr\u00adee"),
    ("dining table", "Dining  table"),
]


@pytest.mark.parametrize(("written", "asked"), [*SPELLINGS, *(pair[::-1] for pair in SPELLINGS)])
def test_every_lookup_finds_other_spellings_of_a_name(written, asked):
    """Combining marks, compatibility letters, invisible characters, spaces, upper and lower case."""
    vocabulary = Vocabulary.parse(["wall", written])
    assert find_names([asked], vocabulary.names, vocabulary.synonyms) == [1]
    assert find_names([asked], ["wall", written]) == [1]
    assert Thresholds.parse({asked: 0.25}).values(vocabulary, 0.5) == (0.5, 0.25)
    assert Vocabulary.parse(["wall", written], things=[asked]).isthing[1]
    assert np.array_equal(*vocabulary_colours([written, asked]))
