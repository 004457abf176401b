"""Sources of class-agnostic masks. None of them ever sees a name.

A proposer is anything with a ``normalization`` and a call ``proposer(pixels) -> list[Proposals]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Proposals:
    """The masks proposed for one image.

    Attributes:
        logits: (N, h, w) float, mask logits over the padded network input; sigmoid gives the share of the cell that
            the mask covers. N may be 0. The stride (input height / h) is any.
        slots: (N,) int64 on the CPU, so that they can be checked without waiting for a device: which query of the
            proposer made each mask, or None where that has no meaning (masks given by the caller, segment-anything).
            Anchor queries tied to slots are looked up by it (METHOD section 5).
        exact: (N, H, W) bool on the CPU, the caller's own masks at the photo's size where they gave them; assembly
            then uses these instead of upsampled logits.
        embeddings: (N, C) float, the proposer's own class embeddings (METHOD section 2) where it has them; only the
            ensemble of the two-stream baseline looks at them.
    """

    logits: Tensor
    slots: Tensor | None = None
    exact: Tensor | None = None
    embeddings: Tensor | None = None

    def __len__(self) -> int:
        return self.logits.shape[0]

    def keep(self, index: Tensor) -> "Proposals":
        """The proposals at ``index`` ((M,) int64 or (N,) bool), in that order."""
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        if torch.equal(index, torch.arange(len(self), device=index.device)):
            return self  # exact masks of a large photo are not copied for nothing
        return Proposals(
            self.logits[index],
            None if self.slots is None else self.slots[index.cpu()],
            None if self.exact is None else self.exact[index.cpu()],
            None if self.embeddings is None else self.embeddings[index],
        )

    def to(self, device: torch.device) -> "Proposals":
        """The same on another device; ``slots`` and ``exact``, which assembly takes a few rows at a time, stay."""
        embeddings = None if self.embeddings is None else self.embeddings.to(device)
        return Proposals(self.logits.to(device), self.slots, self.exact, embeddings)
