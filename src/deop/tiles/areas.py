"""Areas of polygons in square metres."""

import re
from collections.abc import Callable

import numpy as np

from deop.results.polygons import Polygon
from deop.results.rings import ring_area
from deop.tiles.scenes import Georeference

Measure = Callable[[Polygon, int], float]
"""Gives the area of a polygon in pixels, of which the number of pixels is known."""
WGS84 = (6378137.0, 298.257223563)
"""Semi-major axis in metres and inverse flattening of the ellipsoid."""
_ELLIPSOID = re.compile(r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.eE+]+),\s*([\d.eE+]+)')
_MERCATOR = re.compile(r'(?:PROJECTION|METHOD)\["(?:Mercator|Popular.Visualisation)')


def measure_of(place: Georeference | None) -> Measure:
    """How areas are measured in an image.

    Longitudes and latitudes, and Mercator maps, which enlarge areas towards the poles, are measured on the ellipsoid;
    other maps in their plane. Both give square metres. Without a reference system the area is in squared units of the
    transform, or in pixels.
    """
    if place is None or place.transform is None:
        return lambda polygon, pixels: float(pixels)
    a, b, _, d, e, _ = place.transform
    unit = abs(a * e - b * d)
    if not place.crs:
        return lambda polygon, pixels: pixels * unit
    from rasterio.crs import CRS

    crs = CRS.from_wkt(place.crs)
    factor = crs.units_factor[1]
    if not crs.is_geographic and not _MERCATOR.search(place.crs):
        return lambda polygon, pixels: pixels * unit * factor**2
    ellipsoid = _ellipsoid(place.crs)
    to_radians = _from_mercator(crs) if not crs.is_geographic else lambda corners: corners * factor
    to_map = mapped(place.transform)
    return lambda polygon, pixels: abs(
        sum(float(_area(to_radians(to_map(ring)), *ellipsoid)) for ring in polygon.rings)
    )


def mapped(transform: tuple[float, float, float, float, float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from pixels (n, 2) as x, y to the coordinates of a map."""
    a, b, c, d, e, f = transform
    matrix, offset = np.array([[a, d], [b, e]]), np.array([c, f])
    return lambda corners: np.asarray(corners @ matrix + offset)


def _ellipsoid(wkt: str) -> tuple[float, float]:
    found = _ELLIPSOID.search(wkt)
    return (float(found.group(1)), float(found.group(2))) if found else WGS84


def _from_mercator(crs: object) -> Callable[[np.ndarray], np.ndarray]:
    from rasterio.crs import CRS
    from rasterio.warp import transform

    degrees = CRS.from_epsg(4326)

    def convert(corners: np.ndarray) -> np.ndarray:
        x, y = transform(crs, degrees, corners[:, 0].tolist(), corners[:, 1].tolist())[:2]
        return np.radians(np.stack([np.unwrap(x, period=360), y], 1))

    return convert


def _area(corners: np.ndarray, axis: float, inverse_flattening: float) -> float:
    """The signed area of a ring of longitudes and latitudes in radians, on an ellipsoid.

    The cylindrical equal-area projection keeps areas, and maps meridians and parallels to straight lines. So it is
    exact for the edges of pixels.

    Args:
        corners: (n, 2) longitudes and latitudes, not closed.
        axis: semi-major axis, metres.
        inverse_flattening: of the ellipsoid; 0: a sphere.
    """
    sine = np.sin(corners[:, 1])
    flattening = 1 / inverse_flattening if inverse_flattening else 0.0
    square = flattening * (2 - flattening)  # of the eccentricity
    height = sine
    if square:
        eccentricity = square**0.5
        height = (1 - square) / 2 * (sine / (1 - square * sine**2) + np.arctanh(eccentricity * sine) / eccentricity)
    flat = np.stack([corners[:, 0], height], 1) * axis
    return ring_area(flat - flat[0])
