"""Data sets shrunk into a file each, to be taken to a machine that is lent for some minutes.

    python recipes/nano/packed.py --data ../shared/data --out DATA [--unlabelled 200]

A recipe whose ``data`` is such a folder trains as from the folders themselves, on smaller photos. ``words.npz`` beside
them is what the recipe's ``words`` takes: no more of the table than training needs.
"""

import argparse
import io
import json
import lzma
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from names import HERE, read_lists
from PIL import Image
from sets import PLACES, first
from torch import Tensor

import data
from data import Example, Examples
from deop.data.check import checked_folder
from deop.data.folder import open_folder
from deop.encoders.nano_text import NanoText


@dataclass(frozen=True)
class Shrink:
    """How small photos become: the longer side in pixels, and the quality of WebP."""

    side: int
    quality: int

    def photo(self, photo: np.ndarray) -> tuple[bytes, tuple[int, int]]:
        """The encoded photo, and its height and width."""
        picture = Image.fromarray(photo)
        factor = min(1.0, self.side / max(picture.size))
        if factor < 1:
            size = (round(picture.width * factor), round(picture.height * factor))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=self.quality, method=6)
        return file.getvalue(), (picture.height, picture.width)


SHRINK = {
    "coco": Shrink(576, 65),
    "msrc": Shrink(320, 55),
    "pets": Shrink(288, 58),
    "things": Shrink(544, 60),
    "unlabelled": Shrink(320, 50),
    "bsds": Shrink(400, 58),
    "camvid": Shrink(480, 62),
    "mosaics": Shrink(160, 50),
}
"""Those that most is learned from are left largest: all of them together make 30 MB."""


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at another size."""
    rows, columns = ((np.arange(n) + 0.5) * old / n for n, old in zip(size, labels.shape, strict=True))
    return labels[rows.astype(int)[:, None], columns.astype(int)]


def write(file: Path, examples: Examples, shrink: Shrink) -> None:
    """Write a data set."""
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(shrink.photo, (example.photo for example in examples.photos)))
    photos, sizes = zip(*encoded, strict=True)

    def joined(maps: Sequence[np.ndarray]) -> np.ndarray:
        small = b"".join(nearest(one, size).tobytes() for one, size in zip(maps, sizes, strict=True))
        return np.frombuffer(lzma.compress(small, preset=6), np.uint8)

    np.savez(
        file,
        photos=np.frombuffer(b"".join(photos), np.uint8),
        lengths=np.array([len(photo) for photo in photos]),
        sizes=np.array(sizes),
        classes=joined([example.classes for example in examples.photos]),
        segments=joined([example.segments for example in examples.photos]),
        names=np.array(json.dumps(examples.names)),
        things=examples.things,
    )


def decode(photos: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The encoded photos that lie one after the other."""
    ends = np.cumsum(lengths)

    def one(start: int, end: int) -> np.ndarray:
        with Image.open(io.BytesIO(photos[start:end].tobytes())) as picture:
            return np.asarray(picture.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, ends - lengths, ends))


def read(file: Path) -> Examples:
    """Read a data set that ``write`` has written."""
    with np.load(file) as stored:
        sizes = stored["sizes"]
        photos = decode(stored["photos"], stored["lengths"])
        areas = sizes.prod(1)

        def parted(key: str) -> list[np.ndarray]:
            whole = np.frombuffer(lzma.decompress(stored[key].tobytes()), np.uint8)
            parts = np.split(whole, np.cumsum(areas)[:-1])
            return [part.reshape(tuple(size)) for part, size in zip(parts, sizes.tolist(), strict=True)]

        found = map(Example, photos, parted("classes"), parted("segments"))
        return Examples(tuple(found), tuple(json.loads(str(stored["names"]))), stored["things"])


def read_set(root: Path, name: str) -> Examples:
    """All training photos of a data set, from its file or its folder."""
    place = PLACES[name]
    if (root / f"{place.folder}.npz").exists():
        return read(root / f"{place.folder}.npz")
    if not place.splits:
        return data.read_unlabelled(root / place.folder)
    parts = [
        data.read_folder(checked_folder(open_folder(root / place.folder, split, skip_unpaired=True))) for split in place.splits
    ]
    return Examples(tuple(photo for part in parts for photo in part.photos), parts[0].names, parts[0].things)


def read_imagenet(root: Path) -> tuple[Tensor, list[str]]:
    """One photo of each of ImageNet's classes, and their names, as ``data.load_imagenet``."""
    file = root / "imagenet-mini.npz"
    if not file.exists():
        return data.load_imagenet(root / "imagenet-mini")
    with np.load(file) as stored:
        photos = np.stack(decode(stored["photos"], stored["lengths"]))
        return torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous(), json.loads(str(stored["names"]))


def write_words(file: Path, imagenet: Sequence[str]) -> None:
    """Those rows of the table of words that training looks up, each text as a phrase of its own."""
    from deop import load

    text = load("nano").text
    assert isinstance(text, NanoText)
    aliases = read_lists(HERE / "aliases.txt")
    classes = [part for place in PLACES.values() for part in names_of(file.parent / f"{place.folder}.npz")]
    texts = dict.fromkeys([*aliases, *(one for more in aliases.values() for one in more), *classes])
    texts.update(dict.fromkeys(name.lower() for name in imagenet))
    phrases = {" ".join(re.findall(r"[a-z0-9'-]+", one.lower())): one for one in texts}
    rows = text.embed(list(phrases.values()))[:, :-1]
    np.savez_compressed(file, rows=rows.numpy().astype(np.float16), words=np.array(list(phrases)))


def names_of(file: Path) -> list[str]:
    """The names in a packed set, without synonyms."""
    with np.load(file) as stored:
        return [first(name) for name in json.loads(str(stored["names"]))]


def main() -> None:
    """Write all sets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--unlabelled", type=int, default=200, help="photos without labels")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, place in PLACES.items():
        examples = read_set(args.data, name)
        if name == "unlabelled":
            examples = Examples(examples.photos[: args.unlabelled], (), examples.things)
        if len(examples):
            file = args.out / f"{place.folder}.npz"
            write(file, examples, SHRINK[name])
            print(f"{name}: {len(examples)} photos, {file.stat().st_size / 1e6:.2f} MB", flush=True)
    photos, names = data.load_imagenet(args.data / "imagenet-mini")
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(SHRINK["mosaics"].photo, photos.permute(0, 2, 3, 1).numpy()))
    np.savez(
        args.out / "imagenet-mini.npz",
        photos=np.frombuffer(b"".join(photo for photo, _ in encoded), np.uint8),
        lengths=np.array([len(photo) for photo, _ in encoded]),
        names=np.array(json.dumps(names)),
    )
    print(f"imagenet-mini: {sum(len(photo) for photo, _ in encoded) / 1e6:.2f} MB")
    write_words(args.out / "words.npz", names)
    print(f"words: {(args.out / 'words.npz').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
