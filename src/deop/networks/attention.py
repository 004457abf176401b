"""Scaled dot-product attention in a form that can also be exported as an ONNX graph."""

import torch
import torch.nn.functional as F
from torch import Tensor

HIDDEN = -1e4
"""Score of tokens that are not attended to in exported graphs; their weight is exactly 0."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T + mask) v, by torch's fused kernel, or during ``torch.export`` by plain products.

    The exporter cannot trace the fused kernel with dynamic shapes, since its choice of kernel depends on strides.

    Args:
        query: (..., Q, d) float.
        key: (..., L, d) float.
        value: (..., L, d) float.
        mask: broadcast to (..., Q, L): bool, False for tokens that are not attended to, or float, added to the scores;
            None: all tokens. Each query attends to at least one token.
        scale: factor of the scores; None: 1 / sqrt(d).

    Returns:
        (..., Q, d).
    """
    if not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return (query @ key.mT).softmax(-1) @ value
    if mask.dtype == torch.bool and mask.shape[-2] == 1:
        # A mask of one row for all queries becomes one more channel of the keys: adding it to the scores would read and
        # write them once more, and there are many more scores than keys.
        row = torch.zeros_like(mask, dtype=key.dtype).masked_fill(~mask, HIDDEN).mT
        key = torch.cat([key, row.expand(*key.shape[:-1], 1)], -1)
        query = torch.cat([query, torch.ones_like(query[..., :1])], -1)
        # Head by head, so that the memory of the scores, which are large here, is used again while it is in the cache.
        heads = zip(query.unbind(-3), key.unbind(-3), value.unbind(-3), strict=True)
        return torch.stack([(one @ keys.mT).softmax(-1) @ values for one, keys, values in heads], -3)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    return (query @ key.mT + mask).softmax(-1) @ value
