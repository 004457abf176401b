"""The legend of a picture: swatch, name and share of the area, beside or below the photo, never over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deop.results.fonts import choose_font, fit_text

_PAPER = (255, 255, 255)
_INK = (31, 35, 40)
_FAINT = (112, 120, 130)


@dataclass(frozen=True)
class Entry:
    """One line of the legend.

    Args:
        text: the name.
        share: part of the photo, in [0, 1].
        colour: (3,) of its swatch; None draws a hollow one.
    """

    text: str
    share: float
    colour: tuple[int, int, int] | None


@dataclass(frozen=True)
class _Grid:
    """Where the lines stand: all in pixels."""

    columns: int
    rows: int
    column_width: int
    name_width: int
    panel: tuple[int, int]  # width, height


def text_size(picture: tuple[int, int]) -> int:
    """Height of letters that reads well in a picture of (width, height) pixels."""
    return max(12, round(0.026 * (picture[0] * picture[1]) ** 0.5))


def add_legend(
    picture: Image.Image, entries: Sequence[Entry], font_path: str | None = None, most: int | None = None
) -> Image.Image:
    """The picture with a legend: on the right of upright ones, below wide ones.

    As many lines as there is room for; the rest is counted in a last line ("+ 92 more").

    Args:
        picture: RGB.
        entries: largest first.
        font_path: a font file instead of the default.
        most: lines at most, however much room there is.

    Returns:
        A new, larger picture; the picture itself where there is nothing to say.
    """
    if not entries:
        return picture
    unit = text_size(picture.size)
    font = choose_font([entry.text for entry in entries], unit, font_path)
    beside = picture.width <= 1.15 * picture.height
    grid = _lay_out(picture.size, [entry.text for entry in entries[:most]], font, unit, beside)
    lines = min(grid.columns * grid.rows, most or len(entries))
    shown, hidden = list(entries), 0
    if len(entries) > lines:
        shown = list(entries[: max(1, lines - 1)])
        hidden = sum(entry.colour is not None for entry in entries[len(shown) :])
    panel = _draw(shown, hidden, grid, font, unit)
    if beside:
        size = (picture.width + panel.width, max(picture.height, panel.height))
    else:
        size = (max(picture.width, panel.width), picture.height + panel.height)
    sheet = Image.new("RGB", size, _PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(panel, (picture.width, 0) if beside else (0, picture.height))
    return sheet


def _lay_out(
    picture: tuple[int, int], names: list[str], font: ImageFont.FreeTypeFont, unit: int, beside: bool
) -> _Grid:
    width, height = picture
    row, around, gap = round(1.75 * unit), 2 * unit, round(1.2 * unit)
    rest = round(1.7 * unit) + round(font.getlength("<0.1%") + 0.9 * unit)  # swatch and share
    widths = np.array([font.getlength(fit_text(name, font, 16 * unit)) for name in names])
    least = ceil(max(font.getlength("+ 999 more"), 3 * unit))
    name_width = max(least, ceil(widths.max()) + 1)
    if beside:
        rows = max(2, (height - around) // row)
        columns = min(2, -(-len(names) // rows))
        rows = min(rows, -(-len(names) // columns))
        panel_width = columns * (rest + name_width + gap) - gap + around
    else:
        rows = max(2, round(0.5 * height / row))
        columns = _columns(width - around, rest + name_width, gap, len(names))
        if columns * rows < len(names):  # not all fit: more of them do when the longest are cut
            shorter = max(least, ceil(np.quantile(widths, 0.8)) + 1)
            columns = _columns(width - around, rest + shorter, gap, len(names))
            room = (width - around + gap) // columns - gap - rest
            name_width = min(name_width, max(shorter, room))
        rows = min(rows, -(-len(names) // columns))
        panel_width = max(width, rest + name_width + around)
        spare = panel_width - around - columns * (rest + name_width)
        gap = min(max(gap, spare // max(1, columns - 1)), 5 * unit)
    return _Grid(columns, rows, rest + name_width + gap, name_width, (panel_width, around + rows * row))


def _columns(width: int, column: int, gap: int, most: int) -> int:
    return min(max(1, (width + gap) // (column + gap)), most)


def _draw(entries: list[Entry], hidden: int, grid: _Grid, font: ImageFont.FreeTypeFont, unit: int) -> Image.Image:
    panel = Image.new("RGB", grid.panel, _PAPER)
    draw = ImageDraw.Draw(panel)
    row, side = round(1.75 * unit), round(1.05 * unit)
    for index in range(len(entries) + (hidden > 0)):
        # Down the columns: the eye follows one column of names and one of numbers.
        left = unit + index // grid.rows * grid.column_width
        middle = unit + index % grid.rows * row + row // 2
        text_left = left + round(1.7 * unit)
        if index == len(entries):
            draw.text((text_left, middle), f"+ {hidden} more", _FAINT, font, anchor="lm")
            break
        entry = entries[index]
        _swatch(panel, (left, middle - side // 2), side, entry.colour)
        name = fit_text(entry.text, font, grid.name_width)
        draw.text((text_left, middle), name, _INK if entry.colour else _FAINT, font, anchor="lm")
        right = text_left + grid.name_width + round(font.getlength("<0.1%") + 0.9 * unit)
        draw.text((right, middle), percent(entry.share), _FAINT, font, anchor="rm")
    return panel


def _swatch(panel: Image.Image, corner: tuple[int, int], side: int, colour: tuple[int, int, int] | None) -> None:
    scale = 4  # drawn large and shrunk, for smooth corners
    shape = Image.new("L", (side * scale, side * scale), 0)
    edge = (0, 0, side * scale - 1, side * scale - 1)
    width = max(1, round(side * scale / 12))
    draw = ImageDraw.Draw(shape)
    if colour is None:
        draw.rounded_rectangle(edge, side * scale // 4, outline=255, width=width)
    else:
        draw.rounded_rectangle(edge, side * scale // 4, fill=255)
    panel.paste(colour or _FAINT, (*corner, corner[0] + side, corner[1] + side), shape.resize((side, side)))


def percent(share: float) -> str:
    """A share in [0, 1] in as many digits as one reads: 42%, 4.2%, <0.1%."""
    if share <= 0:
        return "0%"
    if share < 0.0005:
        return "<0.1%"
    return f"{100 * share:.1f}%" if share < 0.0995 else f"{100 * share:.0f}%"
