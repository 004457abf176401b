"""Draws the pictures of README, of nano's card and of docs/method-explained.md with nano and the photos in examples/.

    python benchmarks/pictures.py            # writes docs/pictures/*.jpg
    python benchmarks/pictures.py OTHER_DIR

The result depends on nothing but the code and the weights, so a test compares it with the committed pictures.
Reliability and fine-tuning have plots of their own (``recipes.nano.calibrate``, ``benchmarks/finetune_gain.py``).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image, ImageDraw
from torch import Tensor

import deop
from deop.encoders.nano import TOKEN, NanoEncoder
from deop.encoders.severance import Severance, mixer, patch_coverage
from deop.images.preprocessing import resize_photo, to_pixels
from deop.images.reading import read_photo
from deop.model import DeOP
from deop.networks.resampling import grid_of
from deop.regions.classification import classify, probabilities
from deop.regions.encoding import EncodedPhoto
from deop.regions.two_stream import crop_proposals
from deop.regions.windows import mask_blocks
from deop.results.fonts import choose_font
from deop.results.heatmap import draw_heatmap

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "examples"
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 1008  # pixels of a picture of the method
GAP = 12
TEXT = 15  # pixels
MARK = (255, 32, 32)

EXAMPLES = {
    "coffee": ("coffee.jpg", "cup, table"),
    "fails_spoon": ("coffee.jpg", "cup, saucer, spoon, table"),
    "fails_rocket": ("rocket.jpg", "sky, tower, rocket, tree"),
    "fails_flag": ("astronaut.jpg", "person, wall, flag"),
    "fails_helmet": ("astronaut.jpg", "person, helmet, flag, rocket"),
    "fails_blanket": ("chelsea.png", "cat, blanket"),
    "fails_water": ("pagoda.jpg", "sky, building, tree, water"),
}
"""Results as ``deop segment`` draws them: the photo and its names."""

HERO = ("pagoda.jpg", "sky, pagoda|temple, tree, lake|sea")
SEVERED = ("coffee.jpg", "coffee cup, wooden table")
POINT = (520, 300)
"""The pixel (x, y) of SEVERED's photo whose patch is examined: on the table."""


def main(
    folder: Annotated[Path, typer.Argument(help="Where the pictures are written.")] = PICTURES,
    only: Annotated[list[str] | None, typer.Option(help="Names of pictures; all if omitted.")] = None,
) -> None:
    """Draw the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(only or ()):
        picture = picture.convert("RGB")
        picture = scaled(picture, WIDTH) if picture.width > WIDTH else picture
        picture.save(folder / f"{name}.jpg", quality=86, optimize=True)
        print(f"{folder / name}.jpg", *picture.size)


def pictures(only: Sequence[str] = ()) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each; ``only``: those of these names."""
    model = deop.load("nano", engine="torch", device="cpu")
    drawings = {name: lambda spec=spec: answer(model, *spec) for name, spec in EXAMPLES.items()}
    drawings["pagoda"] = lambda: answer(model, *HERO, style="side-by-side")
    whole, severed = Scene(model, *HERO), Scene(model, *SEVERED)
    drawings |= {
        "method_masks": whole.masks,
        "method_crops": whole.crops,
        "method_streams": whole.streams,
        "method_heatmaps": whole.heatmaps,
        "method_attention": severed.attention,
        "method_patches": severed.patches,
        "method_severance": severed.severance,
    }
    for name in sorted(only or drawings):
        yield name, drawings[name]()


def answer(model: DeOP, file: str, names: str, **options: str) -> Image.Image:
    """What ``deop segment`` writes for a photo."""
    return model.segment(PHOTOS / file, names).overlay(**options)


class Scene:
    """A photo and what the model computes for it.

    Args:
        model: nano in torch.
        file: a photo of examples/.
        names: its class names.
    """

    def __init__(self, model: DeOP, file: str, names: str) -> None:
        assert isinstance(model.encoder, NanoEncoder)
        self.model, self.encoder, self.names = model, model.encoder, names
        self.photo = read_photo(PHOTOS / file)
        self.encoded: EncodedPhoto = model.encode([self.photo])[0]
        self.canvas, resize = self.encoded.canvas, model.settings.resize
        self.pixels = to_pixels(resize_photo(self.photo, resize), self.encoder.normalization, resize.divisor)

    def masks(self) -> Image.Image:
        """The photo, its masks, and the masks with names."""
        strongest = np.concatenate([block.argmax(0).numpy() for _, _, block in self._blocks()])
        masks, regions = np.unique(strongest, return_inverse=True)
        regions = regions.reshape(strongest.shape).astype(np.int32)
        drawn = deop.Segmentation.from_semantic(self.photo, [f"mask {number}" for number in masks], regions)
        named = self.model.label(self.encoded, self.names)
        return row(
            ("the photo", Image.fromarray(self.photo)),
            ("its masks: no names yet", drawn.overlay(legend=False, labels=False)),
            ("the same masks with names", small_overlay(named, 3)),
        )

    def crops(self) -> Image.Image:
        """The crops that the two-stream baseline encodes one by one, from the largest mask to the smallest."""
        image = torch.from_numpy(self.photo).permute(2, 0, 1)
        probabilities = torch.cat([block for _, _, block in self._blocks()], 1)
        order = probabilities.gt(0.5).flatten(1).sum(1).argsort(descending=True, stable=True)
        normalization = self.encoder.normalization
        crops = crop_proposals(image, probabilities[order], normalization).pixels
        mean, std = (torch.tensor(part)[:, None, None] for part in (normalization.mean, normalization.std))
        side = (WIDTH - GAP * (len(crops) - 1)) // len(crops)
        tiles = Image.new("RGB", (WIDTH, side), "white")
        for index, crop in enumerate((crops * std + mean).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()):
            tile = Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS)
            tiles.paste(tile, (index * (side + GAP), 0))
        return row((f"two streams: the {len(crops)} masks are cropped, and every crop is encoded by itself", tiles))

    def attention(self) -> Image.Image:
        """Where one patch looks in the last block: ordinary attention, ``region`` and ``self``."""
        grid, weights = self._ordinary_attention()
        index = self._token(grid)
        coverage = patch_coverage(self.encoded.proposals.logits[None].float(), self.pixels.shape[-2:], TOKEN).flatten(2)
        mix = mixer(Severance("region", similarity=""), coverage, grid=grid)
        shared = mix(torch.eye(1 + weights.shape[1])[None])[0, 1:, 1:]
        own = torch.eye(weights.shape[1])
        return row(
            ("ordinary attention", self._attended(weights[index], grid)),
            ("severed: region", self._attended(shared[index], grid)),
            ("severed: self", self._attended(own[index], grid)),
        )

    def patches(self) -> Image.Image:
        """The score of the first name at each patch by itself, severed and not."""
        name = self.names.split(", ")[0]
        classes = self.model.class_tensors(self.model.vocabulary(self.names))
        panels = [("the photo", Image.fromarray(self.photo))]
        for caption, severance in [("not severed", "none"), ("severed", None)]:
            [encoded] = self.model.encode([self.photo], severance=severance, anchors="patch")
            assert encoded.cells is not None
            scores = probabilities(classify(encoded.cells, classes, None, self.model.settings.temperature))[:, 0]
            rows, columns = grid_of(self.canvas.padded, self.encoder.patch)
            panels.append((f"{caption}: score of {name!r}", self._cells(scores.reshape(rows, columns), 1.0)))
        return row(*panels)

    def severance(self) -> Image.Image:
        """The same weights, masks and names, severed and not."""
        panels = []
        for caption, severance in [("not severed (severance none)", "none"), ("severed (severance self)", None)]:
            result = self.model.segment(self.photo, self.names, severance=severance)
            panels.append((caption, small_overlay(result, 3)))
        return row(("the photo", Image.fromarray(self.photo)), *panels)

    def heatmaps(self) -> Image.Image:
        """The score of each name at each pixel."""
        names = [name.split("|")[0] for name in self.names.split(", ")]
        result = self.model.label(self.encoded, self.names, heatmaps=names)
        return row(*((f"score of {name!r}", self._values(result.heatmaps[name], 1.0)) for name in names))

    def streams(self) -> Image.Image:
        """The labels of one pass and of two streams."""
        panels = [("the photo", Image.fromarray(self.photo))]
        for kind, classifier in (("one pass", "one-pass"), ("two streams", "two-stream")):
            [encoded] = self.model.encode([self.photo], classifier=classifier)
            images = "1 image" if encoded.valid is None else f"{int(encoded.valid.sum())} crops"
            result = self.model.label(encoded, self.names)
            panels.append((f"{kind}: {images} encoded", small_overlay(result, 3)))
        return row(*panels)

    def _blocks(self) -> Iterator[tuple[object, object, Tensor]]:
        return mask_blocks(self.encoded.proposals, self.encoded.canvas)

    def _token(self, grid: tuple[int, int]) -> int:
        """Index of the transformer's token that POINT lies in."""
        scale = self.canvas.resized[0] / self.photo.shape[0]
        return int(POINT[1] * scale) // TOKEN * grid[1] + int(POINT[0] * scale) // TOKEN

    @torch.inference_mode()
    def _ordinary_attention(self) -> tuple[tuple[int, int], Tensor]:
        """Grid, and weights (L, L) of the last block without severance, averaged over the heads."""
        features = self.encoder.trunk(self.pixels[None])
        x = self.encoder.tokens(features)
        blocks: list[Any] = list(self.encoder.blocks)
        *before, last = blocks
        for block in before:
            x = block(x)
        normed = last.norm1(x)
        project = last.attention.projections(normed, last.attention.values(normed))
        query, key = project("q"), project("k")
        weights = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1).mean(1)[0]
        return (features[2].shape[-2], features[2].shape[-1]), weights[1:, 1:]

    def _attended(self, weights: Tensor, grid: tuple[int, int]) -> Image.Image:
        """Weights (L,) over the photo, POINT marked; the largest 1 % share the end of the scale, and hide no others."""
        picture = self._cells(weights.unflatten(0, grid), max(float(weights.quantile(0.99)), 1e-6))
        scale = self.photo.shape[0] / self.canvas.resized[0] * TOKEN
        left, top = (int(value / scale) * scale for value in POINT)
        ImageDraw.Draw(picture).rectangle((left - 5, top - 5, left + scale + 4, top + scale + 4), outline=MARK, width=4)
        return picture

    def _cells(self, values: Tensor, maximum: float) -> Image.Image:
        """Values of cells (gh, gw) over the photo, each cell in one colour; the photo must need no padding."""
        assert self.canvas.padded == self.canvas.resized
        full = F.interpolate(values[None, None].float(), size=self.photo.shape[:2], mode="nearest")[0, 0]
        return self._values(full.numpy(), maximum)

    def _values(self, values: np.ndarray, maximum: float) -> Image.Image:
        return draw_heatmap(self.photo, values, "", maximum=maximum, legend=False)


def scaled(picture: Image.Image, width: int) -> Image.Image:
    """The picture at another width."""
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def panel_width(count: int) -> int:
    """Width of one of ``count`` panels of a picture."""
    return (WIDTH - (count - 1) * GAP) // count


def small_overlay(result: deop.Segmentation, count: int) -> Image.Image:
    """The overlay of a result for one of ``count`` panels, drawn at its size, so that the legend can be read."""
    width = panel_width(count)
    photo = np.asarray(scaled(Image.fromarray(result.photo), width))
    labels = Image.fromarray(result.label_map).resize((photo.shape[1], photo.shape[0]), Image.Resampling.NEAREST)
    small = deop.Segmentation.from_semantic(photo, result.names, np.asarray(labels))
    return small.overlay(labels=False)


def row(*panels: tuple[str, Image.Image]) -> Image.Image:
    """Panels of one width side by side, each with a caption above it."""
    width = panel_width(len(panels))
    sized = [scaled(picture.convert("RGB"), width) for _, picture in panels]
    head = 2 * TEXT
    sheet = Image.new("RGB", (WIDTH, head + max(picture.height for picture in sized)), "white")
    draw = ImageDraw.Draw(sheet)
    font = choose_font([caption for caption, _ in panels], TEXT)
    for index, ((caption, _), picture) in enumerate(zip(panels, sized, strict=True)):
        left = index * (width + GAP)
        draw.text((left, head // 2), caption, fill=(40, 40, 40), font=font, anchor="lm")
        sheet.paste(picture, (left, head))
    return sheet


if __name__ == "__main__":
    typer.run(main)
