"""Files of polygons, written one polygon after the other: GeoJSON and GeoPackage."""

import errno
import json
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deop.dependencies import missing
from deop.errors import OutputError
from deop.results.rings import ring_area
from deop.tiles.areas import mapped
from deop.tiles.outlines import Outline
from deop.tiles.rasters import reporting
from deop.tiles.scenes import Georeference

SUFFIXES = (".geojson", ".json", ".gpkg")
"""Suffixes of files of polygons."""
_DIGITS = 7  # of degrees in GeoJSON: about 1 cm
_CUSTOM = 100_000  # id of a reference system without an EPSG code in a GeoPackage
_WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433],AUTHORITY["EPSG","4326"]]'
)


@dataclass(frozen=True, eq=False)
class Feature:
    """A polygon and what is known about it.

    Attributes:
        name: of its class.
        class_id: index of the name.
        area: in square metres; without a reference system in squared units of the transform, or pixels.
        pixels: area in pixels.
        rings: the outer ring and then the holes, each (n, 2) float x, y in the reference system, not closed.
    """

    name: str
    class_id: int
    area: float
    pixels: int
    rings: list[np.ndarray]


def check_polygons(path: Path, georeference: Georeference | None) -> None:
    """Check that polygons can be written, before anything slow starts.

    Raises:
        OutputError: the suffix is unknown, the image has no transform, or GeoJSON cannot say where it lies.
        MissingDependencyError: rasterio is needed and not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write {path}: polygons are written as .geojson or .gpkg; use one of these suffixes")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give a file name in it")
    if georeference is not None and georeference.transform is None:
        raise OutputError(
            f"cannot write {path}: the image has ground control points or a sensor model, and no transform; rectify it "
            "first, for instance with gdalwarp"
        )
    if georeference is not None and not find_spec("rasterio"):
        raise missing("writing polygons of a georeferenced image", "rasterio")
    if georeference is not None and path.suffix.lower() != ".gpkg":
        refused = OutputError(
            f"cannot write {path}: GeoJSON has longitudes and latitudes, and the reference system of the image has "
            "none on the earth; write a .gpkg file"
        )
        with reporting(lambda reason: refused):
            project, _ = _to_degrees(georeference)
            project([_mapping(georeference)(np.zeros((1, 2)))])


def write_polygons(
    outlines: Iterable[Outline], names: tuple[str, ...], georeference: Georeference | None, path: Path, layer: str
) -> int:
    """Write polygons.

    GeoJSON has longitudes and latitudes (RFC 7946) if the reference system is known, and else the coordinates of the
    transform, or pixels. GeoPackage keeps the reference system.

    Args:
        outlines: the pieces, in pixels.
        names: the K names.
        georeference: where the image lies, or None.
        path: the file; its suffix decides the format.
        layer: name of the layer.

    Returns:
        The number of polygons.

    Raises:
        OSError: the disk is full, for instance.
    """
    features = _features(outlines, names, georeference)
    if path.suffix.lower() == ".gpkg":
        return _write_geopackage(features, georeference, path, layer)
    return _write_geojson(features, georeference, path)


def _mapping(place: Georeference | None) -> Callable[[np.ndarray], np.ndarray]:
    return mapped((1, 0, 0, 0, 1, 0) if place is None or place.transform is None else place.transform)


def _features(outlines: Iterable[Outline], names: tuple[str, ...], place: Georeference | None) -> Iterator[Feature]:
    to_map = _mapping(place)
    for outline in outlines:
        rings = [to_map(ring) for ring in outline.polygon.rings]
        yield Feature(names[outline.class_id], outline.class_id, outline.area, outline.pixels, rings)


def _write_geojson(features: Iterable[Feature], place: Georeference | None, path: Path) -> int:
    project, digits = _to_degrees(place)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for count, feature in enumerate(features, 1):
            rings = [_directed(ring, outer=number == 0) for number, ring in enumerate(project(feature.rings))]
            coordinates = [np.round(np.concatenate([ring, ring[:1]]), digits).tolist() for ring in rings]
            content = {
                "type": "Feature",
                "id": count,
                "geometry": {"type": "Polygon", "coordinates": coordinates},
                "properties": {
                    "name": feature.name, "class_id": feature.class_id, "area": feature.area, "pixels": feature.pixels,
                },
            }  # fmt: skip
            file.write((",\n" if count > 1 else "\n") + json.dumps(content, ensure_ascii=False))
        file.write("\n]}\n")
    return count


Project = Callable[[list[np.ndarray]], list[np.ndarray]]


def _to_degrees(place: Georeference | None) -> tuple[Project, int]:
    """The projection of a polygon's rings to longitudes and latitudes, and how many digits they have."""
    if place is None or not place.crs:
        return lambda rings: rings, 6
    from rasterio.crs import CRS
    from rasterio.warp import transform

    source, target = CRS.from_wkt(place.crs), CRS.from_epsg(4326)

    def project(rings: list[np.ndarray]) -> list[np.ndarray]:
        """Rings across the 180th meridian stay in one piece, beyond it."""
        projected: list[np.ndarray] = []
        for ring in rings:
            longitudes, latitudes = transform(source, target, ring[:, 0].tolist(), ring[:, 1].tolist())[:2]
            longitudes = np.unwrap(longitudes, period=360)
            near = projected[0][0, 0] if projected else 0.0
            turns = np.round((longitudes.mean() - near) / 360)
            projected.append(np.stack([longitudes - 360 * turns, latitudes], 1))
        return projected

    return project, _DIGITS


def _directed(ring: np.ndarray, *, outer: bool) -> np.ndarray:
    """A ring with positive area if it is the outer one and with negative area if it is a hole (RFC 7946)."""
    return ring if (ring_area(ring - ring[0]) > 0) == outer else ring[::-1]


def _write_geopackage(features: Iterable[Feature], place: Georeference | None, path: Path, layer: str) -> int:
    path.unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(path)
        try:
            with connection:
                system = _create_geopackage(connection, place, layer)
                count, box = _insert(connection, features, layer, system)
                connection.execute("UPDATE gpkg_contents SET min_x=?, min_y=?, max_x=?, max_y=?", box)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise OSError(errno.EIO, str(error), str(path)) from error
    return count


def _insert(
    connection: sqlite3.Connection, features: Iterable[Feature], layer: str, system: int
) -> tuple[int, tuple[float | None, ...]]:
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    count = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for feature in features:
            corners = feature.rings[0]
            np.minimum(low, corners.min(0), out=low)
            np.maximum(high, corners.max(0), out=high)
            count += 1
            yield _geometry(feature.rings, system), feature.name, feature.class_id, feature.area, feature.pixels

    statement = f"INSERT INTO {_quoted(layer)} (geom, name, class_id, area, pixels) VALUES (?, ?, ?, ?, ?)"
    connection.executemany(statement, rows())
    box = (*low.tolist(), *high.tolist()) if count else (None,) * 4
    return count, box


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _create_geopackage(connection: sqlite3.Connection, place: Georeference | None, layer: str) -> int:
    """Create the tables of a GeoPackage 1.3; returns the id of the reference system."""
    connection.execute("PRAGMA application_id = 0x47504B47")
    connection.execute("PRAGMA user_version = 10300")
    connection.execute(
        "CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY, organization "
        "TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT)"
    )
    systems = [
        ("Undefined cartesian", -1, "NONE", -1, "undefined", None),
        ("Undefined geographic", 0, "NONE", 0, "undefined", None),
        ("WGS 84", 4326, "EPSG", 4326, _WGS84, None),
    ]
    chosen = -1
    if place is not None and place.crs:
        from rasterio.crs import CRS

        code = CRS.from_wkt(place.crs).to_epsg()
        chosen = code or _CUSTOM
        if chosen != 4326:
            systems.append(
                (f"EPSG:{code}" if code else "custom", chosen, "EPSG" if code else "NONE", chosen, place.crs, None)
            )
    connection.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", systems)
    connection.execute(
        "CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT "
        "UNIQUE, description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT "
        "(strftime('%Y-%m-%dT%H:%M:%fZ','now')), min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, "
        "srs_id INTEGER, CONSTRAINT fk_gc_r_srs_id FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id))"
    )
    connection.execute(
        "CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL, geometry_type_name "
        "TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL, "
        "CONSTRAINT pk_geom_cols PRIMARY KEY (table_name, column_name), CONSTRAINT uk_gc_table_name UNIQUE "
        "(table_name), CONSTRAINT fk_gc_tn FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name), "
        "CONSTRAINT fk_gc_srs FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys (srs_id))"
    )
    connection.execute(
        f"CREATE TABLE {_quoted(layer)} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, name TEXT, "
        "class_id INTEGER, area REAL, pixels INTEGER)"
    )
    connection.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id) VALUES (?, 'features', ?, ?)",
        (layer, layer, chosen),
    )
    connection.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 'POLYGON', ?, 0, 0)", (layer, chosen))
    return chosen


def _geometry(rings: list[np.ndarray], system: int) -> bytes:
    """A polygon as a GeoPackage stores it: a header with its box, then well-known binary."""
    low, high = rings[0].min(0), rings[0].max(0)
    header = struct.pack("<2sBBi4d", b"GP", 0, 0b011, system, low[0], high[0], low[1], high[1])
    body = [struct.pack("<BII", 1, 3, len(rings))]
    for ring in rings:
        closed = np.concatenate([ring, ring[:1]])
        body += [struct.pack("<I", len(closed)), closed.astype("<f8").tobytes()]
    return header + b"".join(body)
