"""Pixels and text into one space. Severance, the subject of the paper, happens here; masks come from elsewhere."""

from deop.encoders.severance import Severance
from deop.encoders.types import VisionFeatures

__all__ = ["Severance", "VisionFeatures"]
