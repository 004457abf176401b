"""The overlay of a result: the photo with its segments in colour, outlines, labels and legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from deop.errors import SettingError
from deop.results.colours import name_colours, shades
from deop.results.fonts import choose_font, fit_text
from deop.results.legend import LegendLine, add_legend, text_size
from deop.results.segments import Segment, grouped

_MAX_SHARED_COLOURS = 24  # with up to this many names, their colours are the same in every photo
_MIN_LONGER_SIDE = 320  # smaller photos are enlarged if they get labels or a legend, pixels


def draw_overlay(
    photo: np.ndarray,
    names: Sequence[str],
    segments: Sequence[Segment],
    segment_map: np.ndarray,
    *,
    alpha: float,
    borders: bool,
    labels: bool,
    legend: bool,
    max_lines: int | None,
    font: str | None,
) -> Image.Image:
    """Draw segments in colour over a photo; ``Segmentation.overlay`` describes the options.

    Args:
        photo: (H, W, 3) uint8.
        names: all requested names.
        segments: S segments.
        segment_map: (H, W) int32, index into ``segments``, -1 where there is no segment.
        alpha: opacity of the colours in [0, 1].
        borders: outline the segments.
        labels: write names on things.
        legend: add a legend.
        max_lines: maximum number of lines of the legend; None: as many as fit.
        font: path of a font file, or None.

    Raises:
        SettingError: ``alpha`` is outside [0, 1], ``max_lines`` is below 1, or the font cannot be read.
    """
    if not 0 <= alpha <= 1:
        raise SettingError(f"alpha must be in [0, 1], not {alpha}")
    if max_lines is not None and max_lines < 1:
        raise SettingError(f"the number of lines of the legend (max_names) must be at least 1, not {max_lines}")
    groups = grouped(segments)
    name_colour, segment_colours = _choose_colours(names, segments, groups)
    longer = max(photo.shape[:2])
    if (legend or labels) and longer < _MIN_LONGER_SIDE:
        factor = -(-_MIN_LONGER_SIDE // longer)
        photo = photo.repeat(factor, axis=0).repeat(factor, axis=1)
        segment_map = segment_map.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = paint(photo, segment_map, segment_colours, alpha, borders)
    if labels:
        _label(picture, segments, groups, segment_map, segment_colours, font)
    if not legend:
        return picture
    return add_legend(picture, _legend_lines(segments, groups, name_colour, segment_map), font, max_lines)


def paint(
    photo: np.ndarray, segment_map: np.ndarray, colours: np.ndarray, alpha: float, borders: bool = True
) -> Image.Image:
    """Blend colours into a photo.

    Args:
        photo: (H, W, 3) uint8.
        segment_map: (H, W) int32 in [-1, S).
        colours: (S, 3) uint8, RGB of each segment.
        alpha: opacity of the colours in [0, 1].
        borders: outline each segment in its colour at full opacity.

    Returns:
        RGB picture of the size of the photo, which is unchanged where the map is -1.
    """
    plain = Image.fromarray(np.ascontiguousarray(photo))
    if not len(colours):
        return plain
    flat = Image.fromarray(np.concatenate([colours[:1], colours])[segment_map + 1])
    # The photo is partly desaturated, so that the hue comes from the segments.
    muted = Image.blend(plain, plain.convert("L").convert("RGB"), 0.6 * alpha)
    picture = Image.composite(Image.blend(muted, flat, alpha), plain, _stencil(segment_map >= 0))
    if borders:
        _outline(picture, flat, segment_map)
    return picture


def _outline(picture: Image.Image, flat: Image.Image, segment_map: np.ndarray) -> None:
    """Draw a thin light line between segments, and the colour of each segment beside it."""
    edge = np.zeros(segment_map.shape, bool)
    edge[:-1] |= segment_map[:-1] != segment_map[1:]
    edge[:, :-1] |= segment_map[:, :-1] != segment_map[:, 1:]
    unit = text_size(picture.size) / 14  # 1 for a photo of 640 x 480 pixels
    thin, wide = max(1, round(unit)), max(3, 2 * round(1.5 * unit) + 1)
    rim = _stencil(ndimage.maximum_filter(edge, wide) & (segment_map >= 0))
    picture.paste(flat, (0, 0), rim.point(lambda value: value * 0.55))
    line = ndimage.maximum_filter(edge, thin) if thin > 1 else edge
    picture.paste((255, 255, 255), (0, 0), _stencil(line).point(lambda value: value * 0.8))


def _stencil(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(255))


def _choose_colours(
    names: Sequence[str], segments: Sequence[Segment], groups: dict[str, list[int]]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The colour of each name that has a segment, and of each segment (S, 3)."""
    candidates = list(names) if len(names) <= _MAX_SHARED_COLOURS else list(groups)
    colours = dict(zip(candidates, name_colours(candidates), strict=True))
    name_colour = {name: colours[name] for name in groups}
    segment_colours = np.zeros((len(segments), 3), np.uint8)
    for name, members in groups.items():
        segment_colours[members] = shades(name_colour[name], len(members))
    return name_colour, segment_colours


def _legend_lines(
    segments: Sequence[Segment],
    groups: dict[str, list[int]],
    colours: dict[str, np.ndarray],
    segment_map: np.ndarray,
) -> list[LegendLine]:
    """The lines of the legend: one per name, the largest share first, then one for pixels without a name."""
    counts = np.bincount((segment_map + 1).ravel(), minlength=len(segments) + 1) / max(1, segment_map.size)
    lines = []
    for name, members in groups.items():
        text = f"{name} ({len(members)})" if len(members) > 1 else name
        red, green, blue = (int(value) for value in colours[name])
        # From the map, where overlapping things count each pixel once.
        lines.append(LegendLine(text, float(counts[1:][members].sum()), (red, green, blue)))
    lines.sort(key=lambda line: (-line.share, line.text))
    if counts[0] > 0:
        lines.append(LegendLine("none of these", float(counts[0]), None))
    return lines


def _label(
    picture: Image.Image,
    segments: Sequence[Segment],
    groups: dict[str, list[int]],
    segment_map: np.ndarray,
    colours: np.ndarray,
    font_path: str | None,
) -> None:
    """Write names on things, the largest first, where they fit and do not overlap other labels."""
    unit = round(0.85 * text_size(picture.size))
    font = choose_font(groups, unit, font_path)
    number = {index: rank for members in groups.values() for rank, index in enumerate(members, 1)}
    slices = ndimage.find_objects(segment_map + 1, max_label=len(segments))
    boxes: list[tuple[float, float, float, float]] = []
    for index in sorted(range(len(segments)), key=lambda i: -segments[i].area):
        segment, place = segments[index], slices[index]
        if segment.isthing is False or place is None:
            continue
        several = len(groups[segment.name]) > 1
        text = fit_text(segment.name, font, 14 * unit) + (f" {number[index]}" if several else "")
        x, y = _innermost(segment_map[place] == index)
        half = (font.getlength(text) / 2 + 0.5 * unit, 0.8 * unit)
        x = float(np.clip(x + place[1].start, half[0], max(half[0], picture.width - half[0])))
        y = float(np.clip(y + place[0].start, half[1], max(half[1], picture.height - half[1])))
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        overlaps = any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in boxes)
        small = (segment_map[place] == index).sum() < 1.5 * unit**2
        if overlaps or small or 2 * half[0] > picture.width:
            continue
        boxes.append(box)
        _plate(picture, box, colours[index])
        ImageDraw.Draw(picture).text((x, y), text, (255, 255, 255), font, anchor="mm")


def _innermost(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) of the point of a mask that is furthest from its border."""
    step = max(1, max(mask.shape) // 128)
    small = np.pad(mask[::step, ::step], 1)
    if not small.any():
        rows, columns = np.nonzero(mask)
        return float(columns[0]), float(rows[0])
    row, column = np.unravel_index(ndimage.distance_transform_edt(small).argmax(), small.shape)
    return (float(column) - 0.5) * step, (float(row) - 0.5) * step


def _plate(picture: Image.Image, box: tuple[float, float, float, float], colour: np.ndarray) -> None:
    """Draw a dark rounded background for a label, tinted with the colour of its segment."""
    left, top, right, bottom = (round(value) for value in box)
    scale = 4
    shape = Image.new("L", ((right - left) * scale, (bottom - top) * scale), 0)
    edge = (0, 0, shape.width - 1, shape.height - 1)
    ImageDraw.Draw(shape).rounded_rectangle(edge, shape.height // 3, fill=205)
    red, green, blue = (round(int(value) * 0.22) for value in colour)
    picture.paste((red, green, blue), (left, top, right, bottom), shape.resize((right - left, bottom - top)))
