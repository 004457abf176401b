"""The result as a dictionary without pixels, for JSON."""

from typing import TYPE_CHECKING, Any

import numpy as np

from deop.results.segments import encode_segment, grouped

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


def summarise(result: "Segmentation", rle: bool) -> dict[str, Any]:
    """``Segmentation.summary``, which describes it."""
    return {
        "photo": result.source,
        "size": [result.shape[1], result.shape[0]],
        "mode": result.mode,
        "names": list(result.names),
        "classes": _classes(result),
        "segments": [
            {
                "id": index,
                "name": segment.name,
                "score": round(segment.score, 4),
                "box": list(segment.box),
                "area": segment.area,
                "share": round(segment.share, 6),
                **({} if segment.isthing is None else {"isthing": segment.isthing}),
                **({"segmentation": encode_segment(segment, compressed=True)} if rle else {}),
            }
            for index, segment in enumerate(result.segments)
        ],
        "settings": dict(result.settings),
    }


def _classes(result: "Segmentation") -> list[dict[str, Any]]:
    """Every name with the share of the photo that it covers, its best score and its colour."""
    areas = np.array([segment.area for segment in result.segments], np.int64)
    if result.mode == "instance":  # where things overlap, each pixel counts once
        areas = np.bincount((result.segment_map + 1).ravel(), minlength=len(areas) + 1)[1:]
    groups = grouped(result.segments)
    pixels = result.shape[0] * result.shape[1]
    rows = []
    for name, colour in zip(result.names, result.colours.tolist(), strict=True):
        members = groups.get(name, [])
        rows.append(
            {
                "name": name,
                "share": round(int(areas[members].sum()) / pixels, 6),
                "score": round(max(result.segments[index].score for index in members), 4) if members else None,
                "colour": "#{:02x}{:02x}{:02x}".format(*colour),
            }
        )
    return rows
