"""Give the word table of a model better vectors for plurals and kinds of the names, and words that sum names up.

    python -m recipes.nano.word_rows MODEL OUT

- "poodle" is a dog: a word in ``kinds.txt`` moves towards the name that it is a kind of, or is added.
- "animal" is a cat, a dog and others: the words of ``groups.txt`` become part of the calibration.
- "cups" are like a cup: a plural moves towards its singular, and the word pieces "##s" and "##es" hardly count.

Names and aliases of the training keep their vectors. Nothing else of the model changes;
pack it, and export its graphs, afterwards.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import deop
from deop.encoders.nano_text import NanoText
from deop.errors import SettingError
from deop.text.words import WordTable
from recipes.nano.names import FOLDER, read_lists

OWN_SHARE = 0.4
"""Share of a word's own vector where it is a kind of a name; chosen on pets by breed and on COCO (NOTES.md)."""
PLURAL_SHARE = 0.15
"""Share of a plural's own vector."""
SAME_WORD = 0.5
"""Least cosine similarity of a plural and its singular: "glasses" and "news" mean something else."""
ENDING_WEIGHT = 0.1
"""Factor of the word pieces for plurals."""

SEEN_SIMILARITY = 0.8
FAR_SIMILARITY = 0.25
"""Settings of the calibration, for the vectors that this module makes; chosen on photos kept apart (NOTES.md)."""
THING_SCORE = 0.2
"""``Settings.thing_score``, chosen on the same photos."""


class Rows:
    """A table of words that grows.

    Args:
        words: the word, word piece or phrase of each row.
        rows: (entries, D) float32.
    """

    def __init__(self, words: Sequence[str], rows: np.ndarray) -> None:
        self.table = WordTable(words, rows)
        self.words, self.rows = list(words), list(rows)
        self.index = {word: place for place, word in enumerate(self.words)}
        self.length = float(np.median(np.linalg.norm(rows, axis=1)))

    def direction(self, text: str) -> np.ndarray:
        """The unit vector of a text; zeros if nothing of it is read."""
        if text in self.index:
            return _unit(self.rows[self.index[text]])
        if not self.table.pieces(text):
            return np.zeros_like(self.rows[0])
        return _unit(self.table.means([text], self.table.width)[0, :-1])

    def put(self, word: str, vector: np.ndarray) -> None:
        """Give a word the direction of a vector. It keeps its length, which says how much it counts in a text."""
        place = self.index.setdefault(word, len(self.words))
        if place == len(self.words):
            self.words.append(word)
            self.rows.append(_unit(vector) * self.length)
        else:
            self.rows[place] = _unit(vector) * np.linalg.norm(self.rows[place])


def improve(
    words: Sequence[str],
    rows: np.ndarray,
    names: Sequence[str],
    trained: Sequence[str],
    kinds: Mapping[str, Sequence[str]],
    irregular: Mapping[str, Sequence[str]],
) -> tuple[list[str], np.ndarray, list[str]]:
    """Change and add rows, as described above.

    Args:
        words: the word, word piece or phrase of each row.
        rows: (entries, D) float32.
        names: the names of the training, without aliases.
        trained: these and their aliases.
        kinds: words that are a kind of a name; lists of names that training lacked are left out.
        irregular: the irregular plurals of words.

    Returns:
        The words, rows (entries, D) float32, and the plurals of ``trained``.
    """
    table = Rows(words, rows)
    for name in trained:  # training took the mean of the vectors of names that have no row
        if name.casefold() not in table.index:
            table.put(name.casefold(), np.asarray(rows)[table.table.pieces(name)].mean(0))
    kept = {name.casefold() for name in trained}
    for name, members in kinds.items():
        if name in names:
            for word in members:
                if word not in kept:
                    table.put(word, OWN_SHARE * table.direction(word) + (1 - OWN_SHARE) * table.direction(name))
    singular_of = {plural: singular for singular, plurals in irregular.items() for plural in plurals}
    # Word pieces read other plurals: "sofas" is "sofa" and "##s". The table lacks "##ies".
    listed = [word for word in (*trained, *(word for members in kinds.values() for word in members)) if word.isalpha()]
    added = [f"{word[:-1]}ies" for word in listed if word.endswith("y") and word[-2] not in "aeiou"]
    added += [plural for plural, singular in singular_of.items() if singular in listed]
    seen: list[str] = []
    for plural in dict.fromkeys((*table.words, *added)):
        singular = singular_of.get(plural) or next((word for word in singulars(plural) if word in table.index), "")
        if singular not in table.index or plural in kept:
            continue
        own, meant = table.direction(plural), table.direction(singular)
        if plural not in table.index:
            table.put(plural, meant + 1e-3 * own)  # not equal, since equal vectors are reported
        elif own @ meant >= SAME_WORD:
            table.put(plural, PLURAL_SHARE * own + (1 - PLURAL_SHARE) * meant)
        else:
            continue
        if singular in kept:
            seen.append(plural)
    for ending in ("##s", "##es"):
        if ending in table.index:
            table.rows[table.index[ending]] = table.rows[table.index[ending]] * ENDING_WEIGHT
    return table.words, np.stack(table.rows), seen


def singulars(word: str) -> Iterator[str]:
    """What a word is the regular plural of, if it is one.

    >>> list(singulars("puppies")), list(singulars("knives")), list(singulars("grass"))
    (['puppie', 'puppy'], ['knive', 'knife', 'knif'], [])
    """
    if len(word) < 4 or not word.isalpha() or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return
    yield word[:-1]
    if word.endswith("ies"):
        yield f"{word[:-3]}y"
    elif word.endswith("ves"):
        yield f"{word[:-3]}fe"
        yield f"{word[:-3]}f"
    elif word.endswith("es"):
        yield word[:-2]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector), np.float32(1e-12))


def improve_model(model: deop.DeOP) -> None:
    """Improve the table of a model in place, and set what its calibration then takes for seen, and ``thing_score``.

    Raises:
        SettingError: a model whose table has been improved already.
    """
    calibration = model.settings.calibration
    if calibration.seen_similarity == SEEN_SIMILARITY:
        raise SettingError("the word table of this model has been improved already: start from the trained model")
    kinds, groups, irregular = (read_lists(FOLDER / f"{name}.txt") for name in ("kinds", "groups", "plurals"))
    rows = model.text.rows.float().numpy()
    words, rows, plurals = improve(
        model.text.words, rows, calibration.rivals, calibration.trained_names, kinds, irregular
    )
    groups = {word: [name for name in names if name in calibration.rivals] for word, names in groups.items()}
    groups |= {f"{word}s": names for word, names in groups.items() if word[-1] not in "sy" or word == "toy"}
    config = replace(model.text.config, entries=len(words))
    model.text = NanoText(config, words)
    model.text.rows = torch.from_numpy(rows)
    trained = (*calibration.trained_names, *plurals)
    calibration = replace(
        calibration,
        trained_names=trained,
        seen_similarity=SEEN_SIMILARITY,
        far_similarity=FAR_SIMILARITY,
        groups=tuple((word, tuple(names)) for word, names in groups.items() if names),
    )
    model.settings = replace(model.settings, calibration=calibration, thing_score=THING_SCORE)


def main() -> None:
    """Write a packed model with the improved table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the trained model, packed or not")
    parser.add_argument("out", type=Path, help="the model folder to write")
    args = parser.parse_args()
    model = deop.load(args.model, engine="torch", device="cpu")
    before = len(model.text.words)
    improve_model(model)
    folder = model.save_pretrained(args.out, packed=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"wrote {folder}, {len(model.text.words) - before} words more, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
