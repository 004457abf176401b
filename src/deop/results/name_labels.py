"""Names written on the regions of a picture: where they fit, and never over each other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deop.results.fonts import choose_font, fit_text
from deop.results.legend import text_size
from deop.results.segments import Segment, grouped

_GRID = 256  # maximum side of the reduced map on which places are compared
_MOST_LABELS = 300
_SMALLER = (1.0, 0.75)  # font sizes that are tried
_COVERED = 0.7  # share of a label that must lie on its region
_COVERED_THING = 0.4  # of a thing


class _Label(NamedTuple):
    text: str
    font: ImageFont.FreeTypeFont
    width: float  # with margins, pixels
    height: float


def write_names(
    picture: Image.Image,
    segments: Sequence[Segment],
    segment_map: np.ndarray,
    colours: np.ndarray,
    font_path: str | None = None,
) -> None:
    """Write the names of segments on a picture, the largest first, where they fit and overlap no other name.

    Args:
        picture: RGB; is changed.
        segments: S segments; several of one name are numbered.
        segment_map: (H, W) int32 in [-1, S), at the size of the picture.
        colours: (S, 3) uint8.
        font_path: path of a font file; None: see ``choose_font``.
    """
    groups = grouped(segments)
    number = {index: rank for members in groups.values() for rank, index in enumerate(members, 1)}
    order = sorted(range(len(segments)), key=lambda i: (-segments[i].area, i))[:_MOST_LABELS]
    unit = 0.85 * text_size(picture.size)
    places = _Places(segment_map)
    for index in order:
        segment = segments[index]
        suffix = f" {number[index]}" if len(groups[segment.name]) > 1 else ""
        for factor in _SMALLER:
            label = _lay_out(segment.name, suffix, max(10.0, factor * unit), font_path)
            if corner := places.take(index, label, _COVERED_THING if segment.isthing else _COVERED):
                _draw(picture, label, corner, colours[index])
                break


def _lay_out(name: str, suffix: str, size: float, font_path: str | None) -> _Label:
    font = choose_font([name], size, font_path)
    text = fit_text(name, font, 14 * size) + suffix
    return _Label(text, font, font.getlength(text) + size, 1.6 * size)


class _Places:
    """The places of labels on a map of segments, and which are taken.

    Args:
        segment_map: (H, W) int32.
    """

    def __init__(self, segment_map: np.ndarray) -> None:
        self._step = -(-max(segment_map.shape) // _GRID)
        self._map = segment_map[self._step // 2 :: self._step, self._step // 2 :: self._step]
        self._size = (segment_map.shape[1], segment_map.shape[0])
        self._taken: list[tuple[float, float, float, float]] = []

    def take(self, index: int, label: _Label, least: float) -> tuple[int, int] | None:
        """Find and take the best place of a label.

        Args:
            index: the segment.
            label: its label.
            least: share of the label that must lie on the segment.

        Returns:
            The left top corner in pixels; None if there is no place.
        """
        height, width = self._map.shape
        half_x, half_y = label.width / 2, label.height / 2
        if label.width > self._size[0] or label.height > self._size[1]:
            return None
        # Counts of the segment's cells in any box, from sums of all cells above and to the left.
        inside = self._map == index
        sums = np.zeros((height + 1, width + 1), np.int32)
        np.cumsum(np.cumsum(inside, axis=0, dtype=np.int32), axis=1, out=sums[1:, 1:])
        rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
        if not len(rows):
            return None
        y = np.arange(rows[0], rows[-1] + 1)
        x = np.arange(columns[0], columns[-1] + 1)
        covered = self._share(sums, y, x, half_y, half_x)
        inner = sum(self._share(sums, y, x, size * half_y, half_x + (size - 1) * half_y) for size in (2, 4, 8))
        centre_y, centre_x = ((y + 0.5) * self._step)[:, None], ((x + 0.5) * self._step)[None]
        # Ties are decided by the distance from the segment's centre.
        middle = (rows.mean() + 0.5) * self._step, (columns.mean() + 0.5) * self._step
        distance = np.hypot(centre_y - middle[0], centre_x - middle[1]) / max(self._size)
        value = np.where(covered >= least, covered + 0.4 * inner - 0.2 * distance, -1)
        centre_y = centre_y.clip(half_y, max(half_y, self._size[1] - half_y))
        centre_x = centre_x.clip(half_x, max(half_x, self._size[0] - half_x))
        for left, top, right, bottom in self._taken:
            overlaps = (centre_y - half_y < bottom) & (centre_y + half_y > top)
            value[overlaps & (centre_x - half_x < right) & (centre_x + half_x > left)] = -1
        row, column = np.unravel_index(value.argmax(), value.shape)
        if value[row, column] <= 0:
            return None
        left, top = float(centre_x[0, column]) - half_x, float(centre_y[row, 0]) - half_y
        self._taken.append((left, top, left + label.width, top + label.height))
        return round(left), round(top)

    def _share(self, sums: np.ndarray, y: np.ndarray, x: np.ndarray, half_y: float, half_x: float) -> np.ndarray:
        """The share of the boxes around all centres that lies on the segment; (len(y), len(x)) in [0, 1]."""
        height, width = sums.shape[0] - 1, sums.shape[1] - 1
        reach_y, reach_x = round(half_y / self._step), round(half_x / self._step)
        # A box that reaches beyond the picture is moved inside.
        top = (y - reach_y).clip(0, max(0, height - 2 * reach_y - 1))
        left = (x - reach_x).clip(0, max(0, width - 2 * reach_x - 1))
        bottom, right = np.minimum(top + 2 * reach_y + 1, height), np.minimum(left + 2 * reach_x + 1, width)
        count = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
        return count / ((2 * reach_y + 1) * (2 * reach_x + 1))


def _draw(picture: Image.Image, label: _Label, corner: tuple[int, int], colour: np.ndarray) -> None:
    """Draw a label on a dark rounded plate, tinted with the colour of its segment."""
    width, height = round(label.width), round(label.height)
    scale = 4  # drawn larger and then reduced, for smooth corners
    shape = Image.new("L", (width * scale, height * scale), 0)
    edge = (0, 0, shape.width - 1, shape.height - 1)
    ImageDraw.Draw(shape).rounded_rectangle(edge, shape.height // 3, fill=205)
    red, green, blue = (round(int(value) * 0.22) for value in colour)
    picture.paste((red, green, blue), corner, shape.resize((width, height)))
    middle = (corner[0] + width / 2, corner[1] + height / 2)
    ImageDraw.Draw(picture).text(middle, label.text, (255, 255, 255), label.font, anchor="mm")
