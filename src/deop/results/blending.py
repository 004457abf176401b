"""Blending of colours into a photo, so that each region has its colour and keeps the photo's details."""

import numpy as np
from PIL import Image, ImageFilter

from deop.results.legend import text_size
from deop.results.oklab import encode, fit_gamut, lab_to_linear, linear_to_lab, rgb_to_lab

_LEVELS = 128  # of the photo's lightness; finer ones do not show, since contrast is reduced
_CORRECTIONS = 4  # of the mean colour of each segment
_MAX_DEVIATION = 0.09  # standard deviation of a segment's lightness; with more, colours could not be kept
_SIMILAR = 0.06  # distance in Oklab up to which neighbours need a strong line between them
_STRIP = 1 << 20  # pixels that are processed at once
_PHOTO = np.array([119, 119, 119])  # the photo that swatches are blended with: grey of medium lightness


def paint(
    photo: np.ndarray, segment_map: np.ndarray, colours: np.ndarray, alpha: float, borders: bool = True
) -> Image.Image:
    """Blend colours into a photo.

    Hue and chroma come from the segments. The mean lightness of a segment is that of its colour, and around it the
    photo's lightness varies with its contrast reduced to 1 - alpha. So the colour of a segment is recognised in the
    picture, on dark and on bright photos. Pixels without a segment lose their colour, since it could be mistaken for
    that of a name.

    Args:
        photo: (H, W, 3) uint8.
        segment_map: (H, W) int32 in [-1, S).
        colours: (S, 3) uint8, RGB of each segment.
        alpha: opacity of the colours in [0, 1]; 0: the photo, 1: the colours alone.
        borders: outline each segment in its colour, with a light line between segments.

    Returns:
        RGB picture of the size of the photo.
    """
    plain = Image.fromarray(np.ascontiguousarray(photo))
    if not len(colours):
        return plain
    lightness = np.asarray(plain.convert("L")) // (256 // _LEVELS)
    table = _table(colours, _histograms(lightness, segment_map, len(colours)), alpha)
    painted = np.empty_like(photo)
    for rows in _strips(segment_map.shape):
        painted[rows] = table[(segment_map[rows] + 1) * _LEVELS + lightness[rows]]
    picture = Image.blend(plain, Image.fromarray(painted), 1 - _photo_weight(alpha))
    if borders:
        outline(picture, segment_map, swatches(colours, alpha))
    return picture


def swatches(colours: np.ndarray, alpha: float) -> np.ndarray:
    """Colours (S, 3) uint8 as they appear in a picture: blended with a grey photo of medium lightness."""
    weight = _photo_weight(alpha)
    return np.rint((1 - weight) * colours + weight * _PHOTO).astype(np.uint8)


def outline(picture: Image.Image, segment_map: np.ndarray, colours: np.ndarray, width: float = 1.0) -> None:
    """Draw a thin light line between segments, and the colour of each segment beside it.

    Args:
        picture: RGB; is changed.
        segment_map: (H, W) int32 in [-1, S).
        colours: (S, 3) uint8.
        width: factor of the width of the coloured line.
    """
    lab = rgb_to_lab(np.concatenate([colours, [[128, 128, 128]]]))  # the last entry is for -1
    edge, strong = np.zeros((2, *segment_map.shape), bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differs = segment_map[first] != segment_map[second]
        edge[first] |= differs
        distance = np.linalg.norm(lab[segment_map[first][differs]] - lab[segment_map[second][differs]], axis=-1)
        strong[first][differs] |= distance < _SIMILAR
    unit = text_size(picture.size) / 14  # 1 for a photo of 640 x 480 pixels
    rim = dilate(edge, max(1, round(1.5 * unit * width))) & (segment_map >= 0)
    flat = np.concatenate([colours, colours[:1]])[segment_map]
    picture.paste(Image.fromarray(flat), (0, 0), stencil(rim, 0.9 if width == 1 else 1))
    radius = max(0, round(unit / 2 - 0.5))
    for line, opacity in ((edge, 0.2), (strong, 0.75)):
        if line.any():
            picture.paste((255, 255, 255), (0, 0), stencil(dilate(line, radius), opacity))


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Extend a mask (H, W) bool by ``radius`` pixels, at most 200, in all directions, also diagonally.

    >>> dilate(np.array([[True, False, False, False]]), 2).tolist()
    [[True, True, True, False]]
    """
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    for radii in ((radius, 0), (0, radius)):  # the running mean is above 0 where any of the pixels is
        image = image.filter(ImageFilter.BoxBlur(radii)).point([0] + [255] * 255)
    return np.asarray(image) > 0


def stencil(mask: np.ndarray, opacity: float = 1.0) -> Image.Image:
    """A mask (H, W) bool as an image of opacities."""
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(round(255 * opacity)))


def _photo_weight(alpha: float) -> float:
    """How much of the photo's own colour remains: little, unless the colours are faint."""
    return (1 - alpha) ** 6


def _table(colours: np.ndarray, histograms: np.ndarray, alpha: float) -> np.ndarray:
    """The colour of each segment at each lightness of the photo: ((S + 1) * levels, 3) uint8, the first without one.

    Args:
        colours: (S, 3) uint8.
        histograms: (S, levels), number of pixels of each segment at each lightness.
        alpha: opacity of the colours.
    """
    grey = np.repeat(np.linspace(0, 255, _LEVELS)[:, None], 3, axis=1)
    table = np.empty((len(colours) + 1, _LEVELS, 3), np.uint8)
    table[0] = np.rint(grey)
    table[1:] = colours[:, None]
    if alpha < 1:
        level = rgb_to_lab(table[0])[:, 0]
        weights = histograms / np.maximum(1, histograms.sum(axis=1, keepdims=True))
        detail = (1 - alpha) * (level - (weights @ level)[:, None])  # (S, levels)
        deviation = np.sqrt((weights * detail**2).sum(axis=1, keepdims=True))
        detail *= _MAX_DEVIATION / np.maximum(deviation, _MAX_DEVIATION)
        base = target = rgb_to_lab(colours)
        for _ in range(_CORRECTIONS):
            lab = np.repeat(base[:, None], _LEVELS, axis=1)
            lab[..., 0] += detail
            linear = np.clip(lab_to_linear(fit_gamut(lab)), 0, 1)
            # Colours that do not exist were changed, and eyes average linear light: correct the mean of the segment.
            base = base + target - linear_to_lab((weights[:, None] @ linear)[:, 0])
        table[1:] = encode(linear)
    return table.reshape(-1, 3)


def _histograms(lightness: np.ndarray, segment_map: np.ndarray, count: int) -> np.ndarray:
    """How many pixels of each of ``count`` segments have each lightness: (count, levels) float64."""
    total = np.zeros((count + 1) * _LEVELS)
    for rows in _strips(segment_map.shape):
        cells = (segment_map[rows] + 1) * _LEVELS + lightness[rows]
        total += np.bincount(cells.ravel(), minlength=len(total))
    return total.reshape(count + 1, _LEVELS)[1:]


def _strips(shape: tuple[int, ...]) -> list[slice]:
    step = max(1, _STRIP // max(1, shape[1]))
    return [slice(first, first + step) for first in range(0, shape[0], step)]
