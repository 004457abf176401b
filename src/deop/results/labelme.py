"""The JSON files of the annotation tool labelme (https://github.com/wkentaro/labelme)."""

import base64
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from deop.results.polygons import join_rings, segment_polygons
from deop.results.segments import Segment

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

_VERSION = "5.5.0"
"""The version of labelme whose format this is; later versions read it, too."""


def annotation(result: "Segmentation", image_path: str, tolerance: float, masks: bool) -> dict[str, Any]:
    """The annotation file of one photo; ``Segmentation.to_labelme`` describes it."""
    shapes = []
    for index, segment in enumerate(result.segments):
        for shape_type, points, mask in [_mask(segment)] if masks else _polygons(segment, tolerance):
            shapes.append(
                {
                    "label": segment.name,
                    "points": points,
                    "group_id": index,
                    "description": f"score {segment.score:.4f}",
                    "shape_type": shape_type,
                    "flags": {},
                    "mask": mask,
                }
            )
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": result.shape[0],
        "imageWidth": result.shape[1],
    }


def _polygons(segment: Segment, tolerance: float) -> Iterator[tuple[str, list[list[float]], None]]:
    for polygon in segment_polygons(segment, tolerance):
        yield "polygon", join_rings([polygon]).astype(float).tolist(), None


def _mask(segment: Segment) -> tuple[str, list[list[float]], str]:
    """The mask inside its box as a PNG; the second point is the last pixel of the box."""
    buffer = BytesIO()
    Image.fromarray(segment.crop.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    x0, y0, x1, y1 = (float(value) for value in segment.box)
    return "mask", [[x0, y0], [x1 - 1, y1 - 1]], base64.b64encode(buffer.getvalue()).decode("ascii")
