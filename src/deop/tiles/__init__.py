"""Images of any size: read in overlapping tiles, labelled from blended class scores, written as tiled files.

It builds on ``surface``, ``labelling``, ``images`` and ``results``, works with every engine and never imports torch.
rasterio and tifffile are imported where a file needs them.
"""

from deop.tiles.segmenting import TiledResult, segment_photo, segment_tiles

__all__ = ["TiledResult", "segment_photo", "segment_tiles"]
