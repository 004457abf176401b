"""Sources of class-agnostic masks. Proposers never see class names and are independent of ``encoders``."""

from deop.proposals.types import Proposals

__all__ = ["Proposals"]
