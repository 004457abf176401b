"""Photos in the square frame of networks that take one size only."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def shape_in_frame(height: int, width: int, frame: int, multiple: int) -> tuple[int, int]:
    """Size of an image in the upper left of a square frame, with its shape kept up to rounding.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        frame: side of the frame in pixels, a multiple of ``multiple``.
        multiple: pixels per cell of the network's masks, so that a cell ends with the image.

    Returns:
        (rows, columns), multiples of ``multiple``; the longer one is ``frame``.
    """
    scale = frame / max(height, width) / multiple
    return max(1, round(height * scale)) * multiple, max(1, round(width * scale)) * multiple


def place_in_frame(pixels: Tensor, rows: int, columns: int, frame: int, padding: Sequence[float] = (0, 0, 0)) -> Tensor:
    """Images (B, 3, H, W), resized to (rows, columns), in the upper left of frames (B, 3, frame, frame) float32.

    Args:
        pixels: normalised.
        rows: height in the frame, in pixels.
        columns: width in the frame, in pixels.
        frame: side of the frame, in pixels.
        padding: value of the rest of the frame, per channel.
    """
    values = torch.tensor(padding, dtype=torch.float32, device=pixels.device)[:, None, None]
    result = values.expand(len(pixels), -1, frame, frame).clone()
    result[..., :rows, :columns] = F.interpolate(pixels.float(), (rows, columns), mode="bilinear", antialias=True)
    return result
