"""The graphs of a model in int8, with ranges observed on photos."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from deop.encoders.nano import NanoEncoder
from deop.export.graphs import ENCODE
from deop.export.networks import EncodeGraph, multiple_of
from deop.images.canvas import canvas_of
from deop.images.preprocessing import pixel_array, resize_photo
from deop.images.reading import Photo, read_photo
from deop.model import DeOP
from deop.severance import Severance

if TYPE_CHECKING:
    import onnx


def quantized(
    model: DeOP, severance: Severance, graphs: "dict[str, onnx.ModelProto]", photos: Iterable[Photo]
) -> "dict[str, onnx.ModelProto]":
    """The graphs in int8, with ranges observed on photos."""
    from deop.export.quantize import quantize, stays_in_float32

    feeds = [_feed(model, photo) for photo in photos]
    keep = stays_in_float32 if isinstance(model.encoder, NanoEncoder) else None
    result = {}
    for name, graph in graphs.items():
        inputs = feeds if name == ENCODE else _with_masks(model, severance, feeds)
        result[name] = quantize(graph, inputs, keep=keep)
    return result


def _feed(model: DeOP, photo: Photo) -> dict[str, np.ndarray]:
    """The inputs of "encode" for a photo."""
    array = read_photo(photo)
    resize = model.settings.resize
    canvas = canvas_of(array, resize)
    pixels = pixel_array(resize_photo(array, resize), model.encoder.normalization, multiple_of(model))
    return {"pixels": pixels[None], "size": np.array(canvas.resized, np.int64)}


def _with_masks(
    model: DeOP, severance: Severance, feeds: Sequence[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """The inputs of "regions": masks of the proposer, or a grid of rectangles without one."""
    propose = None if model.proposer is None else EncodeGraph(model, severance).eval()
    for feed in feeds:
        if propose is None:
            masks = _grid(feed["pixels"].shape[-2] // 4, feed["pixels"].shape[-1] // 4)
        else:
            with torch.inference_mode():
                logits, valid, _ = propose(torch.from_numpy(feed["pixels"]), torch.from_numpy(feed["size"]))
            masks = logits[valid].numpy()
        yield {**feed, "masks": masks}


def _grid(rows: int, columns: int, parts: int = 4) -> np.ndarray:
    """Logits (parts * parts, rows, columns) of the rectangles of a grid."""
    masks = np.full((parts * parts, rows, columns), -10.0, np.float32)
    for index in range(parts * parts):
        y, x = divmod(index, parts)
        part = (
            slice(y * rows // parts, (y + 1) * rows // parts),
            slice(x * columns // parts, (x + 1) * columns // parts),
        )
        masks[(index, *part)] = 10
    return masks
