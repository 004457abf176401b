"""Photos, and masks as images and arrays."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tests.trust.bad_input import ROWS
from tests.trust.test_bad_input_labels import MASKS, npy, zipped

from deop.data.labelled import photo_size, read_mask
from deop.images import id_maps, masks, reading
from fuzz.target import Target

PIXELS = 2_000_000
"""Pixels of the largest photo or mask: the limits of deop are lowered, so that the process stays small."""


def written(rows: Iterable[tuple[str, Callable[[Path], object]]]) -> Iterator[bytes]:
    """The content of the files of a table; its folders, pipes and links are left out."""
    with TemporaryDirectory() as folder:
        for name, write in rows:
            path = Path(folder) / name
            write(path)
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
                yield path.read_bytes()


def read_photo(data: bytes, folder: Path) -> None:
    """A photo: what is read is upright 8-bit RGB. Counting its pixels never fails."""
    reading.count_pixels(data)
    pixels = reading.read_photo(data, PIXELS)
    assert pixels.dtype == np.uint8, pixels.dtype
    assert pixels.ndim == 3, pixels.shape
    assert pixels.shape[2] == 3, pixels.shape
    assert 0 < pixels.shape[0] * pixels.shape[1] <= PIXELS, pixels.shape


def photos() -> Iterator[bytes]:
    """The photos of the table of bad input."""
    return written((row.name, row.write) for row in ROWS)


def read_ids(data: bytes, folder: Path) -> None:
    """A mask of a data set, without and with a table of colours, and the size of a photo from its header."""
    path = folder / "mask.png"
    path.write_bytes(data)
    id_maps.MAX_PIXELS = PIXELS
    ids = read_mask(path)
    assert ids.ndim == 2, ids.shape
    assert ids.dtype in (np.uint8, np.uint16), ids.dtype
    coloured = read_mask(path, {1: (200, 30, 30), 2: (255, 255, 255)})
    assert coloured.shape == ids.shape
    assert coloured.min() >= id_maps.UNLISTED_COLOUR
    assert photo_size(path) == ids.shape


def read_arrays(data: bytes, folder: Path) -> None:
    """Masks in an array, or in an archive of arrays."""
    path = folder / ("masks.npz" if data.startswith(b"PK") else "masks.npy")
    path.write_bytes(data)
    planes = masks.read_masks(path)
    assert planes.dtype == bool, planes.dtype
    assert planes.ndim == 3, planes.shape


def arrays() -> Iterator[bytes]:
    """The arrays of the table of bad input, and good ones."""
    yield from written((name, write) for name, write in MASKS.items() if name.endswith((".npy", ".npz")))
    for array in (np.eye(5, dtype=bool)[None], np.arange(20).reshape(4, 5), np.ones((2, 3, 4), np.float32)):
        yield npy(array)
        yield zipped(masks=npy(array))


def mask_images() -> Iterator[bytes]:
    """The images of the tables."""
    yield from photos()
    yield from written((name, write) for name, write in MASKS.items() if name.endswith(".png"))


TARGETS = (
    Target("photo", read_photo, photos),
    Target("mask-image", read_ids, mask_images),
    Target("mask-array", read_arrays, arrays),
)
