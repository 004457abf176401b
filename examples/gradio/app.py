"""A page for segmenting a photo by names of your choice; it runs here and as a Space of the Hugging Face hub."""

from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

import deop
from deop.errors import DeopError

MODEL = "nano"
HERE = Path(__file__).parent
EXAMPLES = [("pagoda.jpg", "sky, pagoda|temple, tree, lake|sea"), ("chelsea.png", "cat"), ("coffee.jpg", "cup, table")]


@cache
def model() -> Any:
    """The model, loaded once."""
    return deop.load(MODEL)


def segment(photo: np.ndarray | None, names: str, mode: str, threshold: float) -> tuple[Any, dict[str, float]]:
    """The masks of a photo with their names, for ``gr.AnnotatedImage``, and the share of each name.

    Args:
        photo: (H, W, 3) uint8.
        names: separated by commas; ``sofa|couch`` are synonyms.
        mode: "semantic", "panoptic" or "instance".
        threshold: minimum score, in [0, 1].
    """
    if photo is None:
        raise gr.Error("Choose a photo first.")
    try:
        result = model().segment(photo, names, mode=mode, threshold=threshold)
    except DeopError as error:  # names that are empty or repeated, a broken photo, ...
        raise gr.Error(str(error)) from error
    masks = [(0.6 * one.mask.astype(np.float32), f"{one.name} ({one.score:.0%})") for one in result.segments]
    shares = {entry["name"]: entry["share"] for entry in result.summary()["classes"]}
    return (result.photo, masks), shares


def examples() -> list[list[str]]:
    """Photos beside this file, or those of deop's repository."""
    found = [(folder / name, names) for name, names in EXAMPLES for folder in (HERE, HERE.parent)]
    return [[str(path), names] for path, names in found if path.is_file()]


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="deop") as page:
        gr.Markdown("# deop\nName what the photo shows. Every pixel gets one of your names, or none.")
        with gr.Row():
            with gr.Column():
                photo = gr.Image(label="Photo", type="numpy")
                names = gr.Textbox(label="Names", value="cat, wall", info="Separated by commas; sofa|couch: synonyms")
                mode = gr.Radio(["semantic", "panoptic", "instance"], value="semantic", label="Mode")
                threshold = gr.Slider(
                    0, 1, value=model().settings.threshold, step=0.01, label="Threshold", info="Minimum score"
                )
                button = gr.Button("Segment", variant="primary")
            with gr.Column():
                masks = gr.AnnotatedImage(label="Segments")
                shares = gr.Label(label="Share of the photo")
        inputs, outputs = [photo, names, mode, threshold], [masks, shares]
        button.click(segment, inputs, outputs, api_name="segment")
        names.submit(segment, inputs, outputs, api_visibility="private")
        gr.Examples(examples(), [photo, names])
    return page


if __name__ == "__main__":
    build().queue(max_size=20).launch()
