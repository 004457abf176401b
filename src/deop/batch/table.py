"""Rows of results and the Parquet files that hold them."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deop.dependencies import missing
from deop.files import json_of

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

COMPRESSION = "zstd"

MASKS = ("rle", "png", "both")
"""How masks are stored: one run-length encoding per segment, one PNG with a palette per photo, or both."""

_STATISTICS = b"deop"
"""Key of the numbers of a shard in the metadata of its file."""


@dataclass
class Statistics:
    """The numbers of one shard or of several.

    Attributes:
        rows: inputs.
        failures: inputs without a result, by kind of error.
        seconds: time that workers spent on the inputs.
        examples: the first error of each kind.
    """

    rows: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Inputs without a result."""
        return self.failures.total()

    def add(self, other: "Statistics") -> None:
        """Add the numbers of another shard."""
        self.rows += other.rows
        self.failures.update(other.failures)
        self.seconds += other.seconds
        self.examples = {**other.examples, **self.examples}

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        numbers = {"rows": self.rows, "failures": dict(self.failures), "seconds": round(self.seconds, 3)}
        return {**numbers, "examples": self.examples} if self.examples else numbers

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Statistics":
        """The inverse of ``as_json``."""
        return cls(values["rows"], Counter(values["failures"]), values["seconds"], values.get("examples", {}))


def arrow() -> Any:
    """The library pyarrow.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise missing("deop batch", "pyarrow") from None
    return pyarrow


def schema() -> Any:
    """The columns of the files.

    ``id``: of the input: the path below the directory, the line of the list, the key in the tar file, or the row of the
    Parquet file. ``path``: where the input is. ``width``, ``height``: pixels. ``segments``: as in
    ``Segmentation.segments``, with ``box`` (x0, y0, x1, y1) and ``rle``, the ``counts`` of COCO's compressed masks of
    size (height, width). ``labels``: the label map as PNG, 0 = none of the names. ``unnamed``: share of the photo
    without a name. ``model``, ``settings``: name of the model, and hash of everything that results depend on.
    ``seconds``: of decoding and computing. ``error``, ``error_kind``: why there is no result, else null.
    """
    pa = arrow()
    segment = pa.struct(
        [
            ("name", pa.string()),
            ("class_id", pa.int32()),
            ("score", pa.float32()),
            ("share", pa.float32()),
            ("area", pa.int64()),
            ("box", pa.list_(pa.int32())),
            ("isthing", pa.bool_()),
            ("rle", pa.string()),
        ]
    )
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("segments", pa.list_(segment)),
            ("labels", pa.binary()),
            ("unnamed", pa.float32()),
            pa.field("model", pa.string(), nullable=False),
            pa.field("settings", pa.string(), nullable=False),
            ("seconds", pa.float32()),
            ("error", pa.string()),
            ("error_kind", pa.string()),
        ]
    )


def row_of(result: "Segmentation", masks: str) -> dict[str, Any]:
    """The columns of a result that depend on the photo.

    Args:
        result: the result.
        masks: one of ``MASKS``.
    """
    from deop.results.segments import encode_segment

    rle = masks != "png"
    return {
        "width": result.shape[1],
        "height": result.shape[0],
        "segments": [
            {
                "name": segment.name,
                "class_id": segment.class_id,
                "score": segment.score,
                "share": segment.share,
                "area": segment.area,
                "box": list(segment.box),
                "isthing": segment.isthing,
                "rle": encode_segment(segment, compressed=True)["counts"] if rle else None,
            }
            for segment in result.segments
        ],
        "labels": _png(result) if masks != "rle" else None,
        "unnamed": float((result.label_map < 0).mean()),
    }


def _png(result: "Segmentation") -> bytes:
    from deop.results.label_maps import label_image

    buffer = io.BytesIO()
    image, _ = label_image(result)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def error_row(error: str, kind: str) -> dict[str, Any]:
    """The columns of an input without a result."""
    return {"error": error, "error_kind": kind}


def encode(rows: Sequence[dict[str, Any]]) -> tuple[bytes, Statistics]:
    """A Parquet file with some rows, and their numbers, which are also in the file's metadata."""
    pa = arrow()
    rows = [_valid(row) for row in rows]
    failed = [row for row in rows if row.get("error_kind")]
    statistics = Statistics(
        len(rows),
        Counter(row["error_kind"] for row in failed),
        sum(row.get("seconds") or 0.0 for row in rows),
        {row["error_kind"]: row["error"] for row in reversed(failed)},
    )
    columns = schema().with_metadata({_STATISTICS: json.dumps(statistics.as_json())})
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=columns)
    pa.parquet.write_table(table, buffer, compression=COMPRESSION)
    return buffer.getvalue(), statistics


def decode(content: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file of a batch."""
    rows: list[dict[str, Any]] = arrow().parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows


def _valid(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts are valid Unicode: file names on Linux may be any bytes."""
    texts = {
        key: row[key].encode("utf-8", "backslashreplace").decode() for key in ("id", "path", "error") if row.get(key)
    }
    return {**row, **texts}


def read_statistics(address: str) -> Statistics:
    """The numbers of a shard, from the end of its file.

    Raises:
        ValueError: the file is not one of a batch.
    """
    from deop.batch.stores import file_system

    pa = arrow()
    system, path = file_system(address)
    with system.open(path, "rb") as file:
        metadata = pa.parquet.read_schema(file).metadata or {}
    if _STATISTICS not in metadata:
        raise ValueError(f"{address} was not written by deop batch")
    return Statistics.from_json(json_of(metadata[_STATISTICS]))
