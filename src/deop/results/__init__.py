"""Results: label map, segments, pictures and file formats; needs no torch."""

from deop.results.label_maps import read_instances, read_labels
from deop.results.segmentation import Segmentation
from deop.results.segments import Segment

__all__ = ["Segment", "Segmentation", "read_instances", "read_labels"]
