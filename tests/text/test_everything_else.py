"""Names such as "background" compete as everything else, and their pixels get that name."""

import warnings

import numpy as np
import pytest
import torch

from deop.encoders.clip import CLIPVision
from deop.encoders.clip_text import CLIPText
from deop.errors import VocabularyError
from deop.images.preprocessing import Resize
from deop.model import DeOP
from deop.regions.classification import classify
from deop.settings import Settings
from deop.text import embedding
from deop.text.calibration import Calibration
from deop.text.class_lists import LISTS, official_classes
from deop.text.embedding import embed_vocabulary
from deop.text.everything_else import COMMON, means_everything_else, names_the_same
from deop.text.vocabulary import Vocabulary, VocabularyWarning

RIVALS = ("tree", "road", "hound")
VECTORS = {
    "cup": [1, 0, 0, 0, 0], "dog": [0, 1, 0, 0, 0], "hound": [0, 0.9, 0.1, 0, 0], "tree": [0, 0, 1, 0, 0],
    "road": [0, 0, 0, 1, 0], "sky": [0, 0, 0, 0, 1], "background": [1, 1, 1, 1, 1],
}  # fmt: skip


class Table:
    """A text encoder with a known vector for each of a few words, and a random one for others."""

    width, identity, context_length, uses_templates = 5, "table", 100, False

    def count_tokens(self, text):
        return 1

    def embed(self, texts):
        random = np.random.default_rng(0)
        return torch.tensor(np.array([VECTORS.get(text, random.normal(size=5)) for text in texts]), dtype=torch.float32)


def embedded(names, calibration=None, **options):
    return embed_vocabulary(Vocabulary.parse(names, **options), Table(), calibration or Calibration(rivals=RIVALS))


def owners(classes):
    """The owner of each row, by the text whose vector it has."""
    texts = {tuple(np.round(unit(vector), 4)): text for text, vector in VECTORS.items()}
    rows = (texts.get(tuple(np.round(row, 4)), "?") for row in classes.rows.astype(float))
    return dict(zip(rows, classes.owner.tolist(), strict=True))


def unit(vector):
    return np.asarray(vector, float) / np.linalg.norm(vector)


@pytest.mark.parametrize(
    "name",
    ["background", "BACKGROUND", "Other", "others", "the rest", "everything else", "everything_else", "none",
     "none of these", "nothing", "unlabeled", "void", "<void>", "bg"],
)  # fmt: skip
def test_names_that_mean_everything_else(name):
    assert means_everything_else(name)
    assert Vocabulary.parse(["cup", name]).everything_else == 1


@pytest.mark.parametrize("name", ["cup", "other people", "a dark background", "restaurant", "unknown soldier", ""])
def test_other_names_do_not(name):
    assert not means_everything_else(name)


def test_synonyms_and_order():
    assert Vocabulary.parse("cup, table").everything_else is None
    assert Vocabulary.parse("backdrop|sky, cup").everything_else == 0
    assert Vocabulary.parse("cup, sky|background").everything_else == 1


def test_it_is_stuff():
    assert Vocabulary.parse("cup, other").things == (True, False)
    assert Vocabulary((("cup",), ("none",)), isthing=(True, True)).things == (True, False)
    with pytest.raises(VocabularyError, match="'other' means everything else, which cannot be a thing"):
        Vocabulary.parse("cup, other", things="cup, other")


def test_rivals_are_its_texts():
    """The rival that means the same as a requested name is left out, as for "none of these"."""
    assert owners(embedded("background, cup, dog")) == {"cup": 1, "dog": 2, "tree": 0, "road": 0}
    assert embedded("background, cup, dog").everything_else == 0
    assert owners(embedded("cup, dog")) == {"cup": 0, "dog": 1, "tree": 2, "road": 2}


def test_other_synonyms_are_texts_too():
    assert owners(embedded("cup, background|sky")) == {"cup": 0, "sky": 1, "tree": 1, "road": 1, "hound": 1}


def test_with_background_names():
    """Background names compete for themselves, and their pixels get no name."""
    assert owners(embedded("background, cup", background="sky, road")) == {
        "cup": 1, "sky": 2, "road": 2, "tree": 0, "hound": 0,
    }  # fmt: skip
    assert owners(embedded("cup", background="sky")) == {"cup": 0, "sky": 1}


def test_as_background_name():
    """--background "other" asks for the rivals, whose pixels then get no name."""
    assert owners(embedded("cup", background="other")) == {"cup": 0, "tree": 1, "road": 1, "hound": 1}


def test_models_without_rivals_use_common_names(monkeypatch):
    """Without those that mean the same, by their last word or, after subtracting the mean, by their embedding."""
    monkeypatch.setattr(embedding, "SAME_MEANING", 2)  # no embedding is that similar
    classes = embedded("cup, none", Calibration())
    assert len(classes.rows) == 1 + len([name for name in COMMON if not names_the_same(name, "cup")])
    assert (classes.owner[1:] == 1).all()
    assert embedded("cup", Calibration()).rows.shape[0] == 1  # everything else is not asked for


def test_common_names_of_the_same_meaning_are_left_out(monkeypatch):
    monkeypatch.setattr(embedding, "COMMON", ("hound", "tree", "road", "sky"))
    assert owners(embedded("dog, none", Calibration())) == {"dog": 0, "tree": 1, "road": 1, "sky": 1}
    rows = np.array([unit(VECTORS[name]) for name in ("hound", "tree", "road", "sky", "dog")])
    centred = rows - rows[:4].mean(0)
    similarities = [unit(row) @ unit(centred[4]) for row in centred[:4]]
    assert similarities[0] > embedding.SAME_MEANING > max(similarities[1:])


def test_common_names_differ():
    assert len(set(COMMON)) == len(COMMON)
    assert names_the_same("red cups", "cup")
    assert not names_the_same("cup", "cupboard")


def test_a_name_that_training_used_keeps_its_own_embedding():
    calibration = Calibration(trained_names=("background", "tree"), rivals=RIVALS)
    assert owners(embedded("cup, background", calibration)) == {
        "cup": 0, "background": 1, "tree": 1, "road": 1, "hound": 1,
    }  # fmt: skip


def test_training_uses_the_embedding_of_the_word():
    classes = embed_vocabulary(Vocabulary.parse("cup, background"), Table())
    assert owners(classes) == {"cup": 0, "background": 1}
    assert classes.everything_else is None


def test_two_names_for_it_warn():
    with pytest.warns(VocabularyWarning, match="'other' and 'none' both mean everything else: the first"):
        classes = embedded("cup, other, none")
    assert classes.everything_else == 1
    assert 2 not in classes.owner


def test_alone_it_takes_everything():
    assert embedded("background").owner.tolist() == [0, 0, 0]


def test_the_no_object_vector_counts_for_it():
    regions, vector = torch.eye(5), torch.tensor([0.0, 0, 0, 0, 2])
    classes = embedded("other, cup")
    logits = classify(regions, classes, vector)
    assert logits[4].tolist() == pytest.approx([100, 0, -float("inf")])
    assert classify(regions, embedded("cup"), vector)[4].tolist() == pytest.approx([0, 100])


@pytest.mark.parametrize("name", [path.stem for path in LISTS.glob("*.json")])
def test_no_official_class_list_has_such_a_name(name):
    """Published protocols ask the names as they are written."""
    for entry in official_classes(name):
        assert not any(map(means_everything_else, [entry.name, *entry.plain.split("|")]))


# --- In results


@pytest.fixture(scope="module")
def model(tiny_clip):
    parts = CLIPVision.from_folder(tiny_clip), CLIPText.from_folder(tiny_clip)
    return DeOP(*parts, settings=Settings(Resize(64), templates="none")).eval()


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


MASKS = np.arange(60 * 80).reshape(60, 80) // 1600 + 1  # three stripes
MASKS[:, :10] = 0  # and pixels without a mask


@pytest.mark.parametrize("mode", ["semantic", "panoptic"])
@pytest.mark.parametrize("names", ["background, cat, dog", "cat, dog, OTHER", "cat, rest|wall, dog"])
def test_every_pixel_that_no_name_gets_is_labelled(model, photo, mode, names):
    vocabulary = model.vocabulary(names)
    result = model.segment(photo, vocabulary, masks=MASKS, mode=mode)
    assert (result.label_map[:, :10] == vocabulary.everything_else).all()
    assert (result.label_map >= 0).all()
    high = model.segment(photo, vocabulary, masks=MASKS, mode=mode, threshold=1.0)
    assert (high.label_map == vocabulary.everything_else).all()
    [segment] = high.segments
    assert (segment.name, segment.isthing, segment.area) == (vocabulary.names[vocabulary.everything_else], False, 4800)


def test_pixels_of_background_names_stay_without_name(model, photo):
    background = [name for name in COMMON if name != "cat"]
    first = model.segment(photo, "cat", background=background, masks=MASKS)
    second = model.segment(photo, "cat, other", background=background, masks=MASKS)
    assert (first.label_map == -1).any()
    assert ((second.label_map == -1) <= (first.label_map == -1)).all()
    assert (second.label_map[:, :10] == 1).all()


def test_it_is_not_an_instance(model, photo):
    result = model.segment(photo, "cat, dog, other", masks=MASKS, mode="instance")
    assert "other" not in [segment.name for segment in result.segments]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Vocabulary.parse("cat, other").check_mode("instance")
