"""One image on its way to a label map: its tiles are encoded when they are needed, its bands labelled and cleaned."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from deop.images.canvas import Canvas
from deop.labelling.masks import PhotoMasks
from deop.networks.memory import naming_photo
from deop.tiles.blending import BLOCK, Blend
from deop.tiles.journal import Journal
from deop.tiles.plan import TilePlan
from deop.tiles.request import Request, coarse_side
from deop.tiles.scenes import Region, Scene
from deop.tiles.small_regions import cleaned_blocks
from deop.tiles.views import View, encode_views
from deop.tiles.writing import id_type

_COARSE = "coarse"  # name of the coarse view in the journal

Progress = Callable[[int, int], None]
"""Called with the number of finished tiles and of all tiles."""


def bands_of(shape: tuple[int, int]) -> list[slice]:
    """The rows of each band of an image (H, W)."""
    return [slice(top, min(top + BLOCK, shape[0])) for top in range(0, shape[0], BLOCK)]


class Store(Protocol):
    """Keeps the views that unfinished bands need."""

    def view(self, name: str) -> View | None:
        """A view that was stored, or None."""
        ...

    def store_view(self, name: str, view: View) -> None:
        """Store a view."""
        ...

    def drop_views(self, names: Sequence[str]) -> None:
        """Delete views that are no longer needed."""
        ...


class Memory(dict[str, View]):
    """Views in memory."""

    view = dict.get

    def store_view(self, name: str, view: View) -> None:
        """Store a view."""
        self[name] = view

    def drop_views(self, names: Sequence[str]) -> None:
        """Delete views."""
        for name in names:
            self.pop(name, None)


class Run:
    """One image on its way to a label map."""

    def __init__(
        self, request: Request, scene: Scene, plan: TilePlan, context: float, store: Any, progress: Progress | None
    ) -> None:
        self.request, self.scene, self.plan, self.context, self.store = request, scene, plan, context, store
        self._progress = progress or (lambda done, total: None)
        self.encoded = 0
        self._finished = 0  # tiles
        self._dropped = 0  # rows of tiles
        coarse = self._coarse() if context and plan.count > 1 else None
        self._blend = Blend(plan, self._tile, coarse, context, request.rule)

    # --- Views

    def _coarse(self) -> View:
        view: View | None = self.store.view(_COARSE)
        if view is None:
            region = self.scene.shrunk(coarse_side(self.scene.shape, self.request.model.settings.resize))
            [view] = self._encode([region])
            canvas = Canvas(self.scene.shape, view.canvas.resized, view.canvas.padded)
            view = replace(view, canvas=canvas)
            self.store.store_view(_COARSE, view)
        return view

    def _tile(self, row: int, column: int) -> View:
        """The view of a tile; if it is missing, it is encoded with the next ones of its row."""
        view: View | None = self.store.view(_name(row, column))
        if view is not None:
            return view
        columns = [column]
        for following in range(column + 1, len(self.plan.columns.starts)):
            if len(columns) == self.request.batch or self.store.view(_name(row, following)) is not None:
                break
            columns.append(following)
        regions = [self.scene.padded(*self.plan.box(row, each)) for each in columns]
        views = self._encode(regions)
        for each, encoded in zip(columns, views, strict=True):
            self.store.store_view(_name(row, each), encoded)
        self.encoded += len(columns)
        self._finished += len(columns)
        self._progress(self._finished, self.plan.count)
        return views[0]

    def _encode(self, regions: Sequence[Region]) -> list[View]:
        """Encode regions; one without data has a view without masks."""
        request = self.request
        views = [_empty_view(region, request) for region in regions]
        full = [index for index, region in enumerate(regions) if region.valid is None or region.valid.any()]
        if full:
            height, width = regions[full[0]].pixels.shape[:2]
            with naming_photo(f"{self.scene.name} (tiles of {width} x {height} px)", request.model.device):
                encoded = encode_views(
                    request.model, [regions[index].pixels for index in full], request.vocabulary, request.options
                )
            for index, view in zip(full, encoded, strict=True):
                views[index] = view
        return views

    # --- Labels

    def blocks(self, rows: slice) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """The blocks of a band, as ``Blend.blocks``; pixels without data have no name."""
        for columns, labels, scores in self._blend.blocks(rows):
            if self.scene.has_gaps:
                valid = self.scene.region(rows, columns).valid
                if valid is not None:
                    labels[~valid], scores[~valid] = -1, 0
            yield columns, labels, scores

    def forget_above(self, row: int) -> None:
        """Drop the views of tiles that end above a row of the image."""
        starts, tile = self.plan.rows.starts, self.plan.rows.tile
        while self._dropped < len(starts) and starts[self._dropped] + tile <= row:
            self.store.drop_views([_name(self._dropped, column) for column in range(len(self.plan.columns.starts))])
            self._dropped += 1

    def label(self) -> None:
        """Label all bands that are not finished."""
        journal: Journal = self.store
        bands = bands_of(self.scene.shape)
        first = next((n for n in range(len(bands)) if not journal.has_band("labelled", n)), len(bands))
        if first == len(bands):
            self._finished = self.plan.count
        elif first:
            starts, tile = self.plan.rows.starts, self.plan.rows.tile
            ended = sum(start + tile <= bands[first].start for start in starts)
            self._finished = ended * len(self.plan.columns.starts)
        self._progress(self._finished, self.plan.count)
        names = len(self.request.vocabulary.names)
        dtype = id_type(names)
        for number, rows in enumerate(bands):
            if not journal.has_band("labelled", number):
                pixels, scores = np.zeros(names, np.int64), np.zeros(names)

                def ids(
                    rows: slice = rows, pixels: np.ndarray = pixels, scores: np.ndarray = scores
                ) -> Iterator[np.ndarray]:
                    for _, labels, confidence in self.blocks(rows):
                        named = labels >= 0
                        pixels += np.bincount(labels[named], minlength=names)
                        scores += np.bincount(labels[named], confidence[named], minlength=names)
                        yield (labels + 1).astype(dtype)

                journal.write_band("labelled", number, ids(), lambda p=pixels, s=scores: _sparse(p, s))  # type: ignore[misc]
            self.forget_above(rows.stop)
        self._progress(self.plan.count, self.plan.count)

    def clean(self) -> None:
        """Remove small regions, if the model does so for photos."""
        journal: Journal = self.store
        min_area = self.request.smallest_region(self.plan)
        bands = -(-self.scene.shape[0] // BLOCK)
        columns = -(-self.scene.shape[1] // BLOCK)
        if min_area <= 1:
            return
        for band in range(bands):
            if not journal.has_band("cleaned", band):
                blocks = cleaned_blocks(
                    lambda row, column: journal.block("labelled", row, column), band, bands, columns, min_area
                )
                journal.write_band("cleaned", band, blocks, dict)

    @property
    def kind(self) -> str:
        """The kind of bands that are the answer."""
        return "cleaned" if self.request.smallest_region(self.plan) > 1 else "labelled"

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (K,) int64 of each name, and its mean score (K,)."""
        journal: Journal = self.store
        names = len(self.request.vocabulary.names)
        labelled, scores, pixels = np.zeros(names, np.int64), np.zeros(names), np.zeros(names + 1, np.int64)
        for band in range(-(-self.scene.shape[0] // BLOCK)):
            for name, (count, score) in journal.counts("labelled", band).items():
                labelled[int(name)] += count
                scores[int(name)] += score
            if self.kind == "cleaned":
                for block in journal.band("cleaned", band):
                    pixels += np.bincount(block.ravel(), minlength=names + 1)
        calibration = self.request.model.settings.calibration
        mean = calibration.scores(scores / np.maximum(labelled, 1))
        return (pixels[1:] if self.kind == "cleaned" else labelled), np.where(labelled > 0, mean, 0)


def _sparse(pixels: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Pixels and sum of scores of the names that a band has."""
    return {str(k): [int(pixels[k]), float(scores[k])] for k in np.flatnonzero(pixels).tolist()}


def _name(row: int, column: int) -> str:
    return f"{row:05}-{column:05}"


def _empty_view(region: Region, request: Request) -> View:
    shape = region.pixels.shape[0], region.pixels.shape[1]
    columns = len(request.vocabulary.names) + bool(request.vocabulary.background)
    return View(
        np.zeros((0, columns), np.float32), PhotoMasks(np.zeros((0, 1, 1), np.float32)), Canvas(shape, shape, shape)
    )
