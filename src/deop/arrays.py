"""Results of any engine as numpy arrays."""

from typing import Any

import numpy as np


def to_float32(values: Any) -> np.ndarray:
    """A torch tensor on any device or an array, as a float32 array; not copied if it is float32 on the CPU."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, np.float32)
