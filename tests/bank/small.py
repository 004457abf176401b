"""Small banks and models for the tests of banks."""

import hashlib
import json

import numpy as np

from deop.bank.bank import Bank
from deop.bank.space import Space
from deop.text.vocabulary import Vocabulary

WIDTH = 24


def unit(values):
    """Rows of length 1, as float32."""
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def space(**values):
    probe = unit(np.random.default_rng(7).normal(size=(3, WIDTH)))
    return Space(**{"probe": probe, "precision": "float32", "model": "small", "encoding": {"anchors": "pool"}} | values)


def bank_of(regions, names, photos=None, **values):
    """A bank of regions (R, C), each with its name and the number of its photo."""
    photos = list(range(len(names))) if photos is None else list(photos)
    known, seen = sorted(set(names)), sorted({f"{photo:032x}" for photo in photos})
    return Bank(
        space(**values),
        tuple(known),
        tuple(seen),
        np.asarray(regions, np.float16),
        np.array([known.index(name) for name in names], np.int32),
        np.array([seen.index(f"{photo:032x}") for photo in photos], np.int32),
        np.zeros(len(names), bool),
        np.full(len(names), 0.1, np.float32),
    )


def clusters(count, photos=6, seed=0, spread=0.25):
    """Regions (R, C) around ``count`` random directions, the index of each one's direction, and its photo."""
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(count, WIDTH)))
    which = np.tile(np.arange(count), photos)
    photo = np.repeat(np.arange(photos), count)
    return unit(centres[which] + spread * unit(random.normal(size=(len(which), WIDTH)))), which, photo


def vocabulary(text, **values):
    parsed = Vocabulary.parse(text, values.pop("background", ()))
    return Vocabulary(parsed.synonyms, parsed.background, **values)


class HashedWords:
    """A text encoder of random directions, which reads no word with a digit."""

    width = WIDTH
    identity = "hashed-words"
    context_length = 99
    uses_templates = False

    def count_tokens(self, text):
        return sum(not any(letter.isdigit() for letter in word) for word in text.split())

    def unread(self, text):
        return "".join(word for word in text.split() if any(letter.isdigit() for letter in word))

    def embed(self, texts):
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return np.stack([np.random.default_rng(seed).normal(size=WIDTH) for seed in seeds]).astype(np.float32)


def huge(bank):
    """A file whose header promises ten million regions, without any, and the bytes that they would have."""
    data = bank.to_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    count, width = 10_000_000, bank.regions.shape[1]
    offset = 0
    for key, size, shape in (
        ("probe", 4 * 3 * width, [3, width]), ("area", 4 * count, [count]), ("name_of", 4 * count, [count]),
        ("photo_of", 4 * count, [count]), ("regions", 2 * count * width, [count, width]), ("marked", count, [count]),
    ):  # fmt: skip
        header[key] |= {"shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text, offset
