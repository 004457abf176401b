"""Refinement of masks by the colours of the photo, so that borders follow edges."""

import torch.nn.functional as F
from torch import Tensor

REACHES = (4, 2, 1)
"""Distance of the eight neighbours in each step, in cells; the nearest last, for the exact position of borders."""


def refine_division(logits: Tensor, colours: Tensor, *, weight: float = 3.0, unit: float = 7.0) -> Tensor:
    """Adapt a division of the photo to its colours.

    Mean field steps of a conditional random field with Potts potentials (Kraehenbuehl and Koltun 2011), over eight
    neighbours at a time instead of all cells. Starting from Q = softmax(logits), each step of ``REACHES`` computes

        Q_i <- softmax_n(logits_i + weight * sum_j exp(-|c_i - c_j|^2 / (2 unit^2)) Q_j)

    with j the eight cells around i at that distance. Borders move to edges of colour, and small regions that look
    like their surroundings disappear.

    Args:
        logits: (N, h, w) float, whose softmax over N is the division.
        colours: (3, h, w) float, CIE Lab of the cells.
        weight: weight of a neighbour of the same colour relative to the logits; 0: no refinement.
        unit: difference in colour at which the weight of a neighbour has fallen to 0.6 of its maximum.

    Returns:
        (N, h, w) shares that sum to 1 in every cell.
    """
    shares = logits.softmax(0)
    if logits.shape[0] == 0 or not weight:
        return shares
    for reach in REACHES:
        updated = logits.clone()
        for near, colour in zip(_around(shares, reach), _around(colours, reach), strict=True):
            alike = ((colour - colours).square().sum(0) / (-2 * unit**2)).exp()
            updated.addcmul_(near, alike[None], value=weight)
        shares = updated.softmax(0)
    return shares


def _around(cells: Tensor, reach: int) -> list[Tensor]:
    """Maps (C, h, w) shifted so that each cell has the value of one of its eight neighbours; edges are repeated."""
    height, width = cells.shape[-2:]
    padded = F.pad(cells[None], (reach,) * 4, mode="replicate")[0]
    offsets = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return [padded[:, y * reach : y * reach + height, x * reach : x * reach + width] for y, x in offsets]
