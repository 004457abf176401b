"""Segmenting an image of any size: tiles, blended scores, label map and polygons; resumes after a kill."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deop.errors import OutputError, SettingError
from deop.images.canvas import Canvas
from deop.images.preprocessing import Resize, resized_shape
from deop.images.reading import Photo
from deop.labelling.assembly import limits_of
from deop.labelling.masks import PhotoMasks, SemanticRule
from deop.labelling.result import raw_limits
from deop.labelling.small_regions import absorb_small_regions
from deop.networks.memory import naming_photo
from deop.results.colours import vocabulary_colours
from deop.results.polygons import check_tolerance
from deop.results.segmentation import Segmentation
from deop.settings import Settings
from deop.surface import ModelSurface, Names
from deop.text.thresholds import Thresholds, ThresholdValue
from deop.text.vocabulary import Vocabulary
from deop.tiles.blending import BLOCK, Blend
from deop.tiles.journal import Journal, writing
from deop.tiles.outlines import trace_bands
from deop.tiles.plan import AUTO, OVERLAP, TilePlan, TileSize, check_tiles, parse_tiles, plan_tiles
from deop.tiles.scenes import Region, Scene, open_scene
from deop.tiles.small_regions import cleaned_blocks
from deop.tiles.vector_files import check_polygons, write_polygons
from deop.tiles.views import View, encode_views
from deop.tiles.writing import LabelMap, check_output, id_type, qgis_style, write_label_map

CONTEXT = 0.25
"""Weight of the coarse view, chosen by benchmarks/tiles.py."""
TILE_SHARE = 1.5
"""Automatic tile size as a multiple of the shorter side of the network input, chosen by benchmarks/tiles.py."""
INPUT = 512
"""Shorter side of the network input that is assumed for a model that does not resize photos."""
_MULTIPLE = 32  # of the automatic tile size
_COARSE = "coarse"  # name of the coarse view in the journal

Progress = Callable[[int, int], None]
"""Called with the number of finished tiles and of all tiles."""


@dataclass(frozen=True)
class TiledResult:
    """What became of an image.

    Attributes:
        out: the label map.
        polygons: the file of polygons, or None.
        source: the image.
        shape: (H, W).
        names: the K names.
        pixels: (K,) int64, pixels of each name.
        scores: (K,) float in [0, 1], mean score of the pixels of each name; 0 for a name without pixels.
        tile: size and overlap of the tiles, pixels.
        tiles: number of tiles.
        encoded: number of tiles that this call computed; fewer than ``tiles`` if it resumed a run.
        polygon_count: number of polygons.
        georeferenced: whether the label map has the georeference of the image.
        seconds: time of this call.
        settings: how the label map was made.
    """

    out: Path
    polygons: Path | None
    source: str
    shape: tuple[int, int]
    names: tuple[str, ...]
    pixels: np.ndarray
    scores: np.ndarray
    tile: tuple[int, int]
    tiles: int
    encoded: int
    polygon_count: int
    georeferenced: bool
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The result as JSON values."""
        total = self.shape[0] * self.shape[1]
        colours = vocabulary_colours(self.names).tolist()
        classes = [
            {
                "name": name,
                "share": round(int(count) / total, 6),
                "score": round(float(score), 4) if count else None,
                "colour": "#{:02x}{:02x}{:02x}".format(*colour),
            }
            for name, count, score, colour in zip(self.names, self.pixels, self.scores, colours, strict=True)
        ]
        return {
            "photo": self.source,
            "size": [self.shape[1], self.shape[0]],
            "mode": "semantic",
            "names": list(self.names),
            "classes": classes,
            "tiles": {"size": self.tile[0], "overlap": self.tile[1], "count": self.tiles},
            "polygons": self.polygon_count if self.polygons else None,
            "settings": self.settings,
        }


def segment_tiles(
    model: ModelSurface,
    photo: Photo,
    names: Names,
    out: str | os.PathLike[str],
    *,
    tiles: TileSize = AUTO,
    window: str = "hann",
    context: float = CONTEXT,
    threshold: ThresholdValue = None,
    background: Sequence[str] | str = (),
    templates: str | Sequence[str] | None = None,
    polygons: str | os.PathLike[str] | None = None,
    tolerance: float = 0.0,
    min_area: int = 0,
    bands: Sequence[int] | None = None,
    value_range: tuple[float, float] | None = None,
    batch: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> TiledResult:
    """Segment an image of any size into a label map file, tile by tile.

    Memory depends on the tile size, not on the image or the number of names. Unfinished work lies in the folder
    ``.OUT.tiles`` beside the output; the same call resumes it.

    Args:
        model: any model of deop.
        photo: path of the image, or another form of a photo.
        names: as in ``ModelSurface.segment``.
        out: the label map, a TIFF file: 0 is no name, 1 the first name, and so on.
        tiles: "auto", size, or size and overlap in pixels, as in ``plan.parse_tiles``.
        window: "hann" or "gaussian": how the scores of overlapping tiles are weighted.
        context: weight in [0, 1) of the scores of a coarse view of the whole image.
        threshold: as in ``ModelSurface.segment``.
        background: as in ``ModelSurface.segment``.
        templates: as in ``ModelSurface.segment``.
        polygons: a file for the polygons of the label map, .geojson or .gpkg; None: none.
        tolerance: how far simplified polygons may be from the exact ones, pixels.
        min_area: polygons of fewer pixels are left out.
        bands: as in ``scenes.open_scene``.
        value_range: as in ``scenes.open_scene``.
        batch: tiles that are encoded together.
        overwrite: replace an existing output, and discard an unfinished run with other settings.
        progress: called with the number of finished tiles and of all tiles.
        **options: of ``ModelSurface.encode``: severance, anchors.

    Returns:
        What was written, and how much each name covers.

    Raises:
        ImageError, VocabularyError, SettingError, OutputError, MissingDependencyError: naming the input and the remedy.
    """
    started = time.perf_counter()
    out, shapes = Path(out), None if polygons is None else Path(polygons)
    request = _Request(model, names, tiles, window, context, threshold, background, templates, batch, options)
    check_tolerance(tolerance)
    _check_min_area(min_area)
    journal = Journal(out)
    if not overwrite and not journal.folder.exists():
        for path in (out, shapes):
            if path is not None and path.exists():
                raise OutputError(f"{path} exists: give another path, or replace it with overwrite=True (--overwrite)")
    check_output(out, georeferenced=True)  # the suffix; the libraries are checked once the image is open
    journal.acquire()
    try:
        with open_scene(photo, bands=bands, value_range=value_range, folder=journal.folder) as scene:
            check_output(out, scene.georeference is not None)
            if shapes is not None:
                check_polygons(shapes, scene.georeference)
            plan = request.plan(scene.shape)
            identity = {"image": _identity(photo, scene), "bands": bands and list(bands), "range": value_range}
            journal.begin({**identity, **request.record(plan)}, discard=overwrite)
            run = _Run(request, scene, plan, journal, progress)
            run.label()
            run.clean()
            result = _write(run, out, shapes, tolerance, min_area)
        journal.remove()
    finally:
        journal.close()
    return replace(result, seconds=time.perf_counter() - started)


def segment_photo(
    model: ModelSurface,
    photo: Photo,
    names: Names,
    *,
    tiles: TileSize = AUTO,
    window: str = "hann",
    context: float = CONTEXT,
    threshold: ThresholdValue = None,
    background: Sequence[str] | str = (),
    templates: str | Sequence[str] | None = None,
    batch: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> Segmentation:
    """Segment a photo tile by tile into a result in memory, with the arguments of ``segment_tiles``.

    Raises:
        ImageError, VocabularyError, SettingError: naming the input and the remedy.
    """
    request = _Request(model, names, tiles, window, context, threshold, background, templates, batch, options)
    with open_scene(photo) as scene:
        plan = request.plan(scene.shape)
        run = _Run(request, scene, plan, _Memory(), progress)
        labels, scores = np.empty(scene.shape, np.int32), np.empty(scene.shape, np.float32)
        for rows in _bands(scene.shape):
            for columns, block, confidence in run.blocks(rows):
                labels[rows, columns], scores[rows, columns] = block, confidence
            run.forget_above(rows.stop)
        labels = absorb_small_regions(labels, request.smallest_region(plan))
        pixels = scene.region(slice(0, scene.shape[0]), slice(0, scene.shape[1])).pixels
        source = scene.name if isinstance(photo, str | os.PathLike) else None
    record = {"model": model.card.name, **request.description(plan)}
    result = Segmentation.from_semantic(
        pixels, request.vocabulary.names, labels, scores, record, isthing=request.vocabulary.things, source=source
    )
    calibration = model.settings.calibration
    if not calibration.curve:
        return result
    segments = [replace(segment, score=calibration.score(segment.score)) for segment in result.segments]
    return replace(result, segments=segments)


def _check_min_area(min_area: Any) -> None:
    if isinstance(min_area, bool) or not isinstance(min_area, int | np.integer) or min_area < 0:
        raise SettingError(f"min_area must be an integer of at least 0 pixels, not {min_area!r}")


def auto_size(shape: tuple[int, int], resize: Resize) -> int:
    """The automatic tile size for an image (H, W): the image itself, if it is not much larger than a tile."""
    side = (resize.short_side or INPUT) * TILE_SHARE
    size = max(_MULTIPLE, round(side / _MULTIPLE) * _MULTIPLE)
    longest = max(shape)
    return longest if longest <= size else size


def coarse_side(shape: tuple[int, int], resize: Resize) -> int:
    """Longer side of the coarse copy of an image: twice that of the network input, which is resized from it."""
    chosen = resize if resize.short_side is not None else Resize(short_side=INPUT)
    return 2 * max(resized_shape(*shape, chosen))


def rule_of(
    model_settings: Settings, vocabulary: Vocabulary, thresholds: Sequence[float]
) -> SemanticRule:
    """Which pixels get no name, by the settings of a model."""
    limits = limits_of(raw_limits(vocabulary, model_settings, thresholds), len(vocabulary.names))
    rest = -1 if vocabulary.everything_else is None else vocabulary.everything_else
    return SemanticRule(limits, model_settings.claim, rest)


class _Request:
    """The arguments of a call, checked before an image is read."""

    def __init__(
        self,
        model: ModelSurface,
        names: Names,
        tiles: TileSize,
        window: str,
        context: float,
        threshold: ThresholdValue,
        background: Sequence[str] | str,
        templates: str | Sequence[str] | None,
        batch: int,
        options: Mapping[str, Any],
    ) -> None:
        from deop.results.checks import check_request

        check_request("semantic", batch)
        self._tiles = parse_tiles(tiles)
        check_tiles(1024, 0, window)
        if isinstance(context, bool) or not isinstance(context, int | float) or not 0 <= context < 1:
            raise SettingError(f"context must be a number in [0, 1), not {context!r}")
        if wrong := set(options) - {"severance", "anchors"}:
            raise SettingError(f"segment_tiles has no option {sorted(wrong)[0]!r}: omit it")
        self.model, self.batch, self.options = model, batch, dict(options)
        self.window, self.context = window, float(context)
        thresholds = Thresholds.parse(threshold)
        self.vocabulary = model.vocabulary(names, background=background, templates=templates)
        limits = thresholds.values(self.vocabulary, model.settings.threshold)
        self._threshold_record = thresholds.record(model.settings.threshold)
        self.rule = rule_of(model.settings, self.vocabulary, limits)
        self.classes = model.embed(self.vocabulary)

    def plan(self, shape: tuple[int, int]) -> TilePlan:
        """The tiles of an image (H, W)."""
        if self._tiles is None:
            size = auto_size(shape, self.model.settings.resize)
            return plan_tiles(shape, size, round(size * OVERLAP), self.window)
        return plan_tiles(shape, *self._tiles, self.window)

    def smallest_region(self, plan: TilePlan) -> float:
        """Regions of fewer pixels get the label of their surroundings: the model's share, of a tile."""
        return self.model.settings.smallest_region * plan.rows.tile * plan.columns.tile

    def description(self, plan: TilePlan) -> dict[str, Any]:
        """How a label map is made, as JSON values."""
        return {
            "tiles": [plan.size, plan.overlap],
            "window": self.window,
            "context": self.context,
            "threshold": self._threshold_record,
            "synonyms": [list(texts) for texts in self.vocabulary.synonyms],
            "background": list(self.vocabulary.background),
        }

    def record(self, plan: TilePlan) -> dict[str, Any]:
        """Everything that the label map depends on beside the image, as JSON values."""
        model = self.model
        digest = hashlib.sha256(np.ascontiguousarray(self.classes.rows).tobytes()).hexdigest()
        settings = json.loads(json.dumps(asdict(model.settings), default=str))
        return {
            "model": f"{model.card.name} ({type(model).__name__})",
            "model settings": settings,
            "embeddings": digest,
            "options": {key: str(value) for key, value in self.options.items() if value is not None},
            **self.description(plan),
        }


def _identity(photo: Photo, scene: Scene) -> dict[str, Any]:
    """What tells an image from another, without reading all of it."""
    if isinstance(photo, str | os.PathLike) and Path(photo).exists():
        state = Path(photo).stat()
        return {"file": Path(photo).name, "bytes": state.st_size, "modified": state.st_mtime_ns}
    pixels = scene.region(slice(0, scene.shape[0]), slice(0, scene.shape[1])).pixels
    return {"shape": list(scene.shape), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}


def _bands(shape: tuple[int, int]) -> list[slice]:
    return [slice(top, min(top + BLOCK, shape[0])) for top in range(0, shape[0], BLOCK)]


class _Store(Protocol):
    """Keeps the views that unfinished bands need."""

    def view(self, name: str) -> View | None: ...
    def store_view(self, name: str, view: View) -> None: ...
    def drop_views(self, names: Sequence[str]) -> None: ...


class _Memory(dict[str, View]):
    """Views in memory."""

    view = dict.get

    def store_view(self, name: str, view: View) -> None:
        self[name] = view

    def drop_views(self, names: Sequence[str]) -> None:
        for name in names:
            self.pop(name, None)


class _Run:
    """One image on its way to a label map."""

    def __init__(
        self, request: _Request, scene: Scene, plan: TilePlan, store: Any, progress: Progress | None
    ) -> None:
        self.request, self.scene, self.plan, self.store = request, scene, plan, store
        self._progress = progress or (lambda done, total: None)
        self.encoded = 0
        self._finished = 0  # tiles
        self._dropped = 0  # rows of tiles
        coarse = self._coarse() if request.context and plan.count > 1 else None
        self._blend = Blend(plan, self._tile, coarse, request.context, request.rule)

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
        bands = _bands(self.scene.shape)
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


def _empty_view(region: Region, request: _Request) -> View:
    shape = region.pixels.shape[0], region.pixels.shape[1]
    columns = len(request.vocabulary.names) + bool(request.vocabulary.background)
    return View(np.zeros((0, columns), np.float32), PhotoMasks(np.zeros((0, 1, 1), np.float32)), Canvas(shape, shape, shape))


def _write(run: _Run, out: Path, shapes: Path | None, tolerance: float, min_area: int) -> TiledResult:
    """Write the files of a finished label map, and rename them to their final names."""
    journal: Journal = run.store
    request, scene, plan = run.request, run.scene, run.plan
    names = request.vocabulary.names
    pixels, scores = run.counts()
    colours = vocabulary_colours(names)
    description = {"names": list(names), "colours": colours.tolist(), **request.description(plan)}
    labels = LabelMap(
        scene.shape, names, colours, lambda band: journal.band(run.kind, band), scene.georeference, description
    )
    count = 0
    with writing(out):
        if shapes is not None:
            shapes.parent.mkdir(parents=True, exist_ok=True)
            part = shapes.with_name(f".{shapes.stem}.part{shapes.suffix}")
            outlines = trace_bands(map(labels.rows, range(labels.bands)), tolerance=tolerance, min_area=min_area)
            try:
                count = write_polygons(outlines, names, scene.georeference, part, shapes.stem)
                part.replace(shapes)
            finally:
                part.unlink(missing_ok=True)
        finished = journal.folder / f"labels{out.suffix}"
        write_label_map(labels, finished, journal.folder)
        if scene.georeference is not None:
            out.with_suffix(".qml").write_text(qgis_style(names, colours), encoding="utf-8")
        finished.replace(out)
    return TiledResult(
        out,
        shapes,
        scene.name,
        scene.shape,
        names,
        pixels,
        scores,
        (plan.size, plan.overlap),
        plan.count,
        run.encoded,
        count,
        scene.georeference is not None,
        0.0,
        {"model": request.model.card.name, **request.description(plan)},
    )
