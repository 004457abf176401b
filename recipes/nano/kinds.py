"""Write the lists of words that ``word_rows.py`` reads, from WordNet 3.0 (Debian's package ``wordnet-base``).

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python -m recipes.nano.kinds --wordnet wordnet/usr/share/wordnet --model MODEL

``kinds.txt`` has the words that are a kind of a name of the model by their most frequent meaning, and ``plurals.txt``
the irregular plurals. Only single words of which the model has a row, or that are frequent, are listed.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import deop
from recipes.nano.names import FOLDER

SENSES = {
    "book": 2, "food": 2, "hot dog": 2, "kite": 3, "light": 2, "microwave": 2, "mouse": 4, "playing field": 2,
    "railroad": 2, "sign": 4, "table": 2, "toilet": 2, "tv": 2, "water": 2,
}  # fmt: skip
"""Names that are not meant in WordNet's first sense, and their sense."""

LEFT_OUT = frozenset(("cow", "net", "paper", "remote", "stone wall"))
"""Names whose kinds are something else than a photo shows, or that have none."""

VISIBLE = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 20: "plant"}
"""Topics of meanings that a photo can show. Words with meanings of several of them are left out: a tiger is, first of
all, a fierce person."""

MORE = {
    "flower": "daffodil daisy iris lily orchid rose sunflower tulip violet",
    "tree": "birch cedar fir maple oak palm pine poplar spruce willow",
    "dog": "beagle boxer bulldog chihuahua collie corgi dachshund dalmatian husky labrador pinscher pomeranian poodle "
    "pug rottweiler samoyed spaniel",
    "cat": "bengal birman persian ragdoll siamese sphynx",
    "bird": "chicken crow eagle flamingo geese goose hawk hen heron ostrich owl peacock penguin pelican robin rooster "
    "seagull seagulls stork swan turkey",
    "fruit": "cherry grape grapefruit kiwi lemon lime mango melon peach pear pineapple plum raspberry strawberry",
    "food": "bread burrito cheese fries meat noodles pancake pasta rice salad soup spaghetti steak sushi taco waffle",
    "light": "chandelier streetlight",
    "bicycle": "tricycle",
    "road": "avenue crossroads driveway",
    "boat": "dinghy ferry kayak raft yacht",
    "chair": "recliner stool wheelchair",
    "person": "athlete cook driver fireman fisherman gentleman grandmother kid kids men nurse policeman rider soldier "
    "swimmer teenager toddler tourist waiter waitress women worker",
}  # fmt: skip
"""Words of which another meaning is more frequent in WordNet, or that texts for its frequencies hardly have."""


class WordNet:
    """The nouns of WordNet.

    Args:
        folder: the directory of the database.
    """

    def __init__(self, folder: Path) -> None:
        self.parents: dict[str, list[str]] = {}
        self.topic: dict[str, int] = {}
        self.senses: dict[str, list[str]] = {}
        for line in _entries(folder / "data.noun"):
            fields = line.partition("|")[0].split()
            first = 5 + 2 * int(fields[3], 16)
            pointers = fields[first : first + 4 * int(fields[first - 1])]
            self.topic[fields[0]] = int(fields[1])
            self.parents[fields[0]] = [
                target for kind, target in zip(pointers[::4], pointers[1::4], strict=True) if kind == "@"
            ]
        for line in _entries(folder / "index.noun"):
            fields = line.split()
            self.senses[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]
        self.adjectives = {line.split()[0] for line in _entries(folder / "index.adj")}
        self.frequency: dict[str, int] = {}
        self.as_verb: dict[str, int] = {}
        for line in (folder / "cntlist.rev").read_text(encoding="utf-8").splitlines():
            key, _, count = line.split()
            word, _, rest = key.partition("%")
            counts = {"1": self.frequency, "2": self.as_verb}.get(rest[0])
            if counts is not None:
                counts[word] = counts.get(word, 0) + int(count)
        self.irregular = dict(line.split()[:2] for line in (folder / "noun.exc").read_text(encoding="utf-8").splitlines())

    def nearest(self, synset: str, names: dict[str, str]) -> str | None:
        """The name of the nearest ancestor of a synset, from {synset: name}; None if it has none."""
        level = [synset]
        while level:
            for one in level:
                if one in names:
                    return names[one]
            level = [parent for one in level for parent in self.parents.get(one, [])]
        return None


def _entries(file: Path) -> Iterable[str]:
    return (line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("  "))


def main() -> None:
    """Write the two lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="directory that contains data.noun")
    parser.add_argument("--model", required=True, help="a trained model")
    args = parser.parse_args()
    net, model = WordNet(args.wordnet), deop.load(args.model, engine="torch", device="cpu")
    calibration, known = model.settings.calibration, set(model.text.words)
    names = {}
    for name in calibration.rivals:
        senses = net.senses.get(name, [])
        if senses and name not in LEFT_OUT:
            names[senses[SENSES.get(name, 1) - 1]] = name
    kinds = {name: set(words.split()) for name, words in MORE.items()}
    listed = {word for words in kinds.values() for word in words}
    trained = set(calibration.trained_names)
    for word, senses in net.senses.items():
        frequency = net.frequency.get(word, 0)
        if not (word.isascii() and word.isalpha() and len(word) > 2 and (word in known or frequency)):
            continue
        if word in trained or word in listed or word in net.adjectives or net.as_verb.get(word, 0) > frequency:
            continue  # "white" is not a person in "white horse"
        if len({net.topic[sense] for sense in senses} & VISIBLE.keys()) > 1:
            continue
        nearest = net.nearest(senses[0], names)
        if nearest is not None and (nearest != "person" or word in known):
            kinds.setdefault(nearest, set()).add(word)
    header = "# Generated by kinds.py from WordNet 3.0, Copyright 2006 by Princeton University (WordNet License)."
    lines = [f"{name}: {', '.join(sorted(words))}" for name, words in sorted(kinds.items())]
    (FOLDER / "kinds.txt").write_text("\n".join((header, "# name: words that are a kind of it", *lines)) + "\n", encoding="utf-8")
    plurals: dict[str, list[str]] = {}
    for plural, singular in net.irregular.items():
        if (
            singular in known
            and singular.isalpha()
            and plural.isalpha()
            and plural != singular
            and plural not in trained
        ):
            plurals.setdefault(singular, []).append(plural)
    lines = [f"{name}: {', '.join(sorted(words))}" for name, words in sorted(plurals.items())]
    (FOLDER / "plurals.txt").write_text("\n".join((header, "# singular: irregular plurals", *lines)) + "\n")
    print(f"{sum(map(len, kinds.values()))} kinds of {len(kinds)} names, {sum(map(len, plurals.values()))} plurals")


if __name__ == "__main__":
    main()
