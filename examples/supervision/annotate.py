"""Draw a result with supervision's annotators, and count the things in it.

Usage: python annotate.py PHOTO NAMES OUT. Needs ``pip install "deop[supervision]"``.
"""

import sys
from collections import Counter

import numpy as np
import supervision as sv
from PIL import Image

import deop

LEAST_SCORE = 0.3


def annotate(photo: str, names: str) -> tuple[Image.Image, Counter[str]]:
    """The photo with masks, boxes of things and their names; and the number of things by name."""
    result = deop.load("nano").segment(photo, names, mode="panoptic")
    detections = result.to_supervision()
    detections = detections[detections.confidence >= LEAST_SCORE]
    things = detections[_things(result, detections)]

    # The colours of deop's own pictures, in the order of the class ids.
    palette = sv.ColorPalette([sv.Color(*colour) for colour in result.colours.tolist()])
    size = sv.calculate_optimal_text_scale(result.shape[::-1])
    width = sv.calculate_optimal_line_thickness(result.shape[::-1])
    scene = Image.fromarray(result.photo)
    scene = sv.MaskAnnotator(palette, opacity=0.5).annotate(scene, detections)
    scene = sv.BoxAnnotator(palette, thickness=width).annotate(scene, things)
    texts = [f"{name} {score:.0%}" for name, score in zip(things["class_name"], things.confidence, strict=True)]
    labels = sv.LabelAnnotator(
        palette, text_scale=size, text_thickness=width, text_position=sv.Position.CENTER_OF_MASS, smart_position=True
    )
    scene = labels.annotate(scene, things, texts)
    return scene, Counter(map(str, things["class_name"]))


def _things(result: deop.Segmentation, detections: sv.Detections) -> np.ndarray:
    """Whether each detection is a thing, such as a cat, and not stuff, such as a wall."""
    isthing = {segment.class_id: bool(segment.isthing) for segment in result.segments}
    return np.array([isthing[index] for index in detections.class_id.tolist()], bool)


def main() -> None:
    """Write the picture and print the counts."""
    photo, names, out = sys.argv[1:]
    scene, counts = annotate(photo, names)
    scene.save(out)
    for name, count in counts.most_common():
        print(count, name)


if __name__ == "__main__":
    main()
