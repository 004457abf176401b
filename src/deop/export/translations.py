"""ONNX forms of single operations that onnxruntime computes faster than those that torch's exporter writes."""

from collections.abc import Callable
from typing import Any

import torch


def translations(opset: int) -> dict[Any, Callable[..., Any]]:
    """Operations of torch and the functions that write them, as ``torch.onnx.export`` takes them.

    Args:
        opset: version of the ONNX operators.
    """
    import onnxscript

    op: Any = onnxscript.values.Opset("", opset)

    def softmax(x: Any, dim: int, dtype: Any = None) -> Any:
        # ONNX Runtime transposes the input twice for any other than the last dimension.
        if dim in (-1, len(x.shape) - 1):
            return op.Softmax(x, axis=-1)
        axis = op.Constant(value_ints=[dim])
        shares = op.Exp(op.Sub(x, op.ReduceMax(x, axis, keepdims=1)))
        return op.Div(shares, op.ReduceSum(shares, axis, keepdims=1))

    def logit(x: Any, eps: float | None = None) -> Any:
        # torch's exporter clamps by comparisons and Where.
        if eps is not None:
            x = op.Clip(x, op.Constant(value_float=eps), op.Constant(value_float=1 - eps))
        return op.Log(op.Div(x, op.Sub(op.Constant(value_float=1.0), x)))

    def addcmul(x: Any, one: Any, other: Any, value: float = 1.0) -> Any:
        # torch's exporter multiplies the first factor by the value, which is the larger one in refinement.py.
        return op.Add(x, op.Mul(one, op.Mul(other, op.Constant(value_float=float(value)))))

    return {
        torch.ops.aten.addcmul.default: addcmul,
        torch.ops.aten.logit.default: logit,
        torch.ops.aten.softmax.int: softmax,
    }
