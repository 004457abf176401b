"""Sources of class-agnostic masks. A proposer never sees a class name, and knows nothing of the encoder."""

from deop.proposals.types import Proposals

__all__ = ["Proposals"]
