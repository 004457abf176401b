"""Pictures of the frames of a video: all of one size, with a legend that does not change."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from deop.results.blending import swatches
from deop.results.colours import vocabulary_colours
from deop.results.legend import LegendLine, add_legend
from deop.results.segmentation import Segmentation


class FramePainter:
    """Draws the results of frames of one size.

    The legend of a photo lists what that photo shows, so it would jump from frame to frame. Here it lists all names, in
    their order and without shares, as many as fit.

    Args:
        names: K names.
        options: the arguments of ``Segmentation.overlay``.
        list_names: whether there is a legend; names are written into the regions in any case.
    """

    def __init__(self, names: Sequence[str], options: Mapping[str, Any], *, list_names: bool = True) -> None:
        self.options = {**options, "legend": False}
        heatmap = options.get("style") == "heatmap"
        self.names = names if list_names and options.get("legend", True) and not heatmap else ()
        self._sheet: Image.Image | None = None

    def draw(self, result: Segmentation) -> np.ndarray:
        """The picture of a frame, (H', W', 3) uint8: the size depends on that of the frame only."""
        picture = result.overlay(**self.options)
        if not self.names:
            return np.asarray(picture)
        if self._sheet is None:
            self._sheet = add_legend(picture, self._lines())
        sheet = self._sheet.copy()
        sheet.paste(picture, (0, 0))
        return np.asarray(sheet)

    def _lines(self) -> list[LegendLine]:
        style = self.options.get("style", "overlay")
        alpha = 1.0 if style in ("outline", "labels") else self.options.get("alpha", 0.5)
        shown = swatches(vocabulary_colours(self.names), alpha)
        return [LegendLine(name, None, tuple(colour.tolist())) for name, colour in zip(self.names, shown, strict=True)]
