"""Examples and banks as deop computes them in Python, for the tests of the same steps in TypeScript.

python python_banks.py FOLDER writes bank files there, and values as JSON to standard output;
python python_banks.py --check FILE ... reads bank files that TypeScript wrote.
"""

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from deop.bank import Box, Click
from deop.bank.bank import Bank, load_bank
from deop.bank.learning import _matching
from deop.bank.marks import masks_of
from deop.bank.scoring import prepare
from deop.bank.space import Space, _drawn
from deop.images.canvas import Canvas
from deop.images.masks import cell_logits
from deop.labelling.masks import PhotoMasks
from deop.text.vocabulary import Vocabulary

WIDTH = 24
generator = np.random.default_rng(3)


def array(values: Any) -> dict[str, Any]:
    """An array for JSON."""
    values = np.ascontiguousarray(values)
    return {"dtype": values.dtype.name, "shape": values.shape, "data": base64.b64encode(values.tobytes()).decode()}


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def space() -> Space:
    """A model that does not exist."""
    encoding = {
        "classifier": "one-pass",
        "severance": "self",
        "severed_layers": [-2, -1],
        "residual": 0.25,
        "anchors": "pool",
    }
    return Space(
        unit(generator.normal(size=(3, WIDTH))),
        "float32",
        encoding | {"anchors": "pool"},
        "small",
        "CC0",
        "a note; drawn",
    )


def bank_of(regions: np.ndarray, names: list[str], photos: np.ndarray, model: Space) -> Bank:
    """A bank of regions (R, C), each with its name and the number of its photo."""
    known, seen = sorted(set(names)), [f"{photo:032x}" for photo in sorted(set(photos.tolist()))]
    return Bank(
        model,
        tuple(known),
        tuple(seen),
        regions.astype(np.float16),
        np.array([known.index(name) for name in names], np.int32),
        np.array([seen.index(f"{photo:032x}") for photo in photos.tolist()], np.int32),
        generator.random(len(names)) < 0.3,
        generator.random(len(names)).astype(np.float32),
    )


def parts(bank: Bank) -> dict[str, Any]:
    """Everything in a bank."""
    return {
        "width": bank.regions.shape[1],
        "names": bank.names,
        "photos": bank.photos,
        "regions": array(bank.regions.view(np.uint16).astype(np.int32)),
        "nameOf": array(bank.name_of),
        "photoOf": array(bank.photo_of),
        "marked": array(bank.marked.astype(np.uint8)),
        "area": array(bank.area),
    }


CASES: list[tuple[list[str], int, str, str, list[int]]] = [
    # names of the directions in the bank, photos, names asked, background, columns without a word
    (["cat", "dog|hound", ""], 4, "cat, hound, wall", "", []),
    (["cat", "dog", "bird"], 5, "cat, dog, bird", "", []),
    (["cat", ""], 1, "cat, wall", "", []),
    (["cat", "-cat", "bird", "Sofa"], 4, "cat, bird, wall, couch|sofa", "road", []),
    (["zz1", "-wall", "road", ""], 3, "zz1, wall, sky", "road", [0]),
    (["zz1", "zz2"], 2, "zz1, zz2", "", [0, 1]),
    (["cat", "dog", "bird", "fish", "horse", ""], 90, "cat, dog, bird, fish", "", []),
]


def scores() -> list[Any]:
    """Logits of regions by words and examples."""
    cases = []
    for names, photos, asked, background, wordless in CASES:
        centres = unit(generator.normal(size=(len(names), WIDTH)))
        which = np.tile(np.arange(len(names)), photos * 3)
        photo = np.repeat(np.arange(photos), len(names) * 3)
        regions = unit(centres[which] + 0.25 * unit(generator.normal(size=(len(which), WIDTH))))
        bank = bank_of(regions, [names[k] for k in which], photo, space())
        vocabulary = Vocabulary.parse(asked, background.split(",") if background else ())
        count = len(vocabulary.names)
        rows = unit(generator.normal(size=(count + 1, WIDTH)))
        missing = [*wordless, *([] if background else [count])]

        def score(regions: np.ndarray, rows: np.ndarray = rows, missing: list[int] = missing) -> np.ndarray:
            logits = 20 * regions.astype(np.float32) @ rows.T
            logits[:, missing] = -np.inf
            return logits

        near = unit(centres + 0.2 * unit(generator.normal(size=centres.shape)))
        asked_regions = np.concatenate([near, unit(generator.normal(size=(7, WIDTH))), regions[:2]])
        answers = []
        for weight in (0.2, 0.5, 0.8, 1.0):
            examples = prepare(bank, vocabulary, score, weight)
            assert examples is not None
            fitted = examples.weights
            answers.append(
                {
                    "weight": weight,
                    "weights": [
                        fitted.words, fitted.examples, fitted.odds_words, fitted.odds_similar, fitted.odds_constant,
                        fitted.similar,
                    ],
                    "logits": array(examples.adjust(score(asked_regions), asked_regions)),
                }
            )  # fmt: skip
        cases.append(
            {
                "bank": parts(bank),
                "asked": ["|".join(texts) for texts in vocabulary.synonyms],
                "background": list(vocabulary.background),
                "rows": array(rows),
                "missing": missing,
                "regions": array(asked_regions),
                "answers": answers,
            }
        )
    return cases


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """Random maps that vary slowly, as masks do; most of each is empty."""
    y, x = np.mgrid[0:height, 0:width]
    centres = generator.random((count, 2)) * [height, width]
    radius = generator.random(count) * min(height, width) * 0.4 + 2
    distance = np.hypot(y[None] - centres[:, 0, None, None], (x[None] - centres[:, 1, None, None]) * 0.8)
    return np.clip(3 * (radius[:, None, None] - distance), -9.21, 9.21).astype(np.float32)


def learned() -> list[Any]:
    """Marks of photos, and what is learned of them."""
    cases = []
    for canvas in (
        Canvas((90, 130), (64, 92), (64, 96)),
        Canvas((64, 92), (64, 92), (64, 96)),
        Canvas((40, 150), (60, 220), (64, 224)),
        Canvas((300, 60), (320, 64), (320, 64)),
    ):
        height, width = canvas.photo
        logits = smooth(20, canvas.padded[0] // 4, canvas.padded[1] // 4)
        masks = PhotoMasks(logits)
        marks = [
            Click(width * 0.3, height * 0.4),
            Click(width - 1, height - 1),
            Box(width * 0.1, height * 0.2, width * 0.7, height * 0.9),
            Box(-5, 0.5, width * 0.5, height + 7),
            Box(2, 2, 5, 5),
        ]
        found = masks_of(marks, canvas.photo, masks, canvas)
        regions = unit(generator.normal(size=(20, WIDTH)))
        own = SimpleNamespace(canvas=canvas, masks=masks, regions=regions)
        names = ["cat", "-dog", "cat", "sofa|couch", "dog"]
        given = unit(generator.normal(size=(len(marks), WIDTH)))
        groups = [(given, names, True, found.mean((1, 2)).tolist()), *_matching(own, found, names)]
        rows = [(name, flag, area) for _, texts, flag, areas in groups for name, area in zip(texts, areas, strict=True)]
        known = sorted({name for name, *_ in rows})
        bank = Bank(
            space(),
            tuple(known),
            ("0" * 32,),
            np.concatenate([part for part, *_ in groups]).astype(np.float16),
            np.array([known.index(name) for name, *_ in rows], np.int32),
            np.zeros(len(rows), np.int32),
            np.array([flag for _, flag, _ in rows], bool),
            np.array([area for *_, area in rows], np.float32),
        )
        cases.append(
            {
                "canvas": [canvas.photo, canvas.resized, canvas.padded],
                "logits": array(logits),
                "regions": array(regions),
                "given": array(given),
                "names": names,
                "marks": [vars(mark) for mark in marks],
                "masks": array(found.astype(np.uint8)),
                "cells": array(cell_logits(found, canvas.resized, canvas.padded)),
                "bank": parts(bank),
            }
        )
    return cases


def merged(folder: Path) -> dict[str, Any]:
    """Banks whose order and repetitions must not matter, also as files."""
    model = space()
    names = ["Straße", "cup|mug", "-cup", "", "猫", "𐐷𐐲", "zebra"]
    regions = unit(generator.normal(size=(60, WIDTH)))
    regions[1] = regions[0]
    texts = [names[k] for k in generator.integers(0, len(names), 60)]
    texts[0], texts[1] = "", "zebra"
    photos = generator.integers(0, 4, 60)
    photos[0] = photos[1]
    whole = bank_of(regions, texts, photos, model)
    halves = [whole.kept(np.arange(40)), whole.kept(np.arange(25, len(whole)))]
    for number, bank in enumerate((whole, *halves)):
        bank.save(folder / f"{number}.safetensors")
    joined = Bank.merged(halves)
    return {"parts": [parts(bank) for bank in halves], "whole": parts(joined), "digest": load_bank(folder / "0").digest}


def halves() -> dict[str, Any]:
    """Numbers of 16 bits."""
    values = np.concatenate(
        [
            generator.normal(size=500) * 10.0 ** generator.integers(-9, 6, 500),
            [0, -0.0, 1, 65504, 65519.9, 65520, -1e9, 6e-8, 2.98e-8, 2.99e-8, 6.1e-5, 1 + 2**-11, 1 + 3 * 2**-11],
        ]
    ).astype(np.float32)
    with np.errstate(over="ignore"):
        bits = values.astype(np.float16).view(np.uint16)
    return {"values": array(values), "bits": array(bits.astype(np.int32))}


def drawn() -> dict[str, Any]:
    """The picture by which models are recognised."""
    picture, masks = _drawn()
    return {"picture": array(picture), "masks": array(masks.astype(np.uint8))}


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        banks = [load_bank(path) for path in sys.argv[2:]]
        told = [[bank.digest, bank.names, bank.space.model, bank.space.note, bank.space.encoding] for bank in banks]
        json.dump(told, sys.stdout)
    else:
        folder = Path(sys.argv[1])
        values = {"scores": scores(), "learned": learned(), "merged": merged(folder)}
        values |= {"halves": halves(), "drawn": drawn()}
        json.dump(values, sys.stdout)
