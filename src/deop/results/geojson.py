"""GeoJSON (RFC 7946) in pixel coordinates."""

from typing import TYPE_CHECKING, Any

import numpy as np

from deop.results.polygons import Polygon, segment_polygons

if TYPE_CHECKING:
    from deop.results.segmentation import Segmentation


def feature_collection(result: "Segmentation", tolerance: float) -> dict[str, Any]:
    """One feature per segment; ``Segmentation.to_geojson`` describes it."""
    features = []
    for index, segment in enumerate(result.segments):
        properties = {
            "id": index,
            "name": segment.name,
            "class_id": segment.class_id,
            "score": round(segment.score, 4),
            "area": segment.area,
            "isthing": segment.isthing,
        }
        geometry = _geometry(segment_polygons(segment, tolerance))
        features.append({"type": "Feature", "id": index, "geometry": geometry, "properties": properties})
    return {
        "type": "FeatureCollection",
        "features": features,
        "photo": result.source,
        "size": [result.shape[1], result.shape[0]],
    }


def _geometry(polygons: list[Polygon]) -> dict[str, Any]:
    pieces = [[_closed(ring) for ring in polygon.rings] for polygon in polygons]
    if len(pieces) == 1:
        return {"type": "Polygon", "coordinates": pieces[0]}
    return {"type": "MultiPolygon", "coordinates": pieces}


def _closed(ring: np.ndarray) -> list[list[int]]:
    """A ring as GeoJSON wants it: the first corner again at the end."""
    corners: list[list[int]] = ring.tolist()
    return [*corners, corners[0]]
