"""Learning from captions: which names a caption has, which proposals become examples, and files of captions."""

import json

import numpy as np
import pytest

from deop.bank.captions import LEAST, UNMENTIONED, Captioned, learn_captions, names_in, read_captions
from deop.errors import DataError, SettingError
from tests.bank.small import HashedWords, vocabulary

torch = pytest.importorskip("torch")

from tests.export.small import model as small_model  # noqa: E402
from tests.export.small import photo as small_photo  # noqa: E402


@pytest.fixture(scope="module")
def tower():
    """A CLIP and a MaskFormer with random weights, and words of random directions."""
    return small_model(text=HashedWords(), drop_redundant=False)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A cow on the grass", ["cow", "grass"]),
        ("Two COWS, a sofa.", ["cow", "couch"]),
        ("a cowboy and grasshoppers", []),
        ("hot\ndogs and a dog", ["hot dog", "dog"]),
        ("The hot-dog", ["hot dog", "dog"]),
        ("wolves", ["wolf"]),
        ("", []),
        ("!?", []),
    ],
)
def test_names_of_a_caption(caption, expected):
    asked = vocabulary("cow, grass, couch|sofa, hot dog, dog, wolf")
    assert {asked.names[k] for k in names_in(caption, asked)} == set(expected)


def test_examples_are_the_proposals_that_words_score_best(tower):
    """Recomputed from the logits of the words, with those of names that the caption does not have lowered."""
    asked, photos = vocabulary("cup|mug, table, lamp"), [small_photo(seed=seed) for seed in range(3)]
    told = [[0, 1], [2], []]
    captions = ["a mug on tables", "lamps", "nothing of this"]
    bank = learn_captions(tower, [Captioned(*pair) for pair in zip(photos, captions, strict=True)], asked)
    expected = set()
    for photo, names in zip(photos, told, strict=True):
        encoded = tower.encode([photo])[0]
        logits = np.log(np.maximum(tower.class_probabilities(encoded, asked).numpy(), 1e-30))
        logits[:, [k for k in range(logits.shape[1]) if k not in names]] -= UNMENTIONED
        chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        for k in names:
            for row in np.flatnonzero(chance[:, k] >= LEAST):
                expected.add(
                    (["cup|mug", "table", "lamp"][k], encoded.regions[row].numpy().astype(np.float16).tobytes())
                )
    got = {(bank.names[n], row.tobytes()) for n, row in zip(bank.name_of, bank.regions, strict=True)}
    assert got
    assert got <= expected
    assert {name for name, _ in got} == {name for name, _ in expected}
    assert not bank.marked.any()


def test_the_order_of_captions_does_not_matter(tower):
    pairs = [Captioned(small_photo(seed=seed), "a cup and a lamp") for seed in range(3)]
    banks = [learn_captions(tower, part, "cup, lamp, table") for part in (pairs, pairs[::-1], [*pairs, pairs[0]])]
    assert banks[0] == banks[1] == banks[2]


def test_no_caption_has_a_name(tower):
    with pytest.raises(DataError, match="none of 1 captions has one of the names"):
        learn_captions(tower, [Captioned(small_photo(), "a horse")], "cup, lamp")


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.jsonl", '{"image": "a.jpg", "caption": "a cow, grass"}\n\n{"image": "b.jpg", "caption": "two\\ncups"}\n'),
        ("c.csv", 'caption,image\n"a cow, grass",a.jpg\n"two\ncups",b.jpg\n'),
        ("c.tsv", '\ufeffimage\tcaption\na.jpg\ta cow, grass\nb.jpg\t"two\ncups"\n'),
    ],
)
def test_files_of_captions(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    found = read_captions(folder / name)
    assert [(one.photo, one.caption) for one in found] == [
        (str(folder / "a.jpg"), "a cow, grass"),
        (str(folder / "b.jpg"), "two\ncups"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.jsonl", '{"image": "a.jpg"}', 'line 1 has no "image" and "caption"'),
        ("c.jsonl", '\n{"image": "a.jpg", "caption": 3}', "line 2 has no"),
        ("c.jsonl", "[1]", "line 1 has no"),
        ("c.jsonl", "{", "line 1 has no"),
        ("c.csv", "photo,text\na.jpg,a cow\n", "line 2 has no"),
        ("c.csv", "image,caption\n", "has no captions"),
        ("c.jsonl", json.dumps({"image": "z.jpg", "caption": "a cow"}), r"z\.jpg, which is not at .*--images"),
    ],
)
def test_files_that_cannot_be_used(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_captions(folder / name)


def test_files_that_are_no_text(folder):
    (folder / "c.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="Expected UTF-8"):
        read_captions(folder / "c.csv")
    with pytest.raises(DataError, match="cannot read"):
        read_captions(folder / "missing.csv")


def test_a_model_without_a_proposer(tower, monkeypatch):
    monkeypatch.setattr(type(tower), "needs_masks", True)
    with pytest.raises(SettingError, match="captions mark nothing"):
        learn_captions(tower, [Captioned(small_photo(), "a cup")], "cup")
