"""One colour for each name of a vocabulary, which depends on the names alone: not on their order, nor on a photo."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from deop.results.expected_colours import EVERYTHING_ELSE, GREY, expected_colour
from deop.results.oklab import fit_gamut, lab_to_rgb, rgb_to_lab, seen
from deop.text.vocabulary import name_key

_LIGHTNESS_WEIGHT = 0.6
"""Weight of lightness in distances for normal eyes, since the photo's own lightness is mixed into a region."""

_COLOUR_BLIND_WEIGHT = 1.3
"""Weight of distances for colour-blind eyes, which see fewer colours and therefore smaller distances."""

_CHROMA_WEIGHT = 1.6
"""Weight of the distance in hue and chroma alone, which keeps lightness from being the only difference."""

_LIGHTNESS_ALONE = 32
"""Number of names up to which lightness is never the only difference between two colours."""


class _Tier(NamedTuple):
    """The range of the palette for a number of names, in Oklab.

    Attributes:
        names: maximum number of names.
        lightness: lowest and highest.
        chroma: lowest and highest.
    """

    names: float
    lightness: tuple[float, float]
    chroma: tuple[float, float]


_TIERS = (
    _Tier(8, (0.56, 0.83), (0.08, 0.14)),
    _Tier(_LIGHTNESS_ALONE, (0.48, 0.86), (0.06, 0.17)),
    _Tier(float("inf"), (0.44, 0.88), (0.05, 0.21)),
)
"""Few names get medium, pleasant colours; many need light, dark, pale and strong ones."""

_VARIATION = (-0.04, 0, 0.04)
"""Variations of the lightness of a colour of the palette."""

_EXPECTED_DISTANCE = 0.05
"""The distance from the colours in use at which a name gets its expected colour."""

_MOST_EXPECTED = 60
"""Maximum number of expected colours in one vocabulary."""


def vocabulary_colours(names: Sequence[str]) -> np.ndarray:
    """Choose a colour for each name of a vocabulary.

    Names such as sky or grass get the colour that people expect, unless it is too similar to one in use. All others, in
    alphabetical order, get the colour of a fixed palette that differs most from those in use, for normal and for
    colour-blind eyes. Names for everything else ("background", "other") are grey. Upper and lower case are equal.

    Args:
        names: K names.

    Returns:
        Array (K, 3) uint8, sRGB. All colours differ for up to some 500 names; with more names they repeat.

    >>> vocabulary_colours(["sky", "grass"]).tolist() == vocabulary_colours(["Grass", "sky"])[::-1].tolist()
    True
    """
    keys = [name_key(name) for name in names]
    distinct = tuple(sorted(set(keys)))
    chosen = dict(zip(distinct, _choose(distinct), strict=True))
    return np.array([chosen[key] for key in keys], np.uint8).reshape(-1, 3)


@lru_cache(maxsize=32)  # all photos of a run have the same names
def _choose(keys: tuple[str, ...]) -> list[np.ndarray]:
    """The colours of different names in alphabetical order."""
    aspects = slice(None) if len(keys) <= _LIGHTNESS_ALONE else slice(-1)
    palette, places = _palette(next(tier for tier in _TIERS if len(keys) <= tier.names))
    places = places[:, aspects]
    chosen: dict[str, np.ndarray] = {}
    used = _embed(np.array([GREY]))[:, aspects]  # always kept for everything else
    wishes = [(wish, key) for key in keys if (wish := expected_colour(key))]
    for wish, key in sorted(wishes):
        colour = np.array(wish.colour, np.uint8)
        place = _embed(colour[None])[:, aspects]
        if wish.reason == EVERYTHING_ELSE:
            chosen[key] = colour
        elif len(used) <= _MOST_EXPECTED and _distances(place, used).min() >= _EXPECTED_DISTANCE:
            chosen[key] = colour
            used = np.concatenate([used, place])

    nearest = np.min([_distances(places, place) for place in used], axis=0)  # to the colours in use
    others = [key for key in keys if key not in chosen]
    ample = _ample_distance(len(keys))
    for number, key in enumerate(others):
        if number >= len(palette):
            chosen[key] = chosen[others[number - len(palette)]]
            continue
        candidates = np.flatnonzero(nearest >= ample)
        best = int(candidates[0] if len(candidates) else nearest.argmax())
        chosen[key] = palette[best]
        nearest = np.minimum(nearest, _distances(places, places[best]))
        nearest[best] = -1
    return [chosen[key] for key in keys]


def _ample_distance(count: int) -> float:
    """A distance that is more than enough among ``count`` names: then the more pleasant colour is chosen."""
    return max(0.11, 0.3 - 0.025 * count) if count <= 12 else np.inf


def _distances(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The least of the distances in each aspect between embedded colours (n or 1, A, 3) -> (n,)."""
    return np.sqrt(np.square(places - others).sum(axis=-1).min(axis=-1))


def _embed(rgb: np.ndarray) -> np.ndarray:
    """Colours (n, 3) uint8 -> (n, 5, 3), weighted Oklab: as four kinds of eyes see them, and without lightness."""
    normal, *blind = seen(rgb)
    aspects = [normal * [_LIGHTNESS_WEIGHT, 1, 1], *(_COLOUR_BLIND_WEIGHT * place for place in blind)]
    return np.stack([*aspects, _CHROMA_WEIGHT * normal * [0, 1, 1]], axis=1)


@lru_cache(maxsize=len(_TIERS))
def _palette(tier: _Tier) -> tuple[np.ndarray, np.ndarray]:
    """A fixed set of colours (n, 3) uint8, the pleasant ones first, and the same embedded."""
    hues = np.deg2rad((np.arange(48) * 137.5 + 255) % 360)  # the golden angle: neighbours in this order differ widely
    grid = np.meshgrid(np.linspace(*tier.lightness, 9), np.linspace(*tier.chroma, 5), hues, indexing="ij")
    lightness, chroma, hue = (part.ravel() for part in grid)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    # Dark yellows look muddy and light blues pale: the most pleasant lightness depends on the hue.
    unpleasant = np.abs(lightness - 0.68 - 0.09 * np.cos(hue - 1.8)) + np.abs(chroma - 0.12)
    order = np.argsort((unpleasant / 0.05).astype(int), kind="stable")
    # Also colours somewhat lighter and darker must exist, since a region varies with the lightness of the photo.
    varied = lab + np.array([[[shift, 0, 0]] for shift in _VARIATION])
    exists = np.abs(fit_gamut(varied) - varied).max(axis=(0, 2)) < 0.003
    palette = lab_to_rgb(lab[order[exists[order]]])
    return palette, _embed(palette)


def shades(colour: np.ndarray, count: int) -> np.ndarray:
    """Slightly different shades of a colour for the things of one name, which outlines and numbers tell apart.

    Args:
        colour: (3,) uint8, sRGB.
        count: number of shades, at least 1.

    Returns:
        Array (count, 3) uint8; the first is the colour itself.
    """
    lab = np.repeat(rgb_to_lab(colour)[None], count, axis=0)
    lab[:, 0] += np.array([0, 0.025, -0.025])[np.arange(count) % 3]
    result = lab_to_rgb(lab)
    result[0] = colour
    return result
