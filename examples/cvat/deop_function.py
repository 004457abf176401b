"""An auto-annotation function for CVAT: deop names what a task's photos show, and CVAT stores it as masks or polygons.

    pip install deop cvat-cli
    cvat-cli --server-host https://cvat.example.org --auth USER task auto-annotate 137 \
        --function-file deop_function.py -p names=str:"cat, sofa|couch, wall" --allow-unmatched-labels

The labels of the task that have one of the names are annotated. README.md has more.
"""

from functools import cached_property

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask

import deop
from deop.results.polygons import join_rings


class DeopFunction:
    """A detection function of CVAT's SDK.

    Args:
        names: the labels, separated by commas; ``sofa|couch`` are synonyms, of which the first is the label in CVAT.
        model: a model that deop can load.
        mode: "panoptic" (one shape per thing, one per kind of stuff), "instance" (things only) or "semantic".
        tolerance: of polygons, in pixels.
    """

    def __init__(self, names: str, model: str = "nano", mode: str = "panoptic", tolerance: float = 1.0) -> None:
        self._model = deop.load(model)
        self._vocabulary = self._model.vocabulary(names)
        self._mode, self._tolerance = mode, tolerance

    @cached_property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The labels, which CVAT compares with those of the task by name."""
        labels = [cvataa.label_spec(name, index, type="mask") for index, name in enumerate(self._vocabulary.names)]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """The shapes of one photo."""
        result = self._model.segment(image, self._vocabulary, mode=self._mode)
        outlines = result.to_polygons(self._tolerance) if context.conv_mask_to_poly else None
        shapes = []
        for index, segment in enumerate(result.segments):
            if segment.score < (context.conf_threshold or 0):
                continue
            if outlines is not None:
                for polygon in outlines[index]:  # one for each connected piece
                    points = join_rings([polygon]).ravel().tolist()  # CVAT's polygons have no holes
                    shapes.append(cvataa.polygon(segment.class_id, points, score=segment.score))
            else:
                points = encode_mask(segment.mask, segment.box)
                shapes.append(cvataa.mask(segment.class_id, points, score=segment.score))
        return shapes


create = DeopFunction
"""What ``cvat-cli`` calls with the parameters of ``-p``."""
