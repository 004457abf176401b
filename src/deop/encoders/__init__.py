"""Vision and text encoders with a joint space, and severance, the paper's subject. Independent of ``proposals``."""

from deop.encoders.severance import Severance
from deop.encoders.types import VisionFeatures

__all__ = ["Severance", "VisionFeatures"]
