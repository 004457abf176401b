"""One colour for each name: drawn from its letters, whatever the order of the names, far from the others'."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

# Oklab, a space where equal distances look equally different: https://bottosson.github.io/posts/oklab/
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_LAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TRIES = 48  # colours that a name may choose from
_APART = 0.12  # Oklab distance at which a colour is taken without further search, where there are many
_FAR_APART = 0.3  # the same where there are few; by _CLOSER less for each of them
_CLOSER = 0.02


def name_colours(names: Sequence[str]) -> np.ndarray:
    """Colours of names, as apart as they can be.

    Each name draws colours from its own letters alone and takes the first that is not near one already given: alone
    or among few it keeps its first. Who goes first is drawn from the letters too, so the order of the names changes
    nothing. Upper and lower case are one.

    Args:
        names: K different names.

    Returns:
        Array (K, 3) uint8, sRGB.
    """
    drawn = [_draws(name) for name in names]
    order = sorted(range(len(names)), key=lambda k: (drawn[k][0], names[k].casefold()))
    apart = max(_APART, _FAR_APART - _CLOSER * len(names))
    taken = np.empty((0, 3))
    colours = np.empty((len(names), 3), np.uint8)
    for k in order:
        lab = _to_lab(drawn[k][1])
        distance = np.full(len(lab), np.inf)
        if len(taken):
            distance = np.linalg.norm(lab[:, None] - taken[None], axis=-1).min(axis=1)
        fine = np.flatnonzero(distance >= apart)
        best = fine[0] if len(fine) else int(distance.argmax())
        taken = np.concatenate([taken, lab[best : best + 1]])
        colours[k] = lab_to_rgb(lab[best])
    return colours


def shades(colour: np.ndarray, count: int) -> np.ndarray:
    """Neighbours of a colour, for several things of one name: the first is the colour itself.

    Args:
        colour: (3,) uint8, sRGB.
        count: how many, at least 1.

    Returns:
        Array (count, 3) uint8.
    """
    lab = rgb_to_lab(colour)
    # Lightness and hue move in steps that do not repeat for long: golden-ratio sequences.
    step = np.arange(count)
    lift = np.where(step > 0, ((step * 0.618034) % 1 - 0.5) * 0.34, 0)
    turn = np.where(step > 0, ((step * 0.754878) % 1 - 0.5) * 0.75, 0)
    lightness = np.clip(lab[0] + lift, 0.42, 0.9)
    a = lab[1] * np.cos(turn) - lab[2] * np.sin(turn)
    b = lab[1] * np.sin(turn) + lab[2] * np.cos(turn)
    answer = lab_to_rgb(np.stack([lightness, a, b], axis=-1))
    answer[0] = colour
    return answer


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Oklab (..., 3) -> sRGB (..., 3) uint8; what a screen cannot show is clipped."""
    linear = np.clip(((lab @ _LAB_TO_LMS.T) ** 3) @ _LMS_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) uint8 -> Oklab (..., 3)."""
    encoded = np.asarray(rgb) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.linalg.inv(_LMS_TO_RGB).T) @ np.linalg.inv(_LAB_TO_LMS).T


def _draws(name: str) -> tuple[float, np.ndarray]:
    """From a name's letters: its turn, and (tries, 3) lightness, chroma, hue."""
    digest = b"".join(
        blake2b(f"{part} {name.casefold().strip()}".encode("utf-8", "replace"), digest_size=64).digest()
        for part in range(-(-(_TRIES * 3 + 1) * 2 // 64))
    )
    uniform = np.frombuffer(digest, "<u2")[: _TRIES * 3 + 1] / 65536
    lift, chroma, hue = uniform[1:].reshape(-1, 3).T
    hue = 2 * np.pi * hue
    # Yellows are muddy when dark, blues are pale when light: lightness leans with the hue.
    lightness = 0.68 + 0.09 * np.cos(hue - 1.8) + 0.24 * (lift - 0.5)
    return float(uniform[0]), np.stack([lightness, 0.13 + 0.07 * chroma, hue], axis=-1)


def _to_lab(polar: np.ndarray) -> np.ndarray:
    """Lightness, chroma, hue -> the Oklab colour that a screen really shows for it."""
    lightness, chroma, hue = polar.T
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return rgb_to_lab(lab_to_rgb(lab))
