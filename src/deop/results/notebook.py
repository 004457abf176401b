"""A result in a notebook: the picture, with names that appear under the pointer."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deop.results.legend import percent
from deop.results.polygons import segment_polygons
from deop.results.segments import Segment, segments_of_map

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation

_LARGEST = 1280  # longer side of the picture, pixels
_MAX_REGIONS = 300  # the largest segments react to the pointer
_MAX_POINTS = 20_000  # corners of all regions together
_MAX_NAMES = 24  # in the legend
_MAX_NOT_FOUND = 12


def png(result: "Segmentation") -> bytes:
    """The picture with its legend as PNG, at most 1,280 x 1,280 pixels so that notebooks stay small."""
    picture = _reduce(result).overlay()
    picture.thumbnail((_LARGEST, _LARGEST))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def html(result: "Segmentation") -> str:
    """The picture as HTML; the region under the pointer is highlighted and its name and score appear.

    It is one JPEG image of at most 1,280 pixels and transparent SVG shapes over it, without scripts and without
    requests. Where SVG is removed, the picture and the legend remain.
    """
    small = _reduce(result)
    picture = small.overlay(legend=False, labels=False)
    width, height = picture.size
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    key = f"deop-{blake2b(buffer.getvalue(), digest_size=6).hexdigest()}"
    shown = max(320, width)
    unit = max(width, height) / max(shown, height)  # one pixel of the screen, if the picture is shown at full size
    style = (
        f".{key} path{{fill:transparent;stroke:none}}"
        f".{key} text{{visibility:hidden;pointer-events:none;font:600 {16 * unit:.3g}px sans-serif;fill:#fff;"
        f"stroke:rgba(0,0,0,.7);stroke-width:{4 * unit:.3g}px;paint-order:stroke;stroke-linejoin:round}}"
        f".{key} g:hover path{{fill:rgba(255,255,255,.25);stroke:#fff;stroke-width:{1.5 * unit:.3g}px}}"
        f".{key} g:hover text{{visibility:visible}}"
    )
    regions = "".join(
        f'<g><path fill-rule="evenodd" d="{path}"><title>{text}</title></path>'
        f'<text x="{8 * unit:.3g}" y="{22 * unit:.3g}">{text}</text></g>'
        for path, text in _regions(result, small.segments)
    )
    return (
        f'<div class="{key}" style="max-width:{shown}px"><style>{style}</style>'
        '<div style="position:relative;line-height:0">'
        f'<img src="data:image/jpeg;base64,{data}" alt="{escape(repr(result))}" style="width:100%;height:auto">'
        f'<svg viewBox="0 0 {width} {height}" style="position:absolute;left:0;top:0;width:100%;height:100%">'
        f"{regions}</svg></div>{_legend(result)}</div>"
    )


def _reduce(result: "Segmentation") -> "Segmentation":
    """The result with the size of the picture; ``value`` of its segments is the index of the segment in the result."""
    height, width = result.shape
    scale = min(1.0, _LARGEST / max(result.shape))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    values = np.ascontiguousarray(result.segment_map[rows[:, None], columns])
    segments = segments_of_map(
        values,
        result.names,
        [segment.class_id for segment in result.segments],
        [segment.score for segment in result.segments],
        [segment.isthing for segment in result.segments],
    )
    photo = result.photo if scale == 1 else np.asarray(Image.fromarray(result.photo).resize(size, reducing_gap=2))
    labels = np.ascontiguousarray(result.label_map[rows[:, None], columns])
    return replace(result, photo=photo, label_map=labels, segments=segments, heatmaps={})


def _regions(result: "Segmentation", pieces: Sequence[Segment]) -> list[tuple[str, str]]:
    """The outline of each segment in the picture as an SVG path, and its text; the number of corners is limited."""
    remaining, tolerance = _MAX_POINTS, 1.0
    regions = []
    for piece in pieces[:_MAX_REGIONS]:
        for _ in range(4):
            rings = [ring for polygon in segment_polygons(piece, tolerance) for ring in polygon.rings]
            points = sum(len(ring) for ring in rings)
            if points <= remaining:
                break
            tolerance *= 2
        if points > remaining:
            break
        remaining -= points
        segment = result.segments[piece.value]
        path = "".join(f"M{' '.join(str(value) for value in ring.ravel().tolist())}Z" for ring in rings)
        regions.append((path, escape(f"{segment.name} {percent(segment.share)}, score {segment.score:.2f}")))
    return regions


def _legend(result: "Segmentation") -> str:
    """The names with their colours and shares, the largest first, and names that were not found."""
    classes = result.summary()["classes"]
    found = sorted((row for row in classes if row["score"] is not None), key=lambda row: -row["share"])
    swatch = "display:inline-block;width:.9em;height:.9em;border-radius:2px;vertical-align:-.1em;"
    items = [
        f'<span style="display:inline-block;margin-right:1em"><span style="{swatch}background:{row["colour"]}"></span> '
        f"{escape(row['name'])} {percent(row['share'])}</span>"
        for row in found[:_MAX_NAMES]
    ]
    if len(found) > _MAX_NAMES:
        items.append(f"<span>+ {len(found) - _MAX_NAMES} more</span>")
    missing = result.not_found if result.settings.get("vocabulary") is None else ()
    if missing:
        more = f" + {len(missing) - _MAX_NOT_FOUND} more" if len(missing) > _MAX_NOT_FOUND else ""
        items.append(f"<span>not found: {escape(', '.join(missing[:_MAX_NOT_FOUND]))}{more}</span>")
    return f'<div style="margin-top:.4em">{"".join(items)}</div>'
