# ruff: noqa: RUF001 - letters that look alike are what folding is about
"""What deop computes in Python, as JSON on standard output, for the tests of the same steps in TypeScript."""

import base64
import json
import sys
import warnings
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np

from deop.images.canvas import Canvas
from deop.images.preprocessing import Normalization, Resize, pixel_array, resize_photo, resized_shape
from deop.labelling.classification import classify, probabilities
from deop.labelling.heatmaps import score_heatmaps
from deop.labelling.maps import SemanticMap, divide_things
from deop.labelling.masks import PhotoMasks
from deop.labelling.present_names import keep_present
from deop.labelling.result import assemble
from deop.labelling.small_regions import absorb_small_regions
from deop.results.colours import vocabulary_colours
from deop.runtime.config import read_runtime_config
from deop.settings import Settings
from deop.tensors import TensorFile
from deop.text.builtin import LISTS, builtin_vocabulary
from deop.text.calibration import Calibration
from deop.text.embedding import embed_vocabulary
from deop.text.everything_else import means_everything_else
from deop.text.folding import fold, unread_letters
from deop.text.things import is_thing
from deop.text.thresholds import Thresholds
from deop.text.vocabulary import Vocabulary
from deop.text.words import WordTable
from deop.zoo import NANO

warnings.simplefilter("ignore")
generator = np.random.default_rng(0)


def array(values: Any) -> dict[str, Any]:
    """An array for JSON."""
    values = np.ascontiguousarray(values)
    return {"dtype": values.dtype.name, "shape": values.shape, "data": base64.b64encode(values.tobytes()).decode()}


TEXTS = [
    "cat", "Façade", "Straße", "crème brûlée", "smørrebrød", "ﬁsh", "ｃｕｐ", "l’île", "co‑worker", "½ pint", "٣ cats",
    "paral·lel", "Łódź", "ĳs", "Ωmega", "猫 cat ☕", "a`b", "naïve-ly", "İstanbul", "ß", "Ǆ", "x²", "dogs' bowl",
]  # fmt: skip
NAMES = [
    "wall clock", "wall-concrete", "glass of water", "green hills", "a patch of grass", "floor-other-merged", "leaves",
    "Brick Wall in the sun", "sky", "skies", "loaves", "other people", "the rest", "(none of these)", "Background",
    "void",
]  # fmt: skip
GROUPS = (("animal", ("cat", "dog", "bird")), ("pet", ("cat", "dog")), ("toy", ("kite",)), ("appliance", ("oven",)))
DESCRIPTIONS = [
    "a woman smiling", "a smiling woman", "old red bus, parked", "two slices of pizza on a plate", "of", "the", "(cat)",
    "sofas", "red xqzzt", "my cat (asleep)", "a photo of a cat that is walking", "wall-wood",
]  # fmt: skip
VOCABULARIES: list[tuple[list[str], list[str]]] = [
    (["cat", "sofa|couch", "wall"], []),
    (["cat"], []),
    (["person", "dog"], []),
    (["astronaut", "person", "background"], []),
    (["spoon", "zebra crossing", "smørrebrød"], ["road", "sky"]),
    (["cup", "other|backdrop"], ["table"]),
    (["lamp", "toy", "sky"], ["background"]),
    (["a woman smiling", "red double decker bus", "cups", "xqzzt", "justice"], []),
    (["xqzzt", "cat"], []),
    (["small animal", "pet", "Dog", "wall"], []),
    (["animal", "background"], ["toy"]),
    (["kitchen appliance", "appliances", "cups"], []),
    (["justice", "xqzzt"], ["cups"]),
]


def texts() -> dict[str, Any]:
    """Folding, things, everything else, thresholds, the built-in lists."""
    lists = {name: builtin_vocabulary(name) for name in LISTS}
    many = [*NAMES, *(name for one in lists.values() for name in one.names)]
    thresholds = ["0.3", "0.3, dog=0.6", "dog=0.6; a cat, asleep=0.1", "*=0.2, COUCH=1"]
    asked = Vocabulary.parse(["dog", "a cat, asleep", "sofa|couch"])
    return {
        "folded": [[text, fold(text), unread_letters(fold(text))] for text in TEXTS],
        "names": [[name, is_thing(name), means_everything_else(name)] for name in many],
        "lists": {
            name: [["|".join(texts), bool(flag)] for texts, flag in zip(one.synonyms, one.isthing or (), strict=True)]
            for name, one in lists.items()
        },
        "thresholds": [[text, Thresholds.parse(text).values(asked, 0.05)] for text in thresholds],
        "asked": ["|".join(texts) for texts in asked.synonyms],
    }


def colours() -> list[Any]:
    """Colours of vocabularies."""
    cases = [["sky", "grass", "dog", "spoon", "background", "lamp", "toy"], ["a red car", "police cars", "Umbrella"]]
    cases += [list(builtin_vocabulary(name).names) for name in LISTS]
    cases += [[f"thing {number}" for number in range(count)] for count in (1, 12, 30, 700)]
    return [{"names": names, "colours": vocabulary_colours(names).tolist()} for names in cases]


def words() -> dict[str, Any]:
    """The word table of nano, and vocabularies in its space."""
    config = read_runtime_config(NANO)
    tensors = TensorFile(NANO / "model.safetensors")
    table = WordTable.from_folder(NANO, tensors["text.rows"], tensors["text.rows::scale"])
    regions = generator.normal(size=(9, table.width)).astype(np.float32)
    regions /= np.linalg.norm(regions, axis=1, keepdims=True)
    vocabularies = []
    for (names, background), similarities in product(VOCABULARIES, [(1.0, -1.0), (0.7, 0.2)]):
        vocabulary = Vocabulary.parse(names, background)
        calibration = replace(
            config.settings.calibration, seen_similarity=similarities[0], far_similarity=similarities[1], groups=GROUPS
        )
        classes = embed_vocabulary(vocabulary, table, calibration)
        none = regions[0] * 3
        vocabularies.append(
            {
                "names": names,
                "background": background,
                "similarities": similarities,
                "things": vocabulary.things,
                "owner": classes.owner.tolist(),
                "rows": array(classes.rows),
                "offset": array(np.zeros(len(classes.rows), np.float32) if classes.offset is None else classes.offset),
                "probabilities": array(probabilities(classify(regions, classes, None, 100.0))),
                "with_no_object": array(probabilities(classify(regions, classes, none, 100.0))),
            }
        )
    texts = [*TEXTS, *DESCRIPTIONS, "unicorns", "hot air balloon", "teddy-bear", "x9", "!!"]
    readings = [(text, table.read(text)) for text in texts]
    read = [[text, each.units, each.unread, table.knows(text), table.head(text)] for text, each in readings]
    return {
        "read": read,
        "groups": GROUPS,
        "regions": array(regions),
        "no_object": array(regions[0] * 3),
        "vocabularies": vocabularies,
    }


def curves() -> list[Any]:
    """Calibration curves."""
    curve = ((0.1, 0.05), (0.4, 0.2), (0.9, 0.8))
    calibration = Calibration(curve=curve)
    values = [0.0, 0.05, 0.1, 0.3, 0.4, 0.77, 0.8, 0.81, 0.9, 1.0]
    return [curve, [[value, calibration.score(value), calibration.raw(value)] for value in values]]


def pictures() -> list[Any]:
    """Pillow's resize, and the pixels of the networks."""
    result = []
    for height, width, short, long in [
        (60, 90, 32, 2560),
        (31, 17, 64, 2560),
        (300, 40, 48, 128),
        (64, 64, 64, 256),
        (7, 700, 32, 320),
    ]:
        photo = generator.integers(0, 256, (height, width, 3), np.uint8)
        resize = Resize(short, long)
        resized = resize_photo(photo, resize)
        assert resized.shape[:2] == resized_shape(height, width, resize)
        pixels = pixel_array(resized, Normalization((127, 120.5, 103.53), (128, 57.12, 58)), 32)
        rule = {"shortSide": short, "longSide": long, "divisor": 32, "multiple": 32, "smallest": 32}
        result.append({"photo": array(photo), "rule": rule, "resized": array(resized), "pixels": array(pixels)})
    return result


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """Random maps that vary slowly, as masks do."""
    coarse = generator.normal(size=(count, 2 + height // 5, 2 + width // 5))
    rows, columns = np.linspace(0, coarse.shape[1] - 1.001, height), np.linspace(0, coarse.shape[2] - 1.001, width)
    y, x = rows.astype(int), columns.astype(int)
    v, u = (rows - y)[:, None], (columns - x)[None]
    top = coarse[:, y][:, :, x] * (1 - u) + coarse[:, y][:, :, x + 1] * u
    bottom = coarse[:, y + 1][:, :, x] * (1 - u) + coarse[:, y + 1][:, :, x + 1] * u
    return np.clip(9 * (top * (1 - v) + bottom * v), -9.21, 9.21).astype(np.float32)


def results() -> list[Any]:
    """Results of all modes."""
    cases: list[Any] = []
    canvases = [
        Canvas((90, 130), (64, 92), (64, 96)),
        Canvas((64, 92), (64, 92), (64, 96)),
        Canvas((40, 150), (60, 220), (64, 224)),
        Canvas((400, 30), (427, 32), (448, 32)),
    ]
    questions: list[tuple[str, str, float | str]] = [
        ("cat, wall, sky", "", 0.05),
        ("cat", "", 0.4),
        ("cat, dog, background", "", "0.2, dog=0.5"),
        ("cat, floor", "dog", 0.1),
        (", ".join(f"cat {number}, sky {number}" for number in range(30)), "", 0.0),
    ]
    for canvas in canvases:
        for names, background, threshold in questions:
            vocabulary = Vocabulary.parse(names, background)
            count = len(vocabulary.names)
            logits = smooth(12, canvas.padded[0] // 4, canvas.padded[1] // 4)
            scores = generator.normal(size=(12, count + 1)) * 3
            scores = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            scores = scores.astype(np.float32)
            curve = ((0.0, 0.0), (0.5, 0.3), (1.0, 0.9)) if canvas.photo[0] == 90 else ()
            settings = Settings(
                calibration=Calibration(curve=curve),
                claim=0.05,
                smallest_region=0.002,
                smallest_thing=0.01,
                thing_score=0.3,
            )
            masks = PhotoMasks(logits)
            photo: Any = SimpleNamespace(
                photo=np.zeros((*canvas.photo, 3), np.uint8), canvas=canvas, masks=masks, source=None,
                masks_are_instances=False,
            )  # fmt: skip
            limits = Thresholds.parse(threshold).values(vocabulary, 0.05)
            answers = {}
            for mode in ("semantic", "panoptic", "instance"):
                if mode == "instance" and not any(vocabulary.things):
                    continue
                answer = assemble(photo, scores, vocabulary, settings, mode, limits, {})
                summary = answer.summary()
                answers[mode] = {
                    "labels": array(answer.label_map),
                    "segment_map": array(answer.segment_map),
                    "segments": [[segment.class_id, segment.score, segment.share] for segment in answer.segments],
                    "classes": [[entry["share"], entry["score"]] for entry in summary["classes"]],
                }
            # The page computes heatmaps at the size of the networks' input.
            flat = Canvas(canvas.resized, canvas.resized, canvas.padded)
            cases.append(
                {
                    "canvas": [canvas.photo, canvas.resized, canvas.padded],
                    "names": list(vocabulary.names),
                    "background": list(vocabulary.background),
                    "things": vocabulary.things,
                    "everything_else": vocabulary.everything_else,
                    "thresholds": limits,
                    "curve": curve,
                    "logits": array(logits),
                    "probabilities": array(scores),
                    "answers": answers,
                    "heatmap": array(score_heatmaps(scores, masks, flat, [0], settings.calibration)[0]),
                    "present": array(keep_present(scores, masks, canvas, claim=0.05)),
                }
            )
    return cases


def maps() -> list[Any]:
    """Small label maps: regions that are absorbed, and things."""
    cases = []
    for height, width, count in [(1, 1, 2), (1, 9, 2), (9, 1, 3), (12, 17, 3), (30, 23, 2), (25, 25, 5)] * 4:
        labels = generator.integers(-1, count, (height, width)).astype(np.int32)
        labels = labels.repeat(generator.integers(1, 4), 0).repeat(generator.integers(1, 4), 1)
        confidence = generator.random(labels.shape).astype(np.float32)
        smallest = float(generator.integers(1, 30))
        things = generator.random(count) < 0.5
        pieces = divide_things(SemanticMap(labels, confidence), things, smallest_thing=0.02)
        cases.append(
            {
                "labels": array(labels),
                "confidence": array(confidence),
                "smallest": smallest,
                "absorbed": array(absorb_small_regions(labels, smallest)),
                "things": things.tolist(),
                "segments": array(pieces.segments),
                "pieces": [[piece.class_id, piece.score] for piece in pieces.pieces],
            }
        )
    return cases


if __name__ == "__main__":
    parts = {
        "texts": texts,
        "colours": colours,
        "words": words,
        "curves": curves,
        "pictures": pictures,
        "results": results,
        "maps": maps,
    }
    json.dump({name: part() for name, part in parts.items()}, sys.stdout)
