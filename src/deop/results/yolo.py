"""The text format of YOLO segmentation data sets, as ultralytics reads it."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deop.results.polygons import join_rings, segment_polygons

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


def label_text(result: "Segmentation", tolerance: float) -> str:
    """The label file of one photo; ``Segmentation.to_yolo`` describes it."""
    height, width = result.shape
    lines = []
    for segment in result.segments:
        polygons = segment_polygons(segment, tolerance)
        is_object = bool(segment.isthing) and result.mode != "semantic"
        for pieces in [polygons] if is_object else [[polygon] for polygon in polygons]:
            points = (join_rings(pieces) / (width, height)).ravel().tolist()
            lines.append(f"{segment.class_id} " + " ".join(f"{value:.6g}" for value in points) + "\n")
    return "".join(lines)


def data_yaml(names: Sequence[str], train: str = "images", val: str = "images") -> str:
    """The file ``data.yaml`` of a data set, with the names of the class indices.

    Args:
        names: the class names.
        train: folder of the training photos, relative to ``data.yaml``; labels are expected in the same path with
            ``labels`` instead of ``images``.
        val: folder of the validation photos.

    >>> print(data_yaml(["cat", "wall"]))
    path: .
    train: images
    val: images
    names:
      0: "cat"
      1: "wall"
    <BLANKLINE>
    """
    lines = ["path: .", f"train: {train}", f"val: {val}", "names:"]
    # A string in JSON is a string in YAML, whatever characters it has.
    lines += [f"  {index}: {json.dumps(name)}" for index, name in enumerate(names)]
    return "\n".join(lines) + "\n"
