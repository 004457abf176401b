"""Return type of all proposers; ``deop.protocols.Proposer`` describes a proposer."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Proposals:
    """The masks proposed for one image.

    Attributes:
        logits: (N, h, w) float, mask logits over the padded network input, at any stride; the sigmoid is the share of
            a cell that the mask covers. N may be 0.
        slots: (N,) int64, the proposer's query that produced each mask; anchor queries tied to slots are selected by it
            (docs/method.md §5). None if the masks do not come from queries (given masks, segment-anything). Always on
            the CPU, so that they can be checked without waiting for a device.
        exact: (N, H, W) bool on the CPU, given masks at the size of the photo; assembly then uses these instead of
            upsampled logits. None for masks of a proposer.
        embeddings: (N, C) float, the proposer's own class embeddings (docs/method.md §2), or None; used only by the
            ensemble of the two-stream classifier.
        scores: (N,) float in [0, 1], how likely each mask is a region of its own, whatever its name: the network's
            1 - P("no object") or predicted IoU; used by ``proposals.partition``. None: unknown.
        class_scores: (N, C) float, the network's own probabilities of its classes, without "no object"; used by
            ``Settings.prior`` only. None for masks that were not classified.
        class_names: names of the C classes.
    """

    logits: Tensor
    slots: Tensor | None = None
    exact: Tensor | None = None
    embeddings: Tensor | None = None
    scores: Tensor | None = None
    class_scores: Tensor | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.logits.shape[0]

    def keep(self, index: Tensor) -> "Proposals":
        """The proposals at ``index``, (M,) int64 or (N,) bool, in that order."""
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        if torch.equal(index, torch.arange(len(self), device=index.device)):
            return self  # avoids a copy of exact masks, which are large
        return Proposals(
            self.logits[index],
            None if self.slots is None else self.slots[index.cpu()],
            None if self.exact is None else self.exact[index.cpu()],
            None if self.embeddings is None else self.embeddings[index],
            None if self.scores is None else self.scores[index],
            None if self.class_scores is None else self.class_scores[index],
            self.class_names,
        )

    def to(self, device: torch.device) -> "Proposals":
        """The same proposals on another device; ``slots`` and ``exact`` stay on the CPU."""
        embeddings, scores, class_scores = (
            None if values is None else values.to(device)
            for values in (self.embeddings, self.scores, self.class_scores)
        )
        return Proposals(
            self.logits.to(device), self.slots, self.exact, embeddings, scores, class_scores, self.class_names
        )
