"""The archive of a complete result: one compressed .npz file."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deop.array_files import load_arrays
from deop.errors import ImageError, OutputError
from deop.files import replacing
from deop.results.label_maps import check_names
from deop.results.segments import Segment

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

_ARCHIVE_FORMAT = "deop segmentation 1"
_NOT_AN_ARCHIVE = "the file is damaged or was not written by Segmentation.save"


def save_archive(result: "Segmentation", path: Path) -> None:
    """Write a complete result, which ``load_archive`` reads.

    Raises:
        OutputError: the segments refer to different maps, or the file cannot be written.
    """
    maps: dict[str, np.ndarray] = {}
    rows = []
    for index, segment in enumerate(result.segments):
        shared = segment.pixels.ndim == 2
        key = "map" if shared else f"bits{index}"
        maps.setdefault(key, segment.pixels)
        if maps[key] is not segment.pixels:
            raise OutputError(f"cannot write {path}: its segments refer to different maps; build it from one map")
        rows.append(
            {
                "name": segment.name,
                "class_id": segment.class_id,
                "score": segment.score,
                "box": segment.box,
                "area": segment.area,
                "isthing": segment.isthing,
                "value": segment.value,
                "pixels": key,
            }
        )
    if maps.get("map") is result.label_map:  # in semantic mode the segments refer to the label map
        del maps["map"]
    head = {
        "format": _ARCHIVE_FORMAT,
        "names": list(result.names),
        "segments": rows,
        "mode": result.mode,
        "settings": dict(result.settings),
        "source": result.source,
        "heatmaps": list(result.heatmaps),
    }
    maps |= {f"heat{number}": values for number, values in enumerate(result.heatmaps.values())}
    text = json.dumps(head, default=str).encode()
    with replacing(path) as file:
        np.savez_compressed(
            file,
            head=np.frombuffer(text, np.uint8),
            label_map=result.label_map,
            photo=result.photo,
            allow_pickle=False,
            **maps,
        )


def load_archive(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the file that ``save_archive`` wrote.

    Returns:
        The arguments of a ``Segmentation``.

    Raises:
        ImageError: the file is missing, damaged, or was not written by ``save_archive``.
    """
    try:
        with load_arrays(Path(path)) as archive:
            head = json.loads(archive["head"].tobytes())
            if head["format"] != _ARCHIVE_FORMAT:
                raise ValueError(f"its format is {head['format']!r}, not {_ARCHIVE_FORMAT!r}")
            label_map, photo = archive["label_map"], archive["photo"]
            maps = {key: archive[key] for key in archive.files if key == "map" or key.startswith("bits")}
            # Archives that were written earlier have no heatmaps.
            heatmaps = {name: archive[f"heat{number}"] for number, name in enumerate(head.get("heatmaps", []))}
        maps.setdefault("map", label_map)
        check_names(head["names"])
        segments = [
            Segment(**{**row, "box": tuple(row["box"]), "shape": label_map.shape, "pixels": maps[row["pixels"]]})
            for row in head["segments"]
        ]
        return {
            "names": tuple(head["names"]),
            "label_map": label_map,
            "segments": segments,
            "photo": photo,
            "mode": head["mode"],
            "settings": dict(head["settings"]),
            "source": head["source"],
            "heatmaps": heatmaps,
        }
    except FileNotFoundError:
        raise ImageError(f"cannot read {path}: no such file; check the path") from None
    except KeyError as error:
        raise ImageError(f"cannot read {path}: it has no {error}; {_NOT_AN_ARCHIVE}") from error
    except Exception as error:  # NumPy and zipfile raise many kinds of exceptions for damaged data
        raise ImageError(f"cannot read {path}: {error}; {_NOT_AN_ARCHIVE}") from error
