"""Photos in the square frame of networks that take one size only."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deop.networks.resize_matrices import antialiased_weights


def shape_in_frame(height: int, width: int, frame: int, multiple: int) -> tuple[int, int]:
    """Size of an image in the upper left of a square frame, with its shape kept up to rounding.

    Args:
        height: of the image, in pixels; like ``width``, it may be symbolic, in a graph that is exported.
        width: of the image, in pixels.
        frame: side of the frame in pixels, a multiple of ``multiple``.
        multiple: pixels per cell of the network's masks, so that a cell ends with the image.

    Returns:
        (rows, columns), multiples of ``multiple``; the longer one is ``frame``.
    """
    longer, cells = torch.sym_max(height, width), frame // multiple
    rows, columns = (torch.sym_max(1, _rounded_ratio(side * cells, longer)) * multiple for side in (height, width))
    return rows, columns


def _rounded_ratio(number: int, divisor: int) -> int:
    """``round(number / divisor)`` of positive integers, in operations that torch can export; ties go to even numbers.

    >>> [_rounded_ratio(number, 2) for number in range(8)], [round(number / 2) for number in range(8)]
    ([0, 0, 1, 2, 2, 2, 3, 4], [0, 0, 1, 2, 2, 2, 3, 4])
    """
    pairs, rest = number // (2 * divisor), number % (2 * divisor)
    # Up to half a divisor, the rest counts as 0; above, as 1; from one and a half divisors, as 2.
    return 2 * pairs + (2 * rest + 3 * divisor - 1) // (4 * divisor) + (2 * rest + divisor) // (4 * divisor)


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
    if torch.compiler.is_exporting():  # the result then has no size that depends on the image
        inside = [torch.arange(frame) < side for side in (rows, columns)]
        down, across = (
            antialiased_weights(length, side, frame) * within[:, None]
            for length, side, within in zip(pixels.shape[-2:], (rows, columns), inside, strict=True)
        )
        return down @ pixels.float() @ across.mT + values * ~(inside[0][:, None] & inside[1])
    result = values.expand(len(pixels), -1, frame, frame).clone()
    result[..., :rows, :columns] = F.interpolate(pixels.float(), (rows, columns), mode="bilinear", antialias=True)
    return result
