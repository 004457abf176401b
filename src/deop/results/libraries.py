"""Results as objects of other libraries: supervision and FiftyOne."""

from typing import TYPE_CHECKING, Any

import numpy as np

from deop.errors import MissingDependencyError, SettingError

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


def supervision_detections(result: "Segmentation") -> Any:
    """``supervision.Detections`` with one detection per segment."""
    try:
        import supervision as sv
    except ImportError as error:
        raise MissingDependencyError(
            'to_supervision needs the library supervision: `pip install "deop[supervision]"`'
        ) from error
    segments = result.segments
    masks = np.zeros((len(segments), *result.shape), bool)
    for mask, segment in zip(masks, segments, strict=True):
        x0, y0, x1, y1 = segment.box
        mask[y0:y1, x0:x1] = segment.crop
    return sv.Detections(
        xyxy=np.array([segment.box for segment in segments], np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array([segment.score for segment in segments], np.float32),
        class_id=np.array([segment.class_id for segment in segments], int),
        data={"class_name": np.array([segment.name for segment in segments], str)},
    )


def fiftyone_label(result: "Segmentation", kind: str) -> Any:
    """``fiftyone.Detections`` or ``fiftyone.Segmentation``; ``Segmentation.to_fiftyone`` describes them."""
    if kind not in ("detections", "segmentation"):
        raise SettingError(f'unknown kind {kind!r} of to_fiftyone: use "detections" or "segmentation"')
    try:
        import fiftyone as fo
    except ImportError as error:
        raise MissingDependencyError('to_fiftyone needs FiftyOne: `pip install "deop[fiftyone]"`') from error
    height, width = result.shape
    if kind == "segmentation":
        dtype = np.uint8 if len(result.names) <= 255 else np.uint16
        return fo.Segmentation(mask=(result.label_map + 1).astype(dtype))
    detections = []
    for segment in result.segments:
        x0, y0, x1, y1 = segment.box
        box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
        detections.append(
            fo.Detection(label=segment.name, bounding_box=box, mask=segment.crop, confidence=segment.score)
        )
    return fo.Detections(detections=detections)
