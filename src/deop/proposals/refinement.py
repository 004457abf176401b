"""Masks that follow the photo's edges: a division of the photo, refined by the colours around each cell."""

import torch.nn.functional as F
from torch import Tensor

REACHES = (4, 2, 1)
"""How far the eight cells are that a cell hears, round by round; the nearest last, for the exact place of a border."""


def refine_division(logits: Tensor, colours: Tensor, *, weight: float = 3.0, unit: float = 7.0) -> Tensor:
    """Let every cell of a division hear the cells around it that look alike.

    Mean field steps of a conditional random field with Potts potentials (Kraehenbuehl and Koltun 2011), over eight
    neighbours at a time instead of all cells. From Q = softmax(logits), one step for each of ``REACHES``,

        Q_i <- softmax_n(logits_i + weight * sum_j exp(-|c_i - c_j|^2 / (2 unit^2)) Q_j)

    with j the eight cells around i at that distance. So borders move to where colours change, and islands of a
    few cells go over to what surrounds them unless it looks different.

    Args:
        logits: (N, h, w) float, whose softmax over N is the division.
        colours: (3, h, w) float, CIE Lab of the cells.
        weight: of a neighbour of the same colour against the logits; 0 leaves the division as it is.
        unit: difference of colour at which a neighbour's weight is 0.6 of the most.

    Returns:
        (N, h, w) shares that add up to 1 in every cell.
    """
    shares = logits.softmax(0)
    if not len(logits) or not weight:
        return shares
    for reach in REACHES:
        heard = logits.clone()
        for near, colour in zip(_around(shares, reach), _around(colours, reach), strict=True):
            alike = ((colour - colours).square().sum(0) / (-2 * unit**2)).exp()
            heard.addcmul_(near, alike[None], value=weight)
        shares = heard.softmax(0)
    return shares


def _around(cells: Tensor, reach: int) -> list[Tensor]:
    """Maps (C, h, w) as the eight neighbours of each cell at a distance have them; those beyond the rim: the rim's."""
    height, width = cells.shape[-2:]
    padded = F.pad(cells[None], (reach,) * 4, mode="replicate")[0]
    places = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return [padded[:, y * reach : y * reach + height, x * reach : x * reach + width] for y, x in places]
