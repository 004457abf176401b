"""Augmentation of photos and their class maps for training (docs/method.md §1).

The steps are resize, crop, colours, flip, pad, in this order. All random numbers come from the generator that the
caller passes, so that the same state of the generator gives the same pixels. Photos are resized with Pillow, as
everywhere in deop; colours are changed with kornia.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deop.errors import MissingDependencyError, SettingError
from deop.images.preprocessing import Resize, resize_photo

VOID = -1
_CROP_ATTEMPTS = 10


def short_sides(base: int) -> tuple[int, ...]:
    """The paper's eleven lengths for the shorter side, from 0.5 to 1.5 times ``base`` pixels (docs/method.md §1).

    >>> short_sides(100)
    (50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150)
    """
    return tuple(base * tenths // 10 for tenths in range(5, 16))


@dataclass(frozen=True)
class Augmentation:
    """Settings of ``augment``. The defaults are those of stage 3 (docs/method.md §1).

    Attributes:
        short_sides: lengths in pixels, drawn with equal probability, to which the shorter side of a photo is resized.
            None: photos are not resized.
        long_side: maximum length in pixels of the longer side after resizing.
        crop: side in pixels of a random square crop. A photo that is shorter than this in one direction is not cropped
            in that direction. None: no crop.
        largest_share: maximum share, in [0, 1], of one class among the labelled pixels of a crop. A crop with this
            share or more, or with fewer than two classes, is drawn again; the tenth crop is used in any case. 1: the
            first crop is used.
        colour: whether to change brightness, contrast, saturation and hue, each with probability 1/2 (SSD).
        flip: probability of a horizontal flip, in [0, 1].
        pad: length in pixels to which both sides are padded, at the bottom and on the right. None: no padding.
        padding: how to treat a photo that is larger than ``pad``. "whole": nothing is cut, and the canvas is as large
            as the crop. "original": the photo is cut to its top left corner, as by the negative padding of the original
            (docs/method.md §13.12); with a crop of 640 and a canvas of 512 training never sees the right and lower
            margin of a crop.
        fill: value of padded pixels, 0..255. Their class is void (-1).

    Raises:
        SettingError: a value outside its range.
    """

    short_sides: tuple[int, ...] | None = short_sides(512)
    long_side: int = 2560
    crop: int | None = 640
    largest_share: float = 1.0
    colour: bool = True
    flip: float = 0.5
    pad: int | None = 512
    padding: Literal["whole", "original"] = "whole"
    fill: int = 128

    def __post_init__(self) -> None:
        if self.short_sides is not None:
            object.__setattr__(
                self, "short_sides", tuple(self.short_sides)
            )  # a list from YAML becomes a hashable tuple
            if not self.short_sides or min(self.short_sides) < 1 or max(self.short_sides) > self.long_side:
                raise SettingError(
                    f"short_sides must be lengths from 1 to long_side={self.long_side}, not {self.short_sides}"
                )
        for label in ("crop", "pad"):
            value = getattr(self, label)
            if value is not None and value < 1:
                raise SettingError(f"{label} must be at least 1 pixel, not {value}")
        for label, low, high in (("largest_share", 0.0, 1.0), ("flip", 0.0, 1.0), ("fill", 0, 255)):
            if not low <= getattr(self, label) <= high:
                raise SettingError(f"{label} must be between {low} and {high}, not {getattr(self, label)}")
        if self.padding not in ("whole", "original"):
            raise SettingError(f"unknown padding {self.padding!r}: choose whole or original")

    @property
    def canvas(self) -> int | None:
        """Side in pixels of every sample; None if samples differ in size."""
        if self.pad is None or (self.padding == "whole" and self.crop is None):
            return None
        return self.pad if self.padding == "original" else max(self.pad, self.crop or 0)


STAGE_3 = Augmentation()
STAGE_2 = Augmentation(short_sides=short_sides(640), pad=640)


def augment(
    photo: np.ndarray, classes: np.ndarray, settings: Augmentation, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """A randomly changed version of a photo and its class map.

    Args:
        photo: (H, W, 3) uint8 RGB.
        classes: (H, W) int32, -1 for void.
        settings: what to do.
        generator: source of all random numbers.

    Returns:
        Pixels (h, w, 3) uint8, classes (h, w) int32, and the (height, width) of the part at the top left that is not
        padding.
    """
    photo, classes = _resize(photo, classes, settings, generator)
    if settings.crop is not None:
        rows, columns = _crop(classes, settings.crop, settings.largest_share, generator)
        photo, classes = photo[rows, columns], classes[rows, columns]
    if settings.colour:
        photo = change_colours(photo, generator)
    if settings.flip and generator.random() < settings.flip:
        photo, classes = photo[:, ::-1], classes[:, ::-1]
    return _pad(photo, classes, settings)


def _resize(
    photo: np.ndarray, classes: np.ndarray, settings: Augmentation, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if settings.short_sides is None:
        return photo, classes
    photo = resize_photo(photo, Resize(int(generator.choice(settings.short_sides)), settings.long_side))
    if photo.shape[:2] != classes.shape:
        size = (photo.shape[1], photo.shape[0])
        classes = np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))
    return photo, classes


def _crop(classes: np.ndarray, side: int, largest_share: float, generator: np.random.Generator) -> tuple[slice, slice]:
    height, width = classes.shape
    for _ in range(_CROP_ATTEMPTS):
        top, left = (int(generator.integers(max(extent - side, 0) + 1)) for extent in (height, width))
        place = slice(top, top + side), slice(left, left + side)
        if largest_share >= 1:
            break
        inside = classes[place]
        _, counts = np.unique(inside[inside != VOID], return_counts=True)
        if len(counts) > 1 and counts.max() < largest_share * counts.sum():
            break
    return place


def change_colours(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, each with probability 1/2 (Liu et al., SSD, 2016, section 2.2).

    Brightness changes by up to 32 of 255, contrast and saturation by a factor of 0.5 to 1.5, and hue by up to 36
    degrees. Contrast is changed before saturation and hue or after them, with probability 1/2 each.

    Args:
        photo: (H, W, 3) uint8 RGB.
        generator: source of all random numbers; a call advances it equally, whatever is changed.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MissingDependencyError: kornia is not installed.
    """
    try:
        from kornia import enhance
    except ImportError as error:
        raise MissingDependencyError('changing colours needs kornia: pip install "deop[train]"') from error

    # All numbers are drawn, used or not, so that later numbers do not depend on which were used.
    used = generator.random(4) < 0.5
    brightness = float(generator.uniform(-32, 32) / 255)
    contrast, saturation = (float(value) for value in generator.uniform(0.5, 1.5, 2))
    hue = float(generator.uniform(-0.2, 0.2) * np.pi)
    contrast_first = generator.random() < 0.5
    if not used.any():
        return photo
    pixels = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).float() / 255

    def with_contrast(pixels: Tensor) -> Tensor:
        return enhance.adjust_contrast(pixels, contrast) if used[1] else pixels

    if used[0]:
        pixels = enhance.adjust_brightness(pixels, brightness)
    if contrast_first:
        pixels = with_contrast(pixels)
    if used[2]:
        pixels = enhance.adjust_saturation(pixels, saturation)
    if used[3]:
        pixels = enhance.adjust_hue(pixels, hue)
    if not contrast_first:
        pixels = with_contrast(pixels)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _pad(
    photo: np.ndarray, classes: np.ndarray, settings: Augmentation
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    if settings.pad is not None and settings.padding == "original":
        photo, classes = photo[: settings.pad, : settings.pad], classes[: settings.pad, : settings.pad]
    height, width = classes.shape
    side = settings.canvas or settings.pad or 0
    margin = ((0, max(side - height, 0)), (0, max(side - width, 0)))
    return (
        np.pad(photo, (*margin, (0, 0)), constant_values=settings.fill),
        np.pad(classes, margin, constant_values=VOID),
        (height, width),
    )
