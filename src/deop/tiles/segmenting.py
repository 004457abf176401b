"""Segmenting an image of any size: tiles, blended scores, label map and polygons; resumes after a kill."""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deop.arguments import check_arguments
from deop.errors import OutputError, SettingError
from deop.images.reading import Photo
from deop.labelling.small_regions import absorb_small_regions
from deop.model_names import Names
from deop.results.colours import vocabulary_colours
from deop.results.polygons import check_tolerance
from deop.results.segmentation import Segmentation
from deop.surface import ModelSurface
from deop.text.thresholds import ThresholdValue
from deop.tiles.areas import measure_of
from deop.tiles.journal import Journal, writing
from deop.tiles.opening import open_scene
from deop.tiles.outlines import trace_bands
from deop.tiles.plan import AUTO, TileSize
from deop.tiles.request import Request
from deop.tiles.run import Memory, Progress, Run, bands_of
from deop.tiles.scenes import Scene
from deop.tiles.vector_files import check_polygons, write_polygons
from deop.tiles.writing import LabelMap, check_output, qgis_style, write_label_map


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


@check_arguments
def segment_tiles(
    model: ModelSurface,
    photo: Photo,
    names: Names | None,
    out: str | os.PathLike[str],
    *,
    tiles: TileSize = AUTO,
    window: str = "hann",
    context: float | None = None,
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
        names: as in ``ModelSurface.segment``; None: those of the bank.
        out: the label map, a TIFF file: 0 is no name, 1 the first name, and so on.
        tiles: "auto", size, or size and overlap in pixels, as in ``plan.parse_tiles``.
        window: "hann" or "gaussian": how the scores of overlapping tiles are weighted.
        context: weight in [0, 1) of the scores of a coarse view of the whole image. None: 0.15; 0 for an image with a
            georeference, or more than 16 times as large as the network input, of which such a view shows too little.
        threshold: as in ``ModelSurface.segment``.
        background: as in ``ModelSurface.segment``.
        templates: as in ``ModelSurface.segment``.
        polygons: a file for the polygons of the label map, .geojson or .gpkg; None: none.
        tolerance: how far simplified polygons may be from the exact ones, pixels.
        min_area: polygons of fewer pixels are left out.
        bands: as in ``opening.open_scene``.
        value_range: as in ``opening.open_scene``.
        batch: tiles that are encoded together.
        overwrite: replace an existing output, and discard an unfinished run with other settings.
        progress: called with the number of finished tiles and of all tiles.
        **options: severance and anchors, of ``ModelSurface.encode``; bank and bank_weight, of ``ModelSurface.segment``.

    Returns:
        What was written, and how much each name covers.

    Raises:
        ImageError, VocabularyError, SettingError, OutputError, MissingDependencyError: naming the input and the remedy.
    """
    started = time.perf_counter()
    out, shapes = Path(out), None if polygons is None else Path(polygons)
    request = Request(model, names, tiles, window, context, threshold, background, templates, batch, options)
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
                with writing(shapes):
                    shapes.parent.mkdir(parents=True, exist_ok=True)
                    _part_of(shapes).touch()
                    _part_of(shapes).unlink()
            plan, context = request.plan(scene)
            identity = {"image": _identity(photo, scene), "bands": bands and list(bands), "range": value_range}
            journal.begin({**identity, **request.record(plan, context)}, discard=overwrite)
            run = Run(request, scene, plan, context, journal, progress)
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
    names: Names | None,
    *,
    tiles: TileSize = AUTO,
    window: str = "hann",
    context: float | None = None,
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
    request = Request(model, names, tiles, window, context, threshold, background, templates, batch, options)
    with open_scene(photo) as scene:
        plan, context = request.plan(scene)
        run = Run(request, scene, plan, context, Memory(), progress)
        labels, scores = np.empty(scene.shape, np.int32), np.empty(scene.shape, np.float32)
        for rows in bands_of(scene.shape):
            for columns, block, confidence in run.blocks(rows):
                labels[rows, columns], scores[rows, columns] = block, confidence
            run.forget_above(rows.stop)
        labels = absorb_small_regions(labels, request.smallest_region(plan))
        pixels = scene.region(slice(0, scene.shape[0]), slice(0, scene.shape[1])).pixels
        source = scene.name if isinstance(photo, str | os.PathLike) else None
    record = {"model": model.card.name, **request.description(plan, context)}
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


def _identity(photo: Photo, scene: Scene) -> dict[str, Any]:
    """What tells an image from another, without reading all of it."""
    if isinstance(photo, str | os.PathLike) and Path(photo).exists():
        state = Path(photo).stat()
        return {"file": Path(photo).name, "bytes": state.st_size, "modified": state.st_mtime_ns}
    pixels = scene.region(slice(0, scene.shape[0]), slice(0, scene.shape[1])).pixels
    return {"shape": list(scene.shape), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}


def _part_of(shapes: Path) -> Path:
    """The file of polygons until it is complete."""
    return shapes.with_name(f".{shapes.stem}.part{shapes.suffix}")


def _write(run: Run, out: Path, shapes: Path | None, tolerance: float, min_area: int) -> TiledResult:
    """Write the files of a finished label map, and rename them to their final names."""
    journal: Journal = run.store
    request, scene, plan = run.request, run.scene, run.plan
    names = request.vocabulary.names
    pixels, scores = run.counts()
    colours = vocabulary_colours(names)
    description = {"names": list(names), "colours": colours.tolist(), **request.description(plan, run.context)}
    labels = LabelMap(
        scene.shape, names, colours, lambda band: journal.band(run.kind, band), scene.georeference, description
    )
    count = 0
    if shapes is not None:
        part = _part_of(shapes)
        bands = map(labels.rows, range(labels.bands))
        measure = measure_of(scene.georeference)
        outlines = trace_bands(bands, tolerance=tolerance, min_area=min_area, measure=measure)
        with writing(shapes):
            try:
                count = write_polygons(outlines, names, scene.georeference, part, shapes.stem)
                journal.publish(part, shapes)
            finally:
                part.unlink(missing_ok=True)
    with writing(out):
        finished = journal.folder / f"labels{out.suffix}"
        try:
            write_label_map(labels, finished, journal.folder)
            if scene.georeference is not None:
                out.with_suffix(".qml").write_text(qgis_style(names, colours), encoding="utf-8")
            journal.publish(finished, out)
        finally:
            finished.unlink(missing_ok=True)
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
        {"model": request.model.card.name, **request.description(plan, run.context)},
    )
