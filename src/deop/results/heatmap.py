"""The picture of a heatmap: the photo in shades of a colour map, with a scale."""

import numpy as np
from PIL import Image, ImageDraw

from deop.results.fonts import choose_font, fit_text
from deop.results.legend import text_size
from deop.results.oklab import fit_gamut, lab_to_rgb, rgb_to_lab

_LEVELS = 128  # of the photo's lightness
_VALUES = 256
_MIN_LONGER_SIDE = 320  # smaller photos are enlarged, pixels
# The colour map inferno of matplotlib (CC0): equal steps look equally large, also to colour-blind eyes and in grey.
_INFERNO = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4"


def draw_heatmap(
    photo: np.ndarray,
    values: np.ndarray,
    name: str,
    *,
    alpha: float = 0.7,
    maximum: float = 1.0,
    legend: bool = True,
    font: str | None = None,
) -> Image.Image:
    """Draw values in [0, 1] over a photo, whose own colours are removed.

    Args:
        photo: (H, W, 3) uint8.
        values: (H, W) float.
        name: written beside the scale.
        alpha: opacity of the colours in [0, 1]; the photo's contrast is reduced to 1 - alpha.
        maximum: the value at the upper end of the scale, above 0; larger values have the same colour.
        legend: add the scale.
        font: path of a font file; None: see ``choose_font``.

    Returns:
        RGB picture.
    """
    longer = max(photo.shape[:2])
    if legend and longer < _MIN_LONGER_SIDE:
        factor = -(-_MIN_LONGER_SIDE // longer)
        photo, values = (array.repeat(factor, axis=0).repeat(factor, axis=1) for array in (photo, values))
    lightness = np.asarray(Image.fromarray(np.ascontiguousarray(photo)).convert("L")) // (256 // _LEVELS)
    table = _table(alpha)
    picture = np.empty_like(photo)
    step = max(1, (1 << 20) // photo.shape[1])
    for first in range(0, photo.shape[0], step):
        rows = slice(first, first + step)
        index = np.rint(np.clip(values[rows] / maximum, 0, 1) * (_VALUES - 1)).astype(np.int32)
        picture[rows] = table[index * _LEVELS + lightness[rows]]
    image = Image.fromarray(picture)
    return _add_scale(image, name, maximum, alpha, font) if legend else image


def _colour_map() -> np.ndarray:
    """Oklab (values, 3) of the colour map."""
    points = rgb_to_lab(np.array([list(bytes.fromhex(colour)) for colour in _INFERNO.split()], np.uint8))
    places = np.linspace(0, len(points) - 1, _VALUES)
    return np.stack([np.interp(places, np.arange(len(points)), channel) for channel in points.T], axis=-1)


def _table(alpha: float) -> np.ndarray:
    """The colour of each value at each lightness of the photo: (values * levels, 3) uint8."""
    grey = np.repeat(np.rint(np.linspace(0, 255, _LEVELS)).astype(np.uint8)[:, None], 3, axis=1)
    level = rgb_to_lab(grey)[:, 0]
    lab = np.repeat(_colour_map()[:, None], _LEVELS, axis=1)
    lab[..., 0] = alpha * lab[..., 0] + (1 - alpha) * level
    lab[..., 1:] *= alpha
    return lab_to_rgb(fit_gamut(lab)).reshape(-1, 3)


def _add_scale(picture: Image.Image, name: str, maximum: float, alpha: float, font_path: str | None) -> Image.Image:
    """Add a bar with the colours from 0 to the maximum below a picture, with the name at its left."""
    unit = text_size(picture.size)
    margin = unit
    name_font, font = choose_font([name], unit, font_path), choose_font([], unit)
    title = fit_text(name, name_font, min(16 * unit, 0.45 * picture.width))
    left = margin + round(name_font.getlength(title)) + margin
    right = picture.width - margin - round(font.getlength("0.00") / 2)
    bar_height = round(0.9 * unit)
    sheet = Image.new("RGB", (picture.width, picture.height + round(3.6 * unit)), (255, 255, 255))
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    top = picture.height + round(0.7 * unit)
    draw.text((margin, top + bar_height / 2), title, (31, 35, 40), name_font, anchor="lm")
    colours = _table(alpha).reshape(_VALUES, _LEVELS, 3)[:, _LEVELS // 2]  # as on a grey photo of medium lightness
    bar = Image.fromarray(colours[None]).resize((max(1, right - left), bar_height))
    sheet.paste(bar, (left, top))
    for part in (0, 0.5, 1):
        x = left + part * (right - left)
        draw.line((x, top + bar_height, x, top + bar_height + 0.3 * unit), (112, 120, 130), max(1, round(unit / 14)))
        text = f"{part * maximum:.2g}"
        draw.text((x, top + bar_height + 0.4 * unit), text, (112, 120, 130), font, anchor="mt")
    return sheet
