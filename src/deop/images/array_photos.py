"""Photos in memory, arrays and tensors, as 8-bit RGB: which shapes, types and values are accepted."""

from typing import Any

import numpy as np
from PIL import Image

from deop.errors import ImageError
from deop.images.bit_depth import warn_if_dark


def is_tensor(source: Any) -> bool:
    """Whether an object is a tensor of torch, which is not imported here."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(source).__mro__) and hasattr(
        source, "detach"
    )


def tensor_to_array(tensor: Any, name: str) -> np.ndarray:
    """The values of a tensor as an array (H, W) or (H, W, channels)."""
    _, _, channels_first = tensor_layout(tuple(tensor.shape), name)
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) in ("torch.bfloat16", "torch.float16"):
        tensor = tensor.float()
    array: np.ndarray = tensor.numpy()
    return array.transpose(1, 2, 0) if channels_first else array


def tensor_layout(shape: tuple[int, ...], name: str) -> tuple[int, int, bool]:
    """Height, width, and whether the channels come first.

    Raises:
        ImageError: another shape than that of a photo, or one that can be read in both ways.
    """
    channels = (1, 3, 4)
    if len(shape) == 2:
        return shape[0], shape[1], False
    if len(shape) == 4:
        raise ImageError(f"cannot read {name}: it is a batch; pass its photos as a list, such as list(tensor)")
    if len(shape) != 3 or not (shape[0] in channels or shape[2] in channels):
        raise ImageError(f"cannot read {name}: pass a tensor (3, H, W), (1, H, W), (H, W, 3) or (H, W)")
    if shape[0] in channels and shape[2] in channels:
        raise ImageError(
            f"cannot read {name}: its channels may be first or last; pass an array (H, W, channels), which is "
            "tensor.permute(1, 2, 0).numpy() if they are first, and tensor.numpy() if they are last"
        )
    first = shape[0] in channels
    return (shape[1], shape[2], True) if first else (shape[0], shape[1], False)


def photo_of_array(array: np.ndarray, name: str) -> np.ndarray:
    """An array as 8-bit RGB; ``images.reading.read_photo`` says which arrays are accepted.

    Args:
        array: the photo.
        name: what errors call it.

    Returns:
        Array (H, W, 3) uint8. A copy, unless ``array`` is a read-only one of this form that owns its memory.

    Raises:
        ImageError: another shape, type or range of values.
    """
    if array.size == 0:
        raise ImageError(f"cannot read {name}: it has no pixels")
    if array.ndim == 4:
        raise ImageError(f"cannot read {name}: it is a batch; pass its photos as a list")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        hint = "pass (H, W, 3) or (H, W)"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "its channels come first; pass array.transpose(1, 2, 0)"
        raise ImageError(f"cannot read {name}: {hint}")
    pixels = _to_8_bits(array, name)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        return np.array(over_white(Image.fromarray(np.ascontiguousarray(pixels))))
    flags = pixels.flags
    if not flags.writeable and flags.owndata and flags.c_contiguous:
        return pixels  # cannot change: a photo that has been read before is not copied
    return np.array(pixels, order="C")


def _to_8_bits(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        warn_if_dark(array, name)
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # round(x / 257): 65535 -> 255
    if array.dtype.kind not in "iuf":
        raise ImageError(f"cannot read {name}: pass uint8, uint16 or floats in [0, 1]")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        # NaN fails both comparisons; the margin allows for rounding errors.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            hint = "divide by 255" if 1 < high <= 255 and low >= 0 else "scale them, or tone-map the image"
            raise ImageError(f"cannot read {name}: its floats range from {low:g} to {high:g}, not from 0 to 1; {hint}")
        return (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)
    if low < 0 or high > 255:
        raise ImageError(
            f"cannot read {name}: its integers range from {low} to {high}; pass uint8 for 0..255, uint16 for 0..65535"
        )
    return array.astype(np.uint8)


def over_white(rgba: Image.Image) -> Image.Image:
    """An image with transparency as RGB over white."""
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
