"""The picture of a result: the photo with its regions in colour, thin borders, labels on things."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from deop.errors import SettingError
from deop.results.colours import name_colours, shades
from deop.results.fonts import choose_font, fit_text
from deop.results.legend import Entry, add_legend, text_size
from deop.results.segments import Segment, grouped

_MOST_TOGETHER = 24  # names whose colours are chosen together; of more, only those in the photo
_SMALLEST = 320  # photos below this are magnified to be worth a legend, longer side in pixels


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
    most: int | None,
    font: str | None,
) -> Image.Image:
    """The photo with coloured segments; see ``Segmentation.overlay`` for the options.

    Args:
        photo: (H, W, 3) uint8.
        names: all names asked for.
        segments: what was found.
        segment_map: (H, W) int32, positions in ``segments``, -1 where nothing is.
        alpha: strength of the colours in [0, 1].
        borders: whether segments are outlined.
        labels: whether things are labelled in the photo.
        legend: whether names and shares stand beside or below it.
        most: lines of the legend at most.
        font: path of a font file.

    Raises:
        SettingError: alpha outside [0, 1], a number of lines below 1, or an unreadable font.
    """
    if not 0 <= alpha <= 1:
        raise SettingError(f"alpha must be in [0, 1], not {alpha}")
    if most is not None and most < 1:
        raise SettingError(f"a legend has at least 1 line, not {most}")
    groups = grouped(segments)
    base, own = _segment_colours(names, segments, groups)
    longer = max(photo.shape[:2])
    if (legend or labels) and longer < _SMALLEST:
        times = -(-_SMALLEST // longer)
        photo = photo.repeat(times, axis=0).repeat(times, axis=1)
        segment_map = segment_map.repeat(times, axis=0).repeat(times, axis=1)
    picture = paint(photo, segment_map, own, alpha, borders)
    if labels:
        _label(picture, segments, groups, segment_map, own, font)
    if not legend:
        return picture
    return add_legend(picture, _entries(segments, groups, base, segment_map), font, most)


def paint(
    photo: np.ndarray, segment_map: np.ndarray, colours: np.ndarray, alpha: float, borders: bool = True
) -> Image.Image:
    """Lay colours over a photo.

    Args:
        photo: (H, W, 3) uint8.
        segment_map: (H, W) int32 in [-1, S).
        colours: (S, 3) uint8.
        alpha: strength of the colours in [0, 1].
        borders: outline each segment in its own, full colour.

    Returns:
        RGB picture of the photo's size; where the map is -1, the photo as it is.
    """
    plain = Image.fromarray(np.ascontiguousarray(photo))
    if not len(colours):
        return plain
    flat = Image.fromarray(np.concatenate([colours[:1], colours])[segment_map + 1])
    # With part of its own colour taken out, the photo keeps its shapes and leaves the hue to the segments.
    muted = Image.blend(plain, plain.convert("L").convert("RGB"), 0.6 * alpha)
    picture = Image.composite(Image.blend(muted, flat, alpha), plain, _stencil(segment_map >= 0))
    if borders:
        _outline(picture, flat, segment_map)
    return picture


def _outline(picture: Image.Image, flat: Image.Image, segment_map: np.ndarray) -> None:
    """A thin light line where segments meet, and their own colour at full strength beside it."""
    edge = np.zeros(segment_map.shape, bool)
    edge[:-1] |= segment_map[:-1] != segment_map[1:]
    edge[:, :-1] |= segment_map[:, :-1] != segment_map[:, 1:]
    unit = text_size(picture.size) / 14  # 1 for a photo of 640 x 480
    thin, wide = max(1, round(unit)), max(3, 2 * round(1.5 * unit) + 1)
    rim = _stencil(ndimage.maximum_filter(edge, wide) & (segment_map >= 0))
    picture.paste(flat, (0, 0), rim.point(lambda value: value * 0.55))
    line = ndimage.maximum_filter(edge, thin) if thin > 1 else edge
    picture.paste((255, 255, 255), (0, 0), _stencil(line).point(lambda value: value * 0.8))


def _stencil(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(255))


def _segment_colours(
    names: Sequence[str], segments: Sequence[Segment], groups: dict[str, list[int]]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The colour of each name that was found, and of each segment (S, 3)."""
    together = list(names) if len(names) <= _MOST_TOGETHER else list(groups)
    every = dict(zip(together, name_colours(together), strict=True))
    base = {name: every[name] for name in groups}
    own = np.zeros((len(segments), 3), np.uint8)
    for name, members in groups.items():
        own[members] = shades(base[name], len(members))
    return base, own


def _entries(
    segments: Sequence[Segment],
    groups: dict[str, list[int]],
    colours: dict[str, np.ndarray],
    segment_map: np.ndarray,
) -> list[Entry]:
    """Lines of the legend, largest first; several things of a name share one, what none of them has comes last."""
    counts = np.bincount((segment_map + 1).ravel(), minlength=len(segments) + 1) / max(1, segment_map.size)
    lines = []
    for name, members in groups.items():
        text = f"{name} ({len(members)})" if len(members) > 1 else name
        red, green, blue = (int(value) for value in colours[name])
        # Shares of the picture: where things overlap, each pixel counts once.
        lines.append(Entry(text, float(counts[1:][members].sum()), (red, green, blue)))
    lines.sort(key=lambda line: (-line.share, line.text))
    if counts[0] > 0:
        lines.append(Entry("none of these", float(counts[0]), None))
    return lines


def _label(
    picture: Image.Image,
    segments: Sequence[Segment],
    groups: dict[str, list[int]],
    segment_map: np.ndarray,
    colours: np.ndarray,
    font_path: str | None,
) -> None:
    """Write names on things, largest first, where they fit and do not cover each other."""
    unit = round(0.85 * text_size(picture.size))
    font = choose_font(groups, unit, font_path)
    number = {index: rank for members in groups.values() for rank, index in enumerate(members, 1)}
    places = ndimage.find_objects(segment_map + 1, max_label=len(segments))
    used: list[tuple[float, float, float, float]] = []
    for index in sorted(range(len(segments)), key=lambda i: -segments[i].area):
        segment, place = segments[index], places[index]
        if segment.isthing is False or place is None:
            continue
        several = len(groups[segment.name]) > 1
        text = fit_text(segment.name, font, 14 * unit) + (f" {number[index]}" if several else "")
        x, y = _middle(segment_map[place] == index)
        half = (font.getlength(text) / 2 + 0.5 * unit, 0.8 * unit)
        x = float(np.clip(x + place[1].start, half[0], max(half[0], picture.width - half[0])))
        y = float(np.clip(y + place[0].start, half[1], max(half[1], picture.height - half[1])))
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        crowded = any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in used)
        small = (segment_map[place] == index).sum() < 1.5 * unit**2
        if crowded or small or 2 * half[0] > picture.width:
            continue
        used.append(box)
        _plate(picture, box, colours[index])
        ImageDraw.Draw(picture).text((x, y), text, (255, 255, 255), font, anchor="mm")


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """x, y of the point of a mask that is furthest from its border."""
    step = max(1, max(mask.shape) // 128)
    small = np.pad(mask[::step, ::step], 1)
    if not small.any():
        rows, columns = np.nonzero(mask)
        return float(columns[0]), float(rows[0])
    row, column = np.unravel_index(ndimage.distance_transform_edt(small).argmax(), small.shape)
    return (float(column) - 0.5) * step, (float(row) - 0.5) * step


def _plate(picture: Image.Image, box: tuple[float, float, float, float], colour: np.ndarray) -> None:
    """A dark rounded plate that white letters can be read on, tinted like its segment."""
    left, top, right, bottom = (round(value) for value in box)
    scale = 4
    shape = Image.new("L", ((right - left) * scale, (bottom - top) * scale), 0)
    edge = (0, 0, shape.width - 1, shape.height - 1)
    ImageDraw.Draw(shape).rounded_rectangle(edge, shape.height // 3, fill=205)
    red, green, blue = (round(int(value) * 0.22) for value in colour)
    picture.paste((red, green, blue), (left, top, right, bottom), shape.resize((right - left, bottom - top)))
