"""The methods of ``Segmentation`` that carry a result elsewhere; each format is a module of its own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from PIL import Image

from deop.arguments import check_arguments
from deop.errors import ImageError, SettingError
from deop.results import coco, geojson, label_maps, label_studio, labelme, libraries, notebook, saving, yolo
from deop.results.archive import load_archive
from deop.results.polygons import Polygon, segment_polygons
from deop.results.summary import summarise

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


class Exports:
    """Files, formats and objects of other libraries, made from a ``Segmentation``."""

    @property
    def _result(self) -> "Segmentation":
        return cast("Segmentation", self)

    @property
    def file_name(self) -> str:
        """File name of the photo without its folder; ``photo.jpg`` if it was not read from a file."""
        source = self._result.source
        return Path(source).name if source else "photo.jpg"

    @property
    def not_found(self) -> tuple[str, ...]:
        """The requested names that no pixel of the photo has."""
        named = {segment.name for segment in self._result.segments}
        return tuple(name for name in self._result.names if name not in named)

    @check_arguments
    def save(self, path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Path:
        """Write the result to a file.

        Args:
            path: the file. Missing folders are created.
            format: one of these; None: as the suffix says.

                - "picture" (``.png``, ``.jpg``, ``.jpeg``, ``.webp``): ``overlay()``
                - "json" (``.json``): ``summary()``
                - "npz" (``.npz``): everything, for ``Segmentation.load``
                - "geojson" (``.geojson``): ``to_geojson()``
                - "yolo" (``.txt``): ``to_yolo()``
                - "labels": ``save_labels()``
                - "coco": ``to_coco()``
                - "panoptic": ``to_panoptic()``, the JSON file and a PNG beside it
                - "labelme": ``to_labelme()``
                - "labelstudio": ``to_labelstudio()``
            **options: the options of the method that the format names.

        Returns:
            The path.

        Raises:
            SettingError: the format or an option is unknown, or an option is outside its range.
            OutputError: the suffix is unknown, or the file cannot be written. An existing file is kept in that case.
        """
        return saving.save(self._result, Path(path), format, options)

    @classmethod
    @check_arguments
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the ``.npz`` file that ``save`` wrote.

        Raises:
            ImageError: the file is missing, damaged, or was not written by ``save``.
        """
        content = load_archive(path)
        try:
            return cls(**content)
        except (SettingError, TypeError, AttributeError, ValueError) as error:
            raise ImageError(f"cannot read {path}: the file is damaged ({error})") from error

    @check_arguments
    def save_labels(
        self,
        path: str | os.PathLike[str],
        instances: str | os.PathLike[str] | None = None,
        *,
        palette: bool = True,
    ) -> Path:
        """Write the label map as a PNG file of class ids: index of the name + 1, 0 = none.

        With up to 255 names it is a palette PNG, so that viewers show the colours of ``colours`` and programs that read
        indices, such as ``np.array(PIL.Image.open(path))``, get the ids. Programs that convert to RGB when they
        read, such as OpenCV, get colours: for these use ``palette=False``. With more names it is a grey PNG of 16 bits.
        The text chunk "names" holds the names as a JSON list; ``deop.results.read_labels`` reads both.

        Args:
            path: the PNG file.
            instances: also write the map of segments to this file, a grey PNG of 16 bits: index into ``segments`` + 1,
                0 = none; its text chunk "segments" lists them. ``deop.results.read_instances`` reads it.
            palette: False: a grey PNG of 8 bits, if there are up to 255 names.

        Returns:
            The path.

        Raises:
            OutputError: a suffix is not .png, there are more than 65,535 names or segments, or a file cannot be
                written.
        """
        if instances is not None:
            label_maps.check_png(Path(path))  # before anything is written
            label_maps.save_instance_map(self._result, Path(instances))
        label_maps.save_label_map(self._result, Path(path), palette)
        return Path(path)

    @check_arguments
    def summary(self, rle: bool = False) -> dict[str, Any]:
        """The result without pixels, in types that JSON supports.

        Args:
            rle: add the mask of each segment, as COCO's compressed RLE under "segmentation".

        Returns:
            "photo", "size" (width, height), "mode", "names", "classes" (every name with its "share" of the photo in
            [0, 1], its best "score" and its "colour"; the share of a name that was not found is 0, its score None),
            "segments" (boxes are x0, y0, x1, y1) and "settings".
        """
        return summarise(self._result, rle)

    @check_arguments
    def to_coco(
        self,
        image_id: int = 1,
        file_name: str | None = None,
        first_id: int = 1,
        *,
        rle: coco.Masks = True,
        tolerance: float = 0.0,
    ) -> dict[str, Any]:
        """COCO's instance format, one annotation per segment. ``deop.results.coco.CocoWriter`` writes many photos.

        Args:
            image_id: id of the photo.
            file_name: file name of the photo; None: that of ``source``.
            first_id: id of the first annotation; with it, the results of several photos can be joined.
            rle: True: masks are uncompressed run lengths; "compressed": COCO's strings; False: polygons. COCO's
                polygons have no holes: the ring of a piece with holes passes around them, joined by lines without area.
                pycocotools gets the same mask from all three.
            tolerance: of polygons, in pixels, as in ``to_polygons``. Box and area are always those of the mask.

        Returns:
            A dict in types that JSON supports: "info", "licenses", "images", "annotations", "categories". Category ids
            are index + 1; "isthing" is a guess from the name if the result does not say it.

        Raises:
            SettingError: ``rle`` or ``tolerance`` has a value that is not allowed.
        """
        return coco.instances(self._result, image_id, file_name or self.file_name, first_id, rle, tolerance)

    @check_arguments
    def to_panoptic(self, image_id: int = 1, file_name: str | None = None) -> tuple[Image.Image, dict[str, Any]]:
        """COCO's panoptic format.

        Args:
            image_id: id of the photo.
            file_name: file name of the PNG; None: that of ``source`` with the suffix .png.

        Returns:
            The image whose colours are segment ids (R + 256 G + 65536 B, 0 = none), and a dict with "annotation"
            (which has "segments_info") and "categories".
        """
        return coco.panoptic(self._result, image_id, file_name or str(Path(self.file_name).with_suffix(".png")))

    @check_arguments
    def to_polygons(self, tolerance: float = 0.0) -> list[list[Polygon]]:
        """The outlines of the segments along the edges of pixels.

        Args:
            tolerance: how far a simplified outline may be from the exact one, in pixels. 0: exact, filling the polygons
                gives the mask back; about 1 removes the steps of slanted edges. Each segment is simplified by itself,
                so that gaps between neighbours may appear.

        Returns:
            For each segment its pieces: ``Polygon`` with ``outer`` (n, 2) and ``holes``, corners (x, y) in pixels.

        Raises:
            SettingError: the tolerance is negative.
        """
        return [segment_polygons(segment, tolerance) for segment in self._result.segments]

    @check_arguments
    def to_geojson(self, tolerance: float = 0.0) -> dict[str, Any]:
        """A GeoJSON FeatureCollection in pixel coordinates (x to the right, y down), one feature per segment.

        The properties of a feature are "id" (index into ``segments``), "name", "class_id", "score", "area" and
        "isthing". Holes are rings of their own, in the direction that RFC 7946 requires.

        Args:
            tolerance: of polygons, in pixels, as in ``to_polygons``.
        """
        return geojson.feature_collection(self._result, tolerance)

    @check_arguments
    def to_yolo(self, tolerance: float = 0.0) -> str:
        """The label file of a YOLO segmentation data set: lines "class x1 y1 x2 y2 ...", coordinates in [0, 1].

        A class is the index of the name; ``deop.results.yolo.data_yaml`` writes the names. In panoptic and instance
        mode a thing is one line, its pieces joined; of everything else, each connected piece is a line. The format has
        no holes: the ring passes around them, joined by lines without area, as ultralytics joins pieces.

        Args:
            tolerance: of polygons, in pixels, as in ``to_polygons``.
        """
        return yolo.label_text(self._result, tolerance)

    @check_arguments
    def to_labelme(
        self, image_path: str | None = None, tolerance: float = 0.0, *, masks: bool = False
    ) -> dict[str, Any]:
        """The JSON of the annotation tool labelme, without the photo itself.

        Args:
            image_path: path of the photo, relative to the JSON file; None: its file name.
            tolerance: of polygons, in pixels, as in ``to_polygons``.
            masks: write shapes of the type "mask", which are exact and have holes, instead of polygons. labelme
                fills polygons including their outline, one pixel more at the right and at the bottom.
        """
        return labelme.annotation(self._result, image_path or self.file_name, tolerance, masks)

    @check_arguments
    def to_labelstudio(
        self,
        image: str | None = None,
        *,
        polygons: bool = False,
        from_name: str | None = None,
        tolerance: float = 0.0,
    ) -> dict[str, Any]:
        """A task with predictions for Label Studio; a file for its import is a JSON list of tasks.

        Args:
            image: the address under which Label Studio finds the photo; None: its file name.
            polygons: write polygons instead of brush masks. Label Studio's polygons have no holes: the ring passes
                around them, joined by lines without area.
            from_name: name of the control tag in the labeling configuration; None: "tag" for masks and "label" for
                polygons, as in Label Studio's templates. The image tag is called "image".
            tolerance: of polygons, in pixels, as in ``to_polygons``.
        """
        return label_studio.task(self._result, image or self.file_name, polygons, from_name, tolerance)

    def to_supervision(self) -> Any:
        """``supervision.Detections``: xyxy, mask (n, H, W), confidence, class_id, data["class_name"].

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return libraries.supervision_detections(self._result)

    @check_arguments
    def to_fiftyone(self, kind: str = "detections") -> Any:
        """A label of FiftyOne.

        Args:
            kind: "detections": ``fiftyone.Detections``, one per segment, with its mask; "segmentation":
                ``fiftyone.Segmentation``, whose mask has the index of the name + 1, 0 = none; its
                ``mask_targets`` are ``{index + 1: name}``.

        Raises:
            SettingError: the kind is unknown.
            MissingDependencyError: FiftyOne is not installed.
        """
        return libraries.fiftyone_label(self._result, kind)

    def _repr_png_(self) -> bytes:
        return notebook.png(self._result)

    def _repr_html_(self) -> str:
        return notebook.html(self._result)
