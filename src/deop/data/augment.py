"""What a photo and its classes go through before training sees them (METHOD 1).

Resize, crop, colours, flip, pad, in this order. Every choice is drawn from the generator that the caller gives, so the
same generator state gives the same pixels. Sizes change with Pillow's filters, as in the rest of deop; colours with
kornia's functions.
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
_ATTEMPTS = 10  # at a crop that is not mostly one class


def short_sides(base: int) -> tuple[int, ...]:
    """The eleven shorter sides that the paper draws from: half to one and a half of ``base`` pixels (METHOD 1)."""
    return tuple(base * tenths // 10 for tenths in range(5, 16))


@dataclass(frozen=True)
class Augmentation:
    """What is done to a photo; the defaults are those of METHOD 1, stage 3.

    Attributes:
        short_sides: pixels; the shorter side is resized to one of them, all equally likely. None: sizes stay.
        long_side: pixels that the longer side has at most after that.
        crop: side of a random square, pixels; a photo that is smaller in one direction keeps its size there. None: no
            crop.
        largest_share: a crop where one class has this share or more of the classified pixels, or where there are not
            two classes, is drawn again, at most ten times. 1: the first crop is taken.
        colour: whether brightness, contrast, saturation and hue change, each with chance 1/2 (SSD).
        flip: chance of left and right changing places.
        pad: pixels that each side is padded to, at the bottom and right. None: no padding.
        padding: what happens to a photo larger than ``pad``. "whole": nothing is cut, and the canvas is as large as
            the crop. "original": it is cut to its top left corner, as the original's negative padding does
            (METHOD 13.12); with a crop of 640 and a canvas of 512 it never sees the right and lower margin of a photo.
        fill: value of padded pixels, 0..255; their class is void.

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
            object.__setattr__(self, "short_sides", tuple(self.short_sides))  # a list from YAML becomes hashable
            if not self.short_sides or min(self.short_sides) < 1 or max(self.short_sides) > self.long_side:
                raise SettingError(f"shorter sides must lie between 1 and {self.long_side}, not {self.short_sides}")
        for label in ("crop", "pad"):
            value = getattr(self, label)
            if value is not None and value < 1:
                raise SettingError(f"{label} must be at least 1 pixel, not {value}")
        for label, low, high in (("largest_share", 0.0, 1.0), ("flip", 0.0, 1.0), ("fill", 0, 255)):
            if not low <= getattr(self, label) <= high:
                raise SettingError(f"{label} must lie between {low} and {high}, not {getattr(self, label)}")
        if self.padding not in ("whole", "original"):
            raise SettingError(f"unknown padding {self.padding!r}: choose whole or original")

    @property
    def canvas(self) -> int | None:
        """Side of every sample, pixels; None where samples differ in size."""
        if self.pad is None or (self.padding == "whole" and self.crop is None):
            return None
        return self.pad if self.padding == "original" else max(self.pad, self.crop or 0)


STAGE_3 = Augmentation()
STAGE_2 = Augmentation(short_sides=short_sides(640), pad=640)
UNCHANGED = Augmentation(short_sides=None, crop=None, colour=False, flip=0, pad=None)
"""Neither resized nor cropped: for held-out photos."""


def augment(
    photo: np.ndarray, classes: np.ndarray, how: Augmentation, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """One training view of a photo.

    Args:
        photo: (H, W, 3) uint8 RGB.
        classes: (H, W) int32, -1 for void.
        how: what is done.
        draw: where every choice comes from; it advances.

    Returns:
        Pixels (h, w, 3) uint8, classes (h, w) int32, and the (height, width) that is not padding, at the top left.
    """
    photo, classes = _resize(photo, classes, how, draw)
    if how.crop is not None:
        rows, columns = _crop(classes, how.crop, how.largest_share, draw)
        photo, classes = photo[rows, columns], classes[rows, columns]
    if how.colour:
        photo = change_colours(photo, draw)
    if how.flip and draw.random() < how.flip:
        photo, classes = photo[:, ::-1], classes[:, ::-1]
    return _pad(photo, classes, how)


def _resize(
    photo: np.ndarray, classes: np.ndarray, how: Augmentation, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if how.short_sides is None:
        return photo, classes
    photo = resize_photo(photo, Resize(int(draw.choice(how.short_sides)), how.long_side))
    if photo.shape[:2] != classes.shape:
        size = (photo.shape[1], photo.shape[0])
        classes = np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))
    return photo, classes


def _crop(classes: np.ndarray, side: int, largest_share: float, draw: np.random.Generator) -> tuple[slice, slice]:
    height, width = classes.shape
    for _ in range(_ATTEMPTS):
        top, left = (int(draw.integers(max(extent - side, 0) + 1)) for extent in (height, width))
        place = slice(top, top + side), slice(left, left + side)
        if largest_share >= 1:
            break
        inside = classes[place]
        _, counts = np.unique(inside[inside != VOID], return_counts=True)
        if len(counts) > 1 and counts.max() < largest_share * counts.sum():
            break
    return place


def change_colours(photo: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Other brightness, contrast, saturation and hue, each with chance 1/2 (Liu et al., SSD, 2016, section 2.2).

    Brightness: up to 32 of 255 added or taken. Contrast and saturation: times 0.5 to 1.5. Hue: turned by up to 36
    degrees. Contrast comes before saturation and hue or after them, with chance 1/2 each.

    Args:
        photo: (H, W, 3) uint8 RGB.
        draw: where the choices come from.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MissingDependencyError: kornia is not installed.
    """
    try:
        from kornia import enhance
    except ImportError as error:
        raise MissingDependencyError('changing colours needs kornia: pip install "deop[train]"') from error

    # All are drawn, used or not: what is drawn later does not depend on what was used.
    used = draw.random(4) < 0.5
    brightness = float(draw.uniform(-32, 32) / 255)
    contrast, saturation = (float(value) for value in draw.uniform(0.5, 1.5, 2))
    hue = float(draw.uniform(-0.2, 0.2) * np.pi)
    contrast_first = draw.random() < 0.5
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


def _pad(photo: np.ndarray, classes: np.ndarray, how: Augmentation) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    if how.pad is not None and how.padding == "original":
        photo, classes = photo[: how.pad, : how.pad], classes[: how.pad, : how.pad]
    height, width = classes.shape
    side = how.canvas or how.pad or 0
    margin = ((0, max(side - height, 0)), (0, max(side - width, 0)))
    return (
        np.pad(photo, (*margin, (0, 0)), constant_values=how.fill),
        np.pad(classes, margin, constant_values=VOID),
        (height, width),
    )
