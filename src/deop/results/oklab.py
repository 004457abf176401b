"""Oklab, a colour space whose distances match perceived differences; and colours as colour-blind eyes see them."""

import numpy as np

# https://bottosson.github.io/posts/oklab/
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
_RGB_TO_LMS = np.linalg.inv(_LMS_TO_RGB)
_LMS_TO_LAB = np.linalg.inv(_LAB_TO_LMS)

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""For each kind of vision, the matrix that turns linear sRGB into the linear sRGB of what is seen: normal vision, and
the three kinds of complete colour blindness (severity 1.0 in table 1 of Machado, Oliveira and Fernandes, A
Physiologically-based Model for Simulation of Color Vision Deficiency, 2009)."""


def decode(rgb: np.ndarray) -> np.ndarray:
    """sRGB (...) uint8 -> linear (...) float64 in [0, 1]."""
    encoded = np.asarray(rgb) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encode(linear: np.ndarray) -> np.ndarray:
    """Linear (...) float -> sRGB (...) uint8; values outside [0, 1] are clipped."""
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def linear_to_lab(linear: np.ndarray) -> np.ndarray:
    """Linear sRGB (..., 3) -> Oklab (..., 3)."""
    return np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T


def lab_to_linear(lab: np.ndarray) -> np.ndarray:
    """Oklab (..., 3) -> linear sRGB (..., 3), outside [0, 1] for colours that sRGB does not have."""
    return ((lab @ _LAB_TO_LMS.T) ** 3) @ _LMS_TO_RGB.T


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) uint8 -> Oklab (..., 3).

    >>> abs(rgb_to_lab(np.array([255, 255, 255], np.uint8)).round(3)).tolist()
    [1.0, 0.0, 0.0]
    """
    return linear_to_lab(decode(rgb))


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Oklab (..., 3) -> sRGB (..., 3) uint8; colours outside sRGB are clipped."""
    return encode(lab_to_linear(lab))


def fit_gamut(lab: np.ndarray) -> np.ndarray:
    """Reduce the chroma of Oklab colours (..., 3) that sRGB does not have, until it has them; lightness and hue stay.

    >>> bool((lab_to_linear(fit_gamut(np.array([0.9, 0.3, 0.1]))) <= 1.001).all())
    True
    """
    low, high = np.zeros(lab.shape[:-1]), np.ones(lab.shape[:-1])
    lab = np.concatenate([np.clip(lab[..., :1], 0, 1), lab[..., 1:]], axis=-1)
    for step in range(12):  # bisection of the factor of the chroma; the first step tries 1
        factor = high if step == 0 else (low + high) / 2
        linear = lab_to_linear(lab * np.stack([np.ones_like(factor), factor, factor], axis=-1))
        inside = ((linear > -1e-4) & (linear < 1 + 1e-4)).all(axis=-1)
        low, high = np.where(inside, factor, low), np.where(inside, high, factor)
    return lab * np.stack([np.ones_like(low), low, low], axis=-1)


def seen(rgb: np.ndarray) -> np.ndarray:
    """Colours as the four kinds of eyes in ``VISIONS`` see them.

    Args:
        rgb: (..., 3) uint8, sRGB.

    Returns:
        (4, ..., 3) float64, Oklab.
    """
    linear = decode(rgb)
    return np.stack([linear_to_lab(np.clip(linear @ matrix.T, 0, 1)) for matrix in VISIONS.values()])
