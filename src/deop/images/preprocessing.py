"""From photos to the input of a network: resizing, normalising and padding (docs/method.md §1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

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
    """Channel statistics that a model was trained with: ``(pixel - mean) / std`` (docs/method.md §1).

    Args:
        mean: of red, green and blue, in units of 0..255.
        std: of red, green and blue, in units of 0..255, positive.

    Raises:
        SettingError: ``mean`` or ``std`` is not three finite numbers, or ``std`` is not positive.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for label in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, label))
            if len(values) != 3 or not all(np.isfinite(values)):
                raise SettingError(f"normalization {label} must be three finite numbers, not {values}")
            object.__setattr__(self, label, values)  # a tuple, which is hashable; JSON gives a list
        if min(self.std) <= 0:
            raise SettingError(f"normalization std must be positive, not {self.std}")


IMAGENET = Normalization((123.675, 116.280, 103.530), (58.395, 57.120, 57.375))
CLIP = Normalization(
    (255 * 0.48145466, 255 * 0.4578275, 255 * 0.40821073),
    (255 * 0.26862954, 255 * 0.26130258, 255 * 0.27577711),
)


@dataclass(frozen=True)
class Resize:
    """The size at which a model sees photos (docs/method.md §1).

    Args:
        short_side: pixels of the shorter side after resizing; None: photos keep their size.
        long_side: maximum of the longer side after resizing, pixels, at least ``short_side``.
        interpolation: Pillow's "nearest", "bilinear" or "bicubic" (antialiased when shrinking).
        divisor: both sides are padded to a multiple of it, pixels.

    Raises:
        SettingError: a field is outside its range.
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
                raise SettingError(f"resize {label} must be an integer of at least 1, not {value!r}")
        if self.short_side is not None and self.long_side < self.short_side:
            raise SettingError(f"resize long_side ({self.long_side}) must not be below short_side ({self.short_side})")
        if self.interpolation not in _FILTERS:
            raise SettingError(
                f"unknown interpolation {self.interpolation!r}: use one of {', '.join(sorted(_FILTERS))}"
            )


def resized_shape(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """The size of a photo after resizing: first by the shorter side, then limited by the longer (docs/method.md §1).

    Args:
        height: height of the photo, pixels.
        width: width of the photo, pixels.
        resize: the rule.

    Returns:
        (height, width) in pixels, rounded half up, both at least 1.

    >>> resized_shape(480, 640, Resize(short_side=512))
    (512, 683)
    """
    if resize.short_side is None:
        return height, width
    scale = resize.short_side / min(height, width)
    # The shorter side is set and not multiplied, so that rounding errors of the scale cannot change it.
    new_height, new_width = (
        (float(resize.short_side), scale * width) if height < width else (scale * height, float(resize.short_side))
    )
    if max(new_height, new_width) > resize.long_side:
        scale = resize.long_side / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_photo(photo: np.ndarray, resize: Resize) -> np.ndarray:
    """Resize a photo with Pillow on 8-bit pixels, as in the evaluation of the published models.

    Args:
        photo: (H, W, 3) uint8.
        resize: the rule.

    Returns:
        Array (H', W', 3) uint8; the photo itself if its size does not change.

    Raises:
        ImageError: the photo has another shape or dtype.
    """
    _check_photo(photo)
    height, width = resized_shape(photo.shape[0], photo.shape[1], resize)
    if (height, width) == photo.shape[:2]:
        return photo
    image = Image.fromarray(np.ascontiguousarray(photo))
    return np.array(image.resize((width, height), _FILTERS[resize.interpolation]))


def pixel_array(photo: np.ndarray, normalization: Normalization, divisor: int = 1) -> np.ndarray:
    """Normalise a photo, then pad it with 0 at the bottom and the right (docs/method.md §1).

    Args:
        photo: (H, W, 3) uint8 RGB.
        normalization: channel statistics of the model.
        divisor: both sides are padded to a multiple of it, pixels.

    Returns:
        Array (3, H'', W'') float32.

    Raises:
        ImageError: the photo has another shape or dtype.
        SettingError: ``divisor`` is below 1.
    """
    _check_photo(photo)
    if divisor < 1:
        raise SettingError(f"divisor must be at least 1, not {divisor}")
    height, width = photo.shape[:2]
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (normalization.mean, normalization.std))
    pixels = np.zeros((3, height + -height % divisor, width + -width % divisor), np.float32)
    inside = pixels[:, :height, :width]
    np.subtract(photo.transpose(2, 0, 1), mean, out=inside)
    inside /= std
    return pixels


def to_pixels(
    photo: np.ndarray,
    normalization: Normalization,
    divisor: int = 1,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | None" = None,
) -> "torch.Tensor":
    """``pixel_array`` as a tensor.

    Args:
        photo: (H, W, 3) uint8 RGB.
        normalization: channel statistics of the model.
        divisor: both sides are padded to a multiple of it, pixels.
        device: device of the tensor; None: the CPU.
        dtype: float type of the tensor; None: float32. The values are computed in float32 in any case.

    Returns:
        Tensor (3, H'', W'').

    Raises:
        ImageError: the photo has another shape or dtype.
        SettingError: ``divisor`` is below 1.
    """
    import torch  # only here: the rest of this module works without torch

    if device is None or torch.device(device).type == "cpu":
        return torch.from_numpy(pixel_array(photo, normalization, divisor)).to(dtype or torch.float32)
    _check_photo(photo)
    if divisor < 1:
        raise SettingError(f"divisor must be at least 1, not {divisor}")
    return normalize(torch.tensor(photo, device=device)[None], normalization, divisor, dtype)[0]


def to_batch(
    photos: Sequence[np.ndarray],
    normalization: Normalization,
    divisor: int,
    device: "torch.device",
    dtype: "torch.dtype | None" = None,
) -> "torch.Tensor":
    """``to_pixels`` of B photos whose padded sizes are equal, as one tensor.

    Photos of one size are copied to a GPU in one transfer from pinned memory, for which the host does not wait.

    Returns:
        Tensor (B, 3, H'', W'').
    """
    import torch

    if device.type != "cuda" or len({photo.shape for photo in photos}) > 1:
        return torch.stack([to_pixels(photo, normalization, divisor, device, dtype) for photo in photos])
    for photo in photos:
        _check_photo(photo)
    pinned = torch.empty(len(photos), *photos[0].shape, dtype=torch.uint8, pin_memory=True)
    np.stack(photos, out=pinned.numpy())
    return normalize(pinned.to(device, non_blocking=True), normalization, divisor, dtype)


def normalize(
    photos: "torch.Tensor", normalization: Normalization, divisor: int = 1, dtype: "torch.dtype | None" = None
) -> "torch.Tensor":
    """Normalise and pad photos (B, H, W, 3) uint8 on their device, as ``to_pixels`` does: (B, 3, H'', W'')."""
    import torch

    mean, std = statistics_on(normalization, photos.device)
    pixels = (photos.permute(0, 3, 1, 2).to(torch.float32) - mean) / std
    bottom, right = -photos.shape[1] % divisor, -photos.shape[2] % divisor
    return torch.nn.functional.pad(pixels, (0, right, 0, bottom)).to(dtype or torch.float32).contiguous()


def statistics_on(normalization: Normalization, device: "torch.device") -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean and standard deviation (3, 1, 1) float32 on a device."""
    mean, std = (constant_on(values, device).view(3, 1, 1) for values in (normalization.mean, normalization.std))
    return mean, std


def constant_on(values: tuple[Any, ...], device: "torch.device") -> "torch.Tensor":
    """A float32 tensor of constant values on a device; not to be modified.

    On a GPU it is created once and kept, because copying it there makes the host wait for the device.
    """
    import torch

    if device.type == "cuda":
        return _kept_constant(values, device)
    return torch.tensor(values, dtype=torch.float32, device=device)


@cache
def _kept_constant(values: tuple[Any, ...], device: "torch.device") -> "torch.Tensor":
    import torch

    with torch.inference_mode(False):  # an inference tensor could not be used in training
        return torch.tensor(values, dtype=torch.float32, device=device)


def _check_photo(photo: np.ndarray) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise ImageError(
            f"the photo must be (H, W, 3) uint8, not {photo.shape} {photo.dtype}: read it with deop.images.read_photo"
        )
