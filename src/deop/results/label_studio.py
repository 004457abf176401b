"""Tasks with predictions for Label Studio, with brush masks in its own run-length encoding, or polygons."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np

from deop._version import __version__
from deop.results.colours import vocabulary_colours
from deop.results.polygons import join_rings, segment_polygons

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

_LENGTH_BITS = np.array([3, 4, 8, 16])
"""Bits of a run length, by the two bits that select one of these."""


def task(result: "Segmentation", image: str, polygons: bool, from_name: str | None, tolerance: float) -> dict[str, Any]:
    """The task of one photo; ``Segmentation.to_labelstudio`` describes it."""
    height, width = result.shape
    regions = []
    for index, segment in enumerate(result.segments):
        values: list[dict[str, Any]]
        if polygons:
            kind = "polygonlabels"
            rings = [join_rings([polygon]) for polygon in segment_polygons(segment, tolerance)]
            values = [{"points": (ring / (width, height) * 100).tolist(), "closed": True} for ring in rings]
        else:
            kind = "brushlabels"
            values = [{"format": "rle", "rle": encode_brush(segment.mask)}]
        for number, value in enumerate(values):
            regions.append(
                {
                    "id": f"deop-{index}" if len(values) == 1 else f"deop-{index}-{number}",
                    "type": kind,
                    "from_name": from_name or ("label" if polygons else "tag"),
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": round(segment.score, 4),
                    "value": {**value, kind: [segment.name]},
                }
            )
    scores = [segment.score for segment in result.segments]
    prediction = {
        "model_version": f"deop {__version__}",
        "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
        "result": regions,
    }
    return {"data": {"image": image}, "predictions": [prediction]}


def labeling_config(names: Sequence[str], polygons: bool = False) -> str:
    """The labeling configuration of a project for ``Segmentation.to_labelstudio``, with the colours of the names.

    Args:
        names: the class names.
        polygons: for polygons instead of brush masks.

    >>> print(labeling_config(["sky"]))
    <View>
      <Image name="image" value="$image" zoom="true"/>
      <BrushLabels name="tag" toName="image">
        <Label value="sky" background="#8cc8f4"/>
      </BrushLabels>
    </View>
    <BLANKLINE>
    """
    tag, name = ("PolygonLabels", "label") if polygons else ("BrushLabels", "tag")
    colours = vocabulary_colours(tuple(names)).tolist()
    labels = [
        f'    <Label value={quoteattr(text)} background="#{red:02x}{green:02x}{blue:02x}"/>'
        for text, (red, green, blue) in zip(names, colours, strict=True)
    ]
    head = ["<View>", '  <Image name="image" value="$image" zoom="true"/>', f'  <{tag} name="{name}" toName="image">']
    return "\n".join([*head, *labels, f"  </{tag}>", "</View>", ""])


def encode_brush(mask: np.ndarray) -> list[int]:
    """The mask of a brush in Label Studio's run-length encoding.

    It describes an RGBA image, row by row, whose four channels are 255 inside the mask and 0 outside. A stream of bits
    begins with the number of values (32 bits), the bits of a value minus 1 (5) and four sizes of run lengths minus 1 (4
    each). Every run is a 1 (a single value would be a 0), the index of the size (2), the length minus 1 and the value.
    The JavaScript original is @thi.ng/rle-pack.

    Args:
        mask: (H, W) bool.

    Returns:
        The bytes, 0 to 255.
    """
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(starts, append=flat.size)  # RGBA
    values = np.where(flat[starts], 255, 0)
    # Runs longer than 65,536 values are divided.
    pieces = -(-lengths // 65_536)
    last = np.cumsum(pieces) - 1
    parts = np.full(last[-1] + 1, 65_536)
    parts[last] = lengths - (pieces - 1) * 65_536
    values = np.repeat(values, pieces)
    size = np.searchsorted([8, 16, 256], parts)
    # A run longer than 65,536 has a long last part, however short that is.
    size[last[pieces > 1]] = 3
    bits = _LENGTH_BITS[size]
    codes = ((0b100 | size) << bits | parts - 1) << 8 | values
    head = (4 * flat.size, 32), (8 - 1, 5), *((int(width) - 1, 4) for width in _LENGTH_BITS)
    stream = np.concatenate([*(_to_bits(np.array([code]), np.array([width])) for code, width in head)])
    stream = np.concatenate([stream, _to_bits(codes, 3 + bits + 8)])
    filled = np.concatenate([stream, np.zeros(8 - len(stream) % 8, np.uint8)])  # at least one bit, as the original
    result: list[int] = np.packbits(filled).tolist()
    return result


def _to_bits(codes: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bits of numbers, each with its own width, the highest first."""
    widest = int(widths.max())
    shifts = np.arange(widest - 1, -1, -1)
    bits = (codes[:, None] >> shifts & 1).astype(np.uint8)
    return bits[shifts < widths[:, None]]
