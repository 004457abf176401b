"""Distinct colours of names, which depend on the names alone and not on their order."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

# Oklab, a colour space whose distances match perceived differences: https://bottosson.github.io/posts/oklab/
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
_CANDIDATES = 48  # colours that a name may get
# A candidate is taken if its Oklab distance from all colours in use is at least this:
_MIN_DISTANCE = 0.12  # among many names
_MAX_DISTANCE = 0.3  # among few names, minus _DISTANCE_STEP for each name
_DISTANCE_STEP = 0.02


def name_colours(names: Sequence[str]) -> np.ndarray:
    """Choose a colour for each name, all clearly different.

    A hash of the name gives its candidates and its priority. In the order of priority, each name takes its first
    candidate that is far enough from all colours in use, or the candidate that is furthest from them. So the colours
    do not depend on the order of the names. Upper and lower case are equal.

    Args:
        names: K different names.

    Returns:
        Array (K, 3) uint8, sRGB.
    """
    drawn = [_draw(name) for name in names]
    order = sorted(range(len(names)), key=lambda k: (drawn[k][0], names[k].casefold()))
    sufficient = max(_MIN_DISTANCE, _MAX_DISTANCE - _DISTANCE_STEP * len(names))
    used = np.empty((0, 3))
    colours = np.empty((len(names), 3), np.uint8)
    for k in order:
        lab = _to_lab(drawn[k][1])
        distance = np.full(len(lab), np.inf)
        if len(used):
            distance = np.linalg.norm(lab[:, None] - used[None], axis=-1).min(axis=1)
        distinct = np.flatnonzero(distance >= sufficient)
        choice = distinct[0] if len(distinct) else int(distance.argmax())
        used = np.concatenate([used, lab[choice : choice + 1]])
        colours[k] = lab_to_rgb(lab[choice])
    return colours


def shades(colour: np.ndarray, count: int) -> np.ndarray:
    """Shades of a colour, for several things of one name. The first is the colour itself.

    Args:
        colour: (3,) uint8, sRGB.
        count: number of shades, at least 1.

    Returns:
        Array (count, 3) uint8.
    """
    lab = rgb_to_lab(colour)
    # Golden-ratio sequences of lightness and hue, which repeat only after many steps.
    step = np.arange(count)
    lift = np.where(step > 0, ((step * 0.618034) % 1 - 0.5) * 0.34, 0)
    turn = np.where(step > 0, ((step * 0.754878) % 1 - 0.5) * 0.75, 0)
    lightness = np.clip(lab[0] + lift, 0.42, 0.9)
    a = lab[1] * np.cos(turn) - lab[2] * np.sin(turn)
    b = lab[1] * np.sin(turn) + lab[2] * np.cos(turn)
    result = lab_to_rgb(np.stack([lightness, a, b], axis=-1))
    result[0] = colour
    return result


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Oklab (..., 3) -> sRGB (..., 3) uint8; colours outside sRGB are clipped."""
    linear = np.clip(((lab @ _LAB_TO_LMS.T) ** 3) @ _LMS_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) uint8 -> Oklab (..., 3)."""
    encoded = np.asarray(rgb) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.linalg.inv(_LMS_TO_RGB).T) @ np.linalg.inv(_LAB_TO_LMS).T


def _draw(name: str) -> tuple[float, np.ndarray]:
    """The priority of a name, and its candidates (n, 3): lightness, chroma and hue; from a hash of the name."""
    digest = b"".join(
        blake2b(f"{part} {name.casefold().strip()}".encode("utf-8", "replace"), digest_size=64).digest()
        for part in range(-(-(_CANDIDATES * 3 + 1) * 2 // 64))
    )
    uniform = np.frombuffer(digest, "<u2")[: _CANDIDATES * 3 + 1] / 65536
    lift, chroma, hue = uniform[1:].reshape(-1, 3).T
    hue = 2 * np.pi * hue
    # Dark yellows look muddy and light blues pale: the lightness depends on the hue.
    lightness = 0.68 + 0.09 * np.cos(hue - 1.8) + 0.24 * (lift - 0.5)
    return float(uniform[0]), np.stack([lightness, 0.13 + 0.07 * chroma, hue], axis=-1)


def _to_lab(polar: np.ndarray) -> np.ndarray:
    """Lightness, chroma, hue -> Oklab, rounded and clipped as in 8-bit sRGB."""
    lightness, chroma, hue = polar.T
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return rgb_to_lab(lab_to_rgb(lab))
