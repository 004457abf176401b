"""Pictures of a result: the photo with its segments in colour, outlines, names and a legend, in several styles."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from deop.errors import SettingError
from deop.results.blending import outline, paint, swatches
from deop.results.colours import shades
from deop.results.legend import LegendLine, add_legend
from deop.results.name_labels import write_names
from deop.results.segments import Segment, grouped

STYLES = ("overlay", "outline", "labels", "side-by-side", "cutout", "heatmap")
"""Styles of pictures; ``Segmentation.overlay`` describes them."""

_MIN_LONGER_SIDE = 320  # smaller photos are enlarged if they get names or a legend, pixels
_MOST_NOT_FOUND = 12  # lines of the legend
_NO_SEGMENT = (236, 236, 236)  # in the style "labels"


def draw_segments(
    photo: np.ndarray,
    names: Sequence[str],
    segments: Sequence[Segment],
    segment_map: np.ndarray,
    colours: np.ndarray,
    *,
    style: str,
    alpha: float,
    borders: bool,
    labels: bool,
    legend: bool,
    max_lines: int | None,
    font: str | None,
    list_not_found: bool = True,
) -> Image.Image:
    """Draw segments over a photo; ``Segmentation.overlay`` describes the options.

    Args:
        photo: (H, W, 3) uint8.
        names: K names.
        segments: S segments.
        segment_map: (H, W) int32, index into ``segments``, -1 where there is no segment.
        colours: (K, 3) uint8.
        style: "overlay", "outline", "labels" or "side-by-side".
        alpha: opacity of the colours in [0, 1].
        borders: outline the segments.
        labels: write names on segments.
        legend: add a legend.
        max_lines: maximum number of lines of the legend; None: as many as fit.
        font: path of a font file, or None.
        list_not_found: whether the legend lists names without a pixel.

    Raises:
        SettingError: ``alpha`` is outside [0, 1], ``max_lines`` is below 1, or the font cannot be read.
    """
    check_alpha(alpha)
    if max_lines is not None and max_lines < 1:
        raise SettingError(f"the number of lines of the legend (max_names) must be at least 1, not {max_lines}")
    alpha = {"outline": 0.0, "labels": 1.0}.get(style, alpha)
    groups = grouped(segments)
    painted = _segment_colours(segments, groups, colours)
    longer = max(photo.shape[:2])
    if (legend or labels) and longer < _MIN_LONGER_SIDE:
        factor = -(-_MIN_LONGER_SIDE // longer)
        photo = photo.repeat(factor, axis=0).repeat(factor, axis=1)
        segment_map = segment_map.repeat(factor, axis=0).repeat(factor, axis=1)
    if style == "labels":
        picture = Image.fromarray(np.concatenate([[_NO_SEGMENT], painted]).astype(np.uint8)[segment_map + 1])
        if borders and segments:
            outline(picture, segment_map, painted)
    else:
        picture = paint(photo, segment_map, painted, alpha, borders and style != "outline")
    if style == "outline":
        alpha = 1.0  # the colour of the lines, and so of the swatches
        if segments:
            outline(picture, segment_map, painted, width=1.5)
    shown = swatches(colours, alpha) if len(colours) else colours
    if labels:
        write_names(picture, segments, segment_map, swatches(painted, alpha), font)
    if style == "side-by-side":
        gap = max(4, round(0.01 * picture.width))
        both = Image.new("RGB", (2 * picture.width + gap, picture.height), (255, 255, 255))
        both.paste(Image.fromarray(np.ascontiguousarray(photo)), (0, 0))
        both.paste(picture, (picture.width + gap, 0))
        picture = both
    if not legend:
        return picture
    lines = _legend_lines(segments, groups, names, shown, segment_map)
    if list_not_found:
        lines += _lines_not_found(names, groups, shown)
    return add_legend(picture, lines, font, max_lines)


def check_alpha(alpha: float) -> None:
    """Refuse an opacity outside [0, 1], also NaN."""
    if not 0 <= alpha <= 1:
        raise SettingError(f"alpha must be in [0, 1], not {alpha}")


def _segment_colours(segments: Sequence[Segment], groups: dict[str, list[int]], colours: np.ndarray) -> np.ndarray:
    """The colour of each segment (S, 3)."""
    result = np.zeros((len(segments), 3), np.uint8)
    for members in groups.values():
        result[members] = shades(colours[segments[members[0]].class_id], len(members))
    return result


def _legend_lines(
    segments: Sequence[Segment],
    groups: dict[str, list[int]],
    names: Sequence[str],
    colours: np.ndarray,
    segment_map: np.ndarray,
) -> list[LegendLine]:
    """The lines of the legend: one per name, the largest share first, then one for pixels without a name."""
    counts = np.bincount((segment_map + 1).ravel(), minlength=len(segments) + 1) / max(1, segment_map.size)
    lines = []
    for name, members in groups.items():
        text = f"{name} ({len(members)})" if len(members) > 1 else name
        # From the map, where overlapping things count each pixel once.
        share = float(counts[1:][members].sum())
        lines.append(LegendLine(text, share, _rgb(colours[segments[members[0]].class_id])))
    lines.sort(key=lambda line: (-(line.share or 0), line.text))
    if counts[0] > 0:
        lines.append(LegendLine("none of these", float(counts[0]), None))
    return lines


def _lines_not_found(names: Sequence[str], groups: dict[str, list[int]], colours: np.ndarray) -> list[LegendLine]:
    """The lines of the names that no segment has."""
    missing = [index for index, name in enumerate(names) if name not in groups]
    lines = [LegendLine(names[index], 0.0, _rgb(colours[index])) for index in missing[:_MOST_NOT_FOUND]]
    if more := len(missing) - len(lines):
        lines.append(LegendLine(f"+ {more} more not found", None, None, more=more))
    return lines


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue
