"""The legend of a picture: colour, name and share of the area, beside or below the photo."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deop.results.fonts import choose_font, fit_text

_PAPER = (255, 255, 255)
_INK = (31, 35, 40)
_GREY = (112, 120, 130)


@dataclass(frozen=True)
class LegendLine:
    """One line of the legend.

    Args:
        text: the name.
        share: share of the photo, in [0, 1]; None: not shown.
        colour: RGB colour of the swatch; None: an empty outline, or no swatch for a line without a share.
        more: number of names that the line stands for, if it has no share.
    """

    text: str
    share: float | None
    colour: tuple[int, int, int] | None
    more: int = 0

    @property
    def is_found(self) -> bool:
        """Whether the line is about a part of the photo."""
        return bool(self.share)


@dataclass(frozen=True)
class _Layout:
    """The arrangement of the lines in columns; widths in pixels."""

    columns: int
    rows: int
    column_width: int
    name_width: int
    panel: tuple[int, int]  # width and height of the whole legend

    def place(self, index: int, unit: int) -> tuple[int, int]:
        """The left end and the middle of a line; lines fill column by column, so that their parts are aligned."""
        row = round(1.75 * unit)
        return unit + index // self.rows * self.column_width, unit + index % self.rows * row + row // 2


def text_size(picture: tuple[int, int]) -> int:
    """A readable font size, in pixels, for a picture of (width, height) pixels."""
    return max(12, round(0.026 * (picture[0] * picture[1]) ** 0.5))


def add_legend(
    picture: Image.Image, entries: Sequence[LegendLine], font_path: str | None = None, max_lines: int | None = None
) -> Image.Image:
    """Add a legend: at the right of tall pictures, below wide ones.

    The legend has as many lines as fit; its last line counts the others ("+ 92 more").

    Args:
        picture: RGB.
        entries: the lines, largest share first.
        font_path: path of a font file; None: see ``choose_font``.
        max_lines: maximum number of lines; None: as many as fit.

    Returns:
        A new, larger picture; the picture itself if there are no lines.
    """
    if not entries:
        return picture
    unit = text_size(picture.size)
    beside = picture.width <= 1.15 * picture.height
    texts = [_Text.of(entry.text, unit, font_path) for entry in entries]
    layout = _lay_out(picture.size, texts[:max_lines], unit, beside)
    lines = min(layout.columns * layout.rows, max_lines or len(entries))
    shown = len(entries) if len(entries) <= lines else max(1, lines - 1)
    panel = _draw(entries[:shown], texts[:shown], layout, unit)
    if shown < len(entries):
        _draw_rest(panel, entries[shown:], layout, unit, shown)
    if beside:
        size = (picture.width + panel.width, max(picture.height, panel.height))
    else:
        size = (max(picture.width, panel.width), picture.height + panel.height)
    sheet = Image.new("RGB", size, _PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(panel, (picture.width, 0) if beside else (0, picture.height))
    return sheet


class _Text(NamedTuple):
    """A text and the font that has its characters."""

    text: str
    font: ImageFont.FreeTypeFont

    @classmethod
    def of(cls, text: str, size: float, font_path: str | None) -> "_Text":
        return cls(text, choose_font([text], size, font_path))

    def fitted(self, width: float) -> str:
        return fit_text(self.text, self.font, width)

    def width(self, limit: float) -> float:
        return self.font.getlength(self.fitted(limit))


def _lay_out(picture: tuple[int, int], names: list[_Text], unit: int, beside: bool) -> _Layout:
    width, height = picture
    font = choose_font([], unit)
    row, margins, gap = round(1.75 * unit), 2 * unit, round(1.2 * unit)
    rest = round(1.7 * unit) + round(font.getlength("<0.1%") + 0.9 * unit)  # of the line: swatch and share
    widths = np.array([name.width(16 * unit) for name in names])
    minimum = ceil(max(font.getlength("+ 999 more"), 3 * unit))
    name_width = max(minimum, ceil(widths.max()) + 1)
    if beside:
        rows = max(2, (height - margins) // row)
        columns = min(2, -(-len(names) // rows))
        rows = min(rows, -(-len(names) // columns))
        panel_width = columns * (rest + name_width + gap) - gap + margins
    else:
        rows = max(2, round(0.5 * height / row))
        columns = _columns(width - margins, rest + name_width, gap, len(names))
        if columns * rows < len(names):  # more lines fit if the longest names are truncated
            shorter = max(minimum, ceil(np.quantile(widths, 0.8)) + 1)
            columns = _columns(width - margins, rest + shorter, gap, len(names))
            available = (width - margins + gap) // columns - gap - rest
            name_width = min(name_width, max(shorter, available))
        rows = min(rows, -(-len(names) // columns))
        panel_width = max(width, rest + name_width + margins)
        spare = panel_width - margins - columns * (rest + name_width)
        gap = min(max(gap, spare // max(1, columns - 1)), 5 * unit)
    return _Layout(columns, rows, rest + name_width + gap, name_width, (panel_width, margins + rows * row))


def _columns(width: int, column: int, gap: int, limit: int) -> int:
    return min(max(1, (width + gap) // (column + gap)), limit)


def _draw(entries: Sequence[LegendLine], texts: Sequence[_Text], layout: _Layout, unit: int) -> Image.Image:
    panel = Image.new("RGB", layout.panel, _PAPER)
    draw = ImageDraw.Draw(panel)
    font = choose_font([], unit)
    side = round(1.05 * unit)
    for index, (entry, text) in enumerate(zip(entries, texts, strict=True)):
        left, middle = layout.place(index, unit)
        text_left = left + round(1.7 * unit)
        if entry.share is None and entry.colour is None:
            width = layout.panel[0] - text_left if layout.columns == 1 else layout.column_width - round(1.7 * unit)
            draw.text((text_left, middle), text.fitted(width), _GREY, text.font, anchor="lm")
            continue
        _swatch(panel, (left, middle - side // 2), side, entry.colour)
        ink = _INK if entry.colour and (entry.is_found or entry.share is None) else _GREY
        draw.text((text_left, middle), text.fitted(layout.name_width), ink, text.font, anchor="lm")
        if entry.share is None:
            continue
        right = text_left + layout.name_width + round(font.getlength("<0.1%") + 0.9 * unit)
        draw.text((right, middle), percent(entry.share), _GREY, font, anchor="rm")
    return panel


def _draw_rest(panel: Image.Image, hidden: Sequence[LegendLine], layout: _Layout, unit: int, index: int) -> None:
    """Draw the last line, which counts the names that do not fit."""
    names = sum(entry.colour is not None for entry in hidden) + sum(entry.more for entry in hidden)
    left, middle = layout.place(index, unit)
    text = f"+ {names} more"
    ImageDraw.Draw(panel).text((left + round(1.7 * unit), middle), text, _GREY, choose_font([], unit), anchor="lm")


def _swatch(panel: Image.Image, corner: tuple[int, int], side: int, colour: tuple[int, int, int] | None) -> None:
    scale = 4  # drawn larger and then reduced, for smooth corners
    shape = Image.new("L", (side * scale, side * scale), 0)
    edge = (0, 0, side * scale - 1, side * scale - 1)
    width = max(1, round(side * scale / 12))
    draw = ImageDraw.Draw(shape)
    if colour is None:
        draw.rounded_rectangle(edge, side * scale // 4, outline=255, width=width)
    else:
        draw.rounded_rectangle(edge, side * scale // 4, fill=255)
    panel.paste(colour or _GREY, (*corner, corner[0] + side, corner[1] + side), shape.resize((side, side)))


def percent(share: float) -> str:
    """Format a share in [0, 1].

    >>> [percent(share) for share in (0.42, 0.042, 0.0001)]
    ['42%', '4.2%', '<0.1%']
    """
    if share <= 0:
        return "0%"
    if share < 0.0005:
        return "<0.1%"
    return f"{100 * share:.1f}%" if share < 0.0995 else f"{100 * share:.0f}%"
