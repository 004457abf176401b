"""A GPU kernel that the package is compared with; import this module only where Triton is installed."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _quick_gelu(pointer, count, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = offsets < count
    x = tl.load(pointer + offsets, mask=valid).to(tl.float32)
    y = x / (1.0 + tl.exp(-1.702 * x))
    tl.store(pointer + offsets, y.to(pointer.dtype.element_ty), mask=valid)


def quick_gelu_in_place(x: Tensor) -> Tensor:
    """Replace a contiguous tensor by x * sigmoid(1.702 x), reading and writing it once."""
    count = x.numel()
    _quick_gelu[(triton.cdiv(count, 4096),)](x, count, BLOCK=4096, num_warps=8)
    return x
