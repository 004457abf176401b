"""Compress the data sets into one small file each, for a GPU machine that the directories would not fit on.

    python -m recipes.nano.packed --data ../shared/data --out PACKED [--unlabelled 200]

A recipe whose ``data`` is PACKED trains as from the directories, but on smaller photos. PACKED/words.npz is a word
table for the recipe's ``words``, with only the rows that training needs.
"""

import argparse
import io
import json
import lzma
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deop.data.check import checked_folder
from deop.data.folder import open_folder
from deop.data.labelled import LabelledData
from deop.encoders.nano_text import NanoText
from deop.errors import DataError
from recipes.nano import data
from recipes.nano.data import Example, Examples
from recipes.nano.names import FOLDER, read_lists, without_synonyms
from recipes.nano.sets import DATA_SETS


@dataclass(frozen=True)
class Compression:
    """Maximum length of the longer side in pixels, and quality of WebP."""

    side: int
    quality: int

    def encode(self, photo: np.ndarray) -> tuple[bytes, tuple[int, int]]:
        """Compress a photo (H, W, 3) uint8; returns the file, and its height and width."""
        image = Image.fromarray(photo)
        factor = min(1.0, self.side / max(image.size))
        if factor < 1:
            size = (round(image.width * factor), round(image.height * factor))
            image = image.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=self.quality, method=6)
        return file.getvalue(), (image.height, image.width)


COMPRESSION = {
    "coco": Compression(576, 65),
    "msrc": Compression(320, 55),
    "pets": Compression(288, 58),
    "things": Compression(544, 60),
    "unlabelled": Compression(320, 50),
    "bsds": Compression(400, 58),
    "camvid": Compression(480, 62),
    "mosaics": Compression(160, 50),
}
"""The most important sets have the largest photos; all together take 30 MB."""


def resize_nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels (H, W) to another height and width."""
    rows, columns = ((np.arange(n) + 0.5) * old / n for n, old in zip(size, labels.shape, strict=True))
    return labels[rows.astype(int)[:, None], columns.astype(int)]


def write_examples(file: Path, examples: Examples, compression: Compression) -> None:
    """Write a data set."""
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(compression.encode, (example.photo for example in examples.photos)))
    photos, sizes = zip(*encoded, strict=True)

    def compress(maps: Sequence[np.ndarray]) -> np.ndarray:
        resized = b"".join(resize_nearest(labels, size).tobytes() for labels, size in zip(maps, sizes, strict=True))
        return np.frombuffer(lzma.compress(resized, preset=6), np.uint8)

    np.savez(
        file,
        photos=np.frombuffer(b"".join(photos), np.uint8),
        lengths=np.array([len(photo) for photo in photos]),
        sizes=np.array(sizes),
        classes=compress([example.classes for example in examples.photos]),
        segments=compress([example.segments for example in examples.photos]),
        names=np.array(json.dumps(examples.names)),
        things=examples.things,
    )


def decode_photos(files: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Decode image files that are stored one after the other.

    Args:
        files: uint8, the bytes of all files.
        lengths: the length of each file.
    """
    ends = np.cumsum(lengths)

    def decode(start: int, end: int) -> np.ndarray:
        with Image.open(io.BytesIO(files[start:end].tobytes())) as image:
            return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(decode, ends - lengths, ends))


def read_examples(file: Path) -> Examples:
    """Read a data set that ``write_examples`` has written."""
    with np.load(file) as stored:
        sizes = stored["sizes"]
        photos = decode_photos(stored["photos"], stored["lengths"])
        areas = sizes.prod(1)

        def decompress(key: str) -> list[np.ndarray]:
            pixels = np.frombuffer(lzma.decompress(stored[key].tobytes()), np.uint8)
            maps = np.split(pixels, np.cumsum(areas)[:-1])
            return [labels.reshape(tuple(size)) for labels, size in zip(maps, sizes.tolist(), strict=True)]

        examples = map(Example, photos, decompress("classes"), decompress("segments"))
        return Examples(tuple(examples), tuple(json.loads(str(stored["names"]))), stored["things"])


def read_set(root: Path, source: str, licenses: Collection[int] = ()) -> Examples:
    """Read the training photos of a data set, from its compressed file if there is one, or else its directory.

    Args:
        root: directory of the data sets.
        source: key of ``DATA_SETS``.
        licenses: COCO's numbers of the licenses that a photo may have, where each photo has its own; empty: any.

    Raises:
        DataError: licenses are given, but a compressed file does not name those of its photos.
    """
    data_set = DATA_SETS[source]
    if (root / f"{data_set.folder}.npz").exists():
        if licenses:
            raise DataError(f"{root / data_set.folder}.npz does not name the licenses of its photos: use the directory")
        return read_examples(root / f"{data_set.folder}.npz")
    if not data_set.splits:
        return data.read_unlabelled(root / data_set.folder)
    folders = [open_folder(root / data_set.folder, split, skip_unpaired=True) for split in data_set.splits]
    if licenses and data_set.terms == "each photo":
        folders = [licensed_part(folder, licenses) for folder in folders]
    parts = [data.read_folder(checked_folder(folder)) for folder in folders]
    return Examples(tuple(photo for part in parts for photo in part.photos), parts[0].names, parts[0].things)


def licensed_part(folder: LabelledData, licenses: Collection[int]) -> LabelledData:
    """The photos of a folder whose license, in the folder's panoptic.json, is one of these."""
    listing = json.loads((Path(folder.root) / "panoptic.json").read_text(encoding="utf-8"))
    allowed = {
        Path(entry["file_name"]).stem
        for entry in (*listing["images"], *listing["annotations"])
        if entry.get("license") in licenses
    }
    return replace(folder, pairs=tuple(pair for pair in folder.pairs if pair.key in allowed))


def read_imagenet(root: Path) -> tuple[Tensor, list[str]]:
    """Read one photo per ImageNet class and the class names, as ``data.load_imagenet``."""
    file = root / "imagenet-mini.npz"
    if not file.exists():
        return data.load_imagenet(root / "imagenet-mini")
    with np.load(file) as stored:
        photos = np.stack(decode_photos(stored["photos"], stored["lengths"]))
        return torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous(), json.loads(str(stored["names"]))


def write_words(file: Path, imagenet: Sequence[str]) -> None:
    """Write the embeddings of all names and aliases of the recipe.

    Args:
        file: the file to write, beside the compressed data sets.
        imagenet: the names of ImageNet's classes.
    """
    from deop import load

    text = load("nano", engine="torch").text
    assert isinstance(text, NanoText)
    aliases = read_lists(FOLDER / "aliases.txt")
    classes = [
        name for data_set in DATA_SETS.values() for name in names_in(file.parent / f"{data_set.folder}.npz")
    ]  # fmt: skip
    texts = dict.fromkeys([*aliases, *(alias for group in aliases.values() for alias in group), *classes])
    texts.update(dict.fromkeys(name.lower() for name in imagenet))
    phrases = {" ".join(re.findall(r"[a-z0-9'-]+", name.lower())): name for name in texts}
    rows = text.embed(list(phrases.values()))[:, :-1]
    np.savez_compressed(file, rows=rows.numpy().astype(np.float16), words=np.array(list(phrases)))


def names_in(file: Path) -> list[str]:
    """The class names in a compressed data set, without synonyms."""
    with np.load(file) as stored:
        return [without_synonyms(name) for name in json.loads(str(stored["names"]))]


def main() -> None:
    """Compress all data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--unlabelled", type=int, default=200, help="number of unlabelled photos (default: 200)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for source, data_set in DATA_SETS.items():
        examples = read_set(args.data, source)
        if source == "unlabelled":
            examples = Examples(examples.photos[: args.unlabelled], (), examples.things)
        if len(examples):
            file = args.out / f"{data_set.folder}.npz"
            write_examples(file, examples, COMPRESSION[source])
            print(f"{source}: {len(examples)} photos, {file.stat().st_size / 1e6:.2f} MB", flush=True)
    photos, names = data.load_imagenet(args.data / "imagenet-mini")
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(COMPRESSION["mosaics"].encode, photos.permute(0, 2, 3, 1).numpy()))
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
