"""Reading photos and preparing them for a network; needs neither torch nor a model."""

from deop.images.preprocessing import Normalization, Resize
from deop.images.reading import Photo, read_photo

__all__ = ["Normalization", "Photo", "Resize", "read_photo"]
