"""Photos as a model sees them: resized, normalised, padded (METHOD 1); photo_files.py reads them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deop.errors import ImageError, SettingError

if TYPE_CHECKING:
    import torch

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Normalization:
    """Channel statistics that a model was trained with: ``(pixel - mean) / std`` (METHOD section 1).

    Args:
        mean: red, green, blue, in 0..255 units.
        std: red, green, blue, in 0..255 units, positive.

    Raises:
        SettingError: not three finite numbers each, or a std that is not positive.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for label in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, label))
            if len(values) != 3 or not all(np.isfinite(values)):
                raise SettingError(f"normalization {label} must be three finite numbers, not {values}")
            object.__setattr__(self, label, values)  # a list from JSON becomes hashable
        if min(self.std) <= 0:
            raise SettingError(f"normalization std must be positive, not {self.std}")


IMAGENET = Normalization((123.675, 116.280, 103.530), (58.395, 57.120, 57.375))
CLIP = Normalization(
    (255 * 0.48145466, 255 * 0.4578275, 255 * 0.40821073),
    (255 * 0.26862954, 255 * 0.26130258, 255 * 0.27577711),
)


@dataclass(frozen=True)
class Resize:
    """How large a photo is when the model sees it (METHOD section 1).

    Args:
        short_side: pixels of the shorter side after resizing; None keeps the photo's own size.
        long_side: most pixels that the longer side may have, at least ``short_side``.
        interpolation: "nearest", "bilinear" or "bicubic", in Pillow's form (antialiased where it shrinks).
        divisor: both padded sides are multiples of it.

    Raises:
        SettingError: a field outside its range.
    """

    short_side: int | None = 512
    long_side: int = 2560
    interpolation: str = "bilinear"
    divisor: int = 32

    def __post_init__(self) -> None:
        for label in ("short_side", "long_side", "divisor"):
            value = getattr(self, label)
            if value is None and label == "short_side":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise SettingError(f"resize {label} must be a whole number of at least 1, not {value!r}")
        if self.short_side is not None and self.long_side < self.short_side:
            raise SettingError(f"resize long_side ({self.long_side}) must not be below short_side ({self.short_side})")
        if self.interpolation not in _FILTERS:
            raise SettingError(
                f"unknown interpolation {self.interpolation!r}: use one of {', '.join(sorted(_FILTERS))}"
            )


def resized_shape(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """Shape of a photo once resized: shorter side first, then the cap on the longer (METHOD section 1).

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.
        resize: the rule.

    Returns:
        (height, width) in pixels, rounded half up, neither below 1.
    """
    if resize.short_side is None:
        return height, width
    scale = resize.short_side / min(height, width)
    # The shorter side is set, not multiplied: rounding errors of the scale must not move it.
    new_height, new_width = (
        (float(resize.short_side), scale * width) if height < width else (scale * height, float(resize.short_side))
    )
    if max(new_height, new_width) > resize.long_side:
        scale = resize.long_side / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_photo(photo: np.ndarray, resize: Resize) -> np.ndarray:
    """Resize a photo with Pillow's filter on 8-bit pixels, as the published models were evaluated.

    Args:
        photo: (H, W, 3) uint8.
        resize: the rule.

    Returns:
        Array (H', W', 3) uint8; the photo itself where the size does not change.

    Raises:
        ImageError: another shape or dtype.
    """
    _check_photo(photo)
    height, width = resized_shape(photo.shape[0], photo.shape[1], resize)
    if (height, width) == photo.shape[:2]:
        return photo
    image = Image.fromarray(np.ascontiguousarray(photo))
    return np.array(image.resize((width, height), _FILTERS[resize.interpolation]))


def to_pixels(
    photo: np.ndarray,
    normalization: Normalization,
    divisor: int = 1,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | None" = None,
) -> "torch.Tensor":
    """Normalise a photo, then pad it with 0 at the bottom and right (METHOD section 1).

    Args:
        photo: (H, W, 3) uint8 RGB.
        normalization: channel statistics of the model.
        divisor: both sides are padded up to a multiple of it.
        device: where the tensor is to lie; None is the CPU.
        dtype: float type of the answer; None is float32. The arithmetic is float32 in any case.

    Returns:
        Tensor (3, Hp, Wp).

    Raises:
        ImageError: another shape or dtype of the photo.
        SettingError: a divisor below 1.
    """
    import torch  # here, so that reading and saving pictures does not wait for it

    _check_photo(photo)
    if divisor < 1:
        raise SettingError(f"divisor must be at least 1, not {divisor}")
    pixels = torch.tensor(photo, device=device).permute(2, 0, 1).to(torch.float32)
    mean = pixels.new_tensor(normalization.mean).view(3, 1, 1)
    std = pixels.new_tensor(normalization.std).view(3, 1, 1)
    pixels = (pixels - mean) / std
    bottom, right = -photo.shape[0] % divisor, -photo.shape[1] % divisor
    return torch.nn.functional.pad(pixels, (0, right, 0, bottom)).to(dtype or torch.float32).contiguous()


def _check_photo(photo: np.ndarray) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise ImageError(f"photo must be (H, W, 3) uint8, not {photo.shape} {photo.dtype}: read it with read_photo")
