"""Scaled dot-product attention in a form that can also be exported as an ONNX graph."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    if mask is not None:
        # A mask of one row for all queries is added, since filling has to read a mask of the size of the scores.
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
        scores = scores + mask
    return scores.softmax(-1) @ value
