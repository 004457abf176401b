"""Writing labelled data as Parquet files, or as WebDataset's tar files. Photos and masks are copied byte for byte."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from deop.batch.sources import kind_of
from deop.batch.table import arrow
from deop.data.entries import Entry
from deop.data.labelled import LabelClass, LabelledData, Pair, read_classes
from deop.dependencies import require
from deop.errors import DataError, SettingError
from deop.files import replacing
from deop.images.reading import no_pixel_limit, open_image

GROUP_BYTES = 1 << 20
"""Size of a row group of Parquet: what is read for one photo in random order."""

_IMAGES = ("image", "mask")
SHARD_MB = 256
"""Default size of a file, in megabytes, if there are several."""


@dataclass(frozen=True)
class Packed:
    """The result of ``pack``.

    Attributes:
        files: the files.
        classes: the list of classes beside them.
        photos: number of photos in them.
    """

    files: tuple[Path, ...]
    classes: Path
    photos: int


def pack(
    data: LabelledData,
    out: str | Path,
    *,
    shard_mb: float = SHARD_MB,
    progress: Callable[[int, int], None] | None = None,
) -> Packed:
    """Write labelled data as Parquet or tar files, with ``classes.json`` beside them.

    Parquet files have the columns ``key``, ``image`` and ``mask``; the latter are those of Hugging Face datasets'
    ``Image``, in row groups of about ``GROUP_BYTES``. A tar file has ``KEY.jpg`` (or another suffix) and
    ``KEY.mask.png`` for each photo; dots in a key become underscores, since WebDataset ends keys at the first dot.

    Args:
        data: the photos and masks.
        out: one file, ``data.parquet`` or ``data.tar``; or several with ``{}`` for their number: ``data-{}.tar``.
        shard_mb: size of a file in megabytes, if there are several; a file has at least one photo.
        progress: called with the number of finished photos and of all photos.

    Raises:
        SettingError: a name of another kind, files that exist, or another ``classes.json`` beside them.
        DataError: a photo or mask that cannot be read.
        OutputError: a file that cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    name = str(out)
    kind = kind_of(name)
    if kind not in ("parquet", "tar") or name.count("{}") > 1:
        raise SettingError(f"cannot pack into {name}: give FILE.parquet, FILE.tar, FILE-{{}}.parquet or FILE-{{}}.tar")
    if not shard_mb > 0:
        raise SettingError(f"the size of a file is {shard_mb} MB: expected a number above 0")
    several = "{}" in name
    existing = sorted(_numbered(Path(name))) if several else [Path(name)] if Path(name).exists() else []
    if existing:
        raise SettingError(f"{existing[0]} exists: choose another name, or remove it")
    if kind == "parquet":
        require("writing Parquet files", "pyarrow")
    listing = Path(name).parent / "classes.json"
    _write_classes(data.classes, listing)
    writer_class = _ParquetWriter if kind == "parquet" else _TarWriter
    files: list[Path] = []
    samples = _samples(data.pairs, list(_plain_keys(data.pairs)) if kind == "tar" else [p.key for p in data.pairs])
    done, sample = 0, next(samples, None)
    while sample is not None:
        files.append(Path(name.replace("{}", f"{len(files):05}")))
        with replacing(files[-1]) as file, writer_class(file) as writer:
            while sample is not None and not (several and writer.size and writer.size + sample.size > shard_mb * 1e6):
                writer.add(sample)
                done, sample = done + 1, next(samples, None)
                if progress:
                    progress(done, len(data.pairs))
    return Packed(tuple(files), listing, done)


@dataclass(frozen=True)
class _Sample:
    """The image files of a pair, each with its suffix."""

    key: str
    photo: tuple[bytes, str]
    mask: tuple[bytes, str]

    @property
    def size(self) -> int:
        return len(self.photo[0]) + len(self.mask[0])


def _samples(pairs: Sequence[Pair], keys: Sequence[str]) -> Iterator[_Sample]:
    for pair, key in zip(pairs, keys, strict=True):
        photo, mask = _content(pair.photo), _content(pair.mask)
        yield _Sample(key, (photo, _suffix(photo, pair.photo)), (mask, _suffix(mask, pair.mask)))


def _numbered(pattern: Path) -> Iterator[Path]:
    before, _, after = pattern.name.partition("{}")
    if pattern.parent.is_dir():
        for path in pattern.parent.iterdir():
            number = path.name[len(before) : len(path.name) - len(after)]
            if path.name.startswith(before) and path.name.endswith(after) and number.isdecimal():
                yield path


def _write_classes(classes: Sequence[LabelClass], path: Path) -> None:
    if path.exists():
        if read_classes(path) != tuple(classes):
            raise SettingError(f"{path} lists other classes: choose another directory")
        return
    rows = [
        {"id": entry.id, "name": entry.name}
        | ({} if entry.isthing is None else {"isthing": entry.isthing})
        | ({} if entry.seen is None else {"seen": entry.seen})
        | ({} if entry.colour is None else {"color": list(entry.colour)})
        for entry in classes
    ]
    with replacing(path) as file:
        file.write(("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode())


def _plain_keys(pairs: Sequence[Pair]) -> Iterator[str]:
    """Keys without dots, all different."""
    used: set[str] = set()
    for pair in pairs:
        plain = key = pair.key.replace(".", "_")
        number = 2
        while key in used:
            key, number = f"{plain}-{number}", number + 1
        used.add(key)
        yield key


def _content(entry: Entry) -> bytes:
    if not isinstance(entry, Path):
        return entry.read()
    try:
        return entry.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {entry}: {error.strerror or error}") from error


def _suffix(content: bytes, entry: Entry) -> str:
    """The suffix of an image file by its content: ".jpg", ".png", ..."""
    try:
        with no_pixel_limit(), open_image(io.BytesIO(content)) as image:
            form = (image.format or "").lower()
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        raise DataError(f"cannot read {entry}: it is no image, or damaged") from error
    return "." + {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif", "jpeg2000": "jp2"}.get(form, form)


class _TarWriter:
    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.archive = tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, sample: _Sample) -> None:
        self.size += sample.size
        for role, (content, suffix) in (("", sample.photo), (".mask", sample.mask)):
            member = tarfile.TarInfo(f"{sample.key}{role}{suffix}")
            member.size = len(content)
            self.archive.addfile(member, io.BytesIO(content))

    def __enter__(self) -> "_TarWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.archive.close()


class _ParquetWriter:
    def __init__(self, file: BinaryIO) -> None:
        pa = arrow()
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        features = {"key": {"dtype": "string", "_type": "Value"}} | {name: {"_type": "Image"} for name in _IMAGES}
        self.schema = pa.schema(
            [pa.field("key", pa.string(), nullable=False), *((name, image) for name in _IMAGES)],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        self.writer = pa.parquet.ParquetWriter(file, self.schema, compression="none")  # images are compressed
        self.rows: list[dict[str, Any]] = []
        self.size = self.waiting = 0

    def add(self, sample: _Sample) -> None:
        cells = {
            name: {"bytes": content, "path": f"{Path(sample.key).name}{suffix}"}
            for name, (content, suffix) in zip(_IMAGES, (sample.photo, sample.mask), strict=True)
        }
        self.rows.append({"key": sample.key, **cells})
        self.size += sample.size
        self.waiting += sample.size
        if self.waiting >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if self.rows:
            table = arrow().Table.from_pylist(self.rows, schema=self.schema)
            self.writer.write_table(table, row_group_size=len(self.rows))
        self.rows, self.waiting = [], 0

    def __enter__(self) -> "_ParquetWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._write_group()
            self.writer.close()
            return
        with suppress(Exception):  # of a full disk; the file is deleted in any case
            self.writer.close()
