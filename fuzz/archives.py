"""Saved results, and labelled photos in tar files."""

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tests.trust.bad_input import encoded, picture

from deop import array_files
from deop.data.entries import image_source
from deop.data.labelled import read_mask
from deop.data.tar import read_tars
from deop.images.reading import read_photo
from deop.results import label_maps
from deop.results.label_maps import read_instances, read_labels
from deop.results.segmentation import Segmentation
from fuzz.photos import PIXELS, mask_images
from fuzz.target import Target

BYTES = 50_000_000
"""Bytes of the arrays of an archive: the limit of deop is lowered, so that the process stays small."""


def load_result(data: bytes, folder: Path) -> None:
    """``Segmentation.load``: what is loaded can be used."""
    path = folder / "result.npz"
    path.write_bytes(data)
    array_files.LARGEST = BYTES
    result = Segmentation.load(path)
    assert -1 <= result.label_map.min(initial=0) <= result.label_map.max(initial=-1) < len(result.names)
    result.summary(rle=True)
    result.to_coco()
    if result.label_map.size:
        result.overlay()
    assert str(result)


def results() -> list[Segmentation]:
    """A result of each mode."""
    photo = np.zeros((6, 8, 3), np.uint8)
    labels = np.repeat([[0, 0, 0, 1, 1, -1, 2, 2]], 6, 0)
    names = ["wall", "cat|kitten", "ключ"]
    scores = np.full((6, 8), 0.5, np.float32)
    semantic = Segmentation.from_semantic(photo, names, labels, scores, isthing=[False, True, None])
    masks = [((value, 0.5, None), labels == value) for value in range(3)]
    instances = Segmentation.from_instances(photo, names, masks)
    return [semantic, instances]


def saved_results() -> Iterator[bytes]:
    """Results as archives."""
    with TemporaryDirectory() as folder:
        for result in results():
            yield result.save(Path(folder) / "result.npz").read_bytes()


def read_png(data: bytes, folder: Path) -> None:
    """The PNG files of label maps and of segments."""
    label_maps.MAX_PIXELS = PIXELS
    path = folder / "labels.png"
    path.write_bytes(data)
    try:
        segments, rows = read_instances(path)
        assert -1 <= segments.min() <= segments.max() < len(rows)
    finally:
        labels, names = read_labels(path)
        assert -1 <= labels.min() <= labels.max() < len(names)


def label_files() -> Iterator[bytes]:
    """Label maps and segments, and other images."""
    with TemporaryDirectory() as folder:
        for result in results():
            path = Path(folder) / "labels.png"
            result.save_labels(path)
            yield path.read_bytes()
            label_maps.save_instance_map(result, path)
            yield path.read_bytes()
    yield from mask_images()


def read_tar(data: bytes, folder: Path) -> None:
    """Labelled photos in a tar file, each of which is read."""
    path = folder / "photos.tar"
    path.write_bytes(data)
    pairs, left_out = read_tars([str(path)])
    assert all(entry.reason for entry in left_out)
    for pair in pairs[:3]:
        assert not pair.key.startswith(("/", "..")), pair.key
        read_photo(image_source(pair.photo), PIXELS)
        read_mask(pair.mask)


def tars() -> Iterator[bytes]:
    """Tar files of every format, with pairs, links, a name that leaves the folder, and cut ones."""
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name, content in (
                ("a.jpg", encoded("JPEG")), ("a.png", encoded("PNG", picture("L"))), ("../b.jpg", encoded("JPEG")),
                ("../b.png", encoded("PNG", picture("L"))), (f"{'n' * 80}.mask.png", b"no mask"), ("c.txt", b"text"),
            ):  # fmt: skip
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
            link = tarfile.TarInfo("d.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(link)
        yield file.getvalue()
        yield file.getvalue()[:2000]
    yield bytes(1024)
    yield b"\x1f\x8b" + bytes(600)


TARGETS = (
    Target("saved-result", load_result, saved_results),
    Target("label-file", read_png, label_files),
    Target("tar", read_tar, tars),
)
