"""The description of ``/v1`` in OpenAPI 3.1, with examples. Bodies are read by hand, so it is written by hand, too."""

from typing import Any

from pydantic import BaseModel

from deop._version import __version__
from deop.serving import openapi_banks
from deop.serving.answers import PICTURES
from deop.serving.limits import Limits
from deop.serving.problems import MEDIA_TYPE, Problem, exceeds
from deop.serving.questions import ENCODING_FIELDS, Encoding, PhotoQuestion, Question, StoredQuestion

LISTED_LIMITS = (
    "bytes", "pixels", "names", "characters", "seconds", "banks", "bank_bytes", "bank_regions", "bank_seconds",
    "examples",
)  # fmt: skip
"""Limits in the answer of ``GET /v1/models``."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REASONS = {
    401: "The token is missing or wrong.",
    403: "The request comes from a page of another site, or from another machine to a server without a token.",
    404: "No such photo or bank: it was never here, or has been forgotten; `missing` says which.",
    405: "The address does not have this method.",
    406: "None of the types of answers is accepted, or the picture does not fit the type.",
    409: "The bank has no examples yet.",
    408: "The body takes too long.",
    413: "The body, the photo, what is kept of it, or the answer is larger than a limit, which the problem names.",
    415: "The type of the content, or the kind of file, is not supported.",
    422: "A field is missing, unknown or has a value that is not allowed, or the photo is damaged.",
    429: "Too many requests at once.",
    500: "A bug of the server.",
    503: "The server ends, or the answer takes too long.",
}
_DETAILS: dict[int, tuple[str, str | None]] = {
    401: ("a token is needed: send the header Authorization: Bearer TOKEN", None),
    403: ("this server does not answer pages of other sites", None),
    404: ("this server has no encoded photo with this id, or has forgotten it: encode the photo again", None),
    405: ("this address does not have this method", None),
    406: ("a label map is a PNG file: accept image/png", None),
    409: ("the bank has no examples yet: add some with POST /v1/banks/{id}/examples", None),
    408: ("the body took longer than 30 seconds", "upload_seconds"),
    413: ("the photo has 20,000 x 10,000 = 200,000,000 pixels", "pixels"),
    415: ("this server does not read EPS files: convert the photo to JPEG or PNG", None),
    422: ("the question has 1,200 names", "names"),
    429: ("32 requests are being answered", "requests"),
    500: ("this is a bug of the server: report it with the lines of its log", None),
    503: ("the answer takes longer than 60 seconds", "seconds"),
}
"""An example of each refusal: the detail, and the limit that was exceeded."""
_SUMMARY = {
    "photo": None,
    "size": [2, 2],
    "mode": "semantic",
    "names": ["cat", "wall"],
    "classes": [
        {"name": "cat", "share": 0.5, "score": 0.93, "colour": "#fdb913"},
        {"name": "wall", "share": 0.5, "score": 0.81, "colour": "#8e8cd8"},
    ],
    "segments": [
        {
            "id": 0, "name": "cat", "score": 0.93, "box": [0, 0, 1, 2], "area": 2, "share": 0.5, "isthing": True,
            "segmentation": {"size": [2, 2], "counts": "022"},
        },
    ],
    "settings": {"model": "nano"},
    "warnings": [],
}  # fmt: skip


def describe(limits: Limits, needs_token: bool) -> dict[str, Any]:
    """The document.

    Args:
        limits: those of the server, which are named in the descriptions.
        needs_token: whether clients must know a token.
    """
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "deop",
            "version": __version__,
            "description": "Label every pixel of a photo with class names of your choice. Photos and names are neither "
            "written to disk nor logged.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(limits, needs_token),
        "components": {"schemas": _schemas()},
    }
    if needs_token:
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
        document["components"]["securitySchemes"] = schemes
        document["security"] = [{"bearer": []}, {"basic": []}]
    return document


def _paths(limits: Limits, needs_token: bool) -> dict[str, Any]:
    guards = [401] if needs_token else []
    work = [*guards, 403, 408, 413, 415, 422, 429, 500, 503]
    names = {"names": "cat, sofa|couch, wall", "threshold": 0.3}
    return {
        "/v1/segment": {
            "post": {
                "operationId": "segment",
                "summary": "Segment one photo",
                "description": f"Up to {limits.bytes:,} bytes, {limits.pixels:,} pixels and {limits.names:,} names. "
                "A field is given once, in the address or in the body.",
                "parameters": _query(),
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/octet-stream": _BINARY,
                        "image/jpeg": _BINARY,
                        "image/png": _BINARY,
                        "multipart/form-data": {"schema": _ref("FormQuestion")},
                        "application/json": {
                            "schema": _ref("PhotoQuestion"),
                            "examples": {"base64": {"value": {"photo": _PIXEL, "names": ["cat", "wall"]}}},
                        },
                    },
                },
                "responses": {**_answers(), **_problems(406, *work)},
            }
        },
        "/v1/encode": {
            "post": {
                "operationId": "encode",
                "summary": "Encode a photo once, for any number of questions",
                "description": f"The photo is kept in memory until it has not been used for {limits.cache_seconds:g} "
                "seconds, or others need its place.",
                "parameters": [parameter for parameter in _query() if parameter["name"] in ENCODING_FIELDS],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/octet-stream": _BINARY, "image/jpeg": _BINARY, "image/png": _BINARY,
                        "multipart/form-data": {"schema": _ref("FormPhoto")},
                    },
                },
                "responses": {
                    "201": {
                        "description": "The photo is encoded.",
                        "headers": {"Location": {"schema": {"type": "string"}}},
                        "links": {
                            "label": {
                                "operationId": "label",
                                "description": "Ask for names, any number of times.",
                                "requestBody": {"id": "$response.body#/id", "names": "cat, sofa|couch, wall"},
                            },
                            "mark": openapi_banks.LINK_TO_MARKS,
                            "forget": {
                                "operationId": "forget",
                                "description": "Free the memory.",
                                "parameters": {"id": "$response.body#/id"},
                            },
                        },
                        "content": {
                            "application/json": {
                                "schema": _ref("Kept"),
                                "examples": {"kept": {"value": {"id": "0-4f6sJ2bD", "size": [640, 480]}}},
                            }
                        },
                    },
                    **_problems(*work),
                },
            }
        },
        "/v1/encode/{id}": {
            "delete": {
                "operationId": "forget",
                "summary": "Forget an encoded photo",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "responses": {
                    "204": {"description": "The photo is forgotten."},
                    **_problems(*guards, 403, 404, 405, 429, 500, 503),
                },
            }
        },
        "/v1/label": {
            "post": {
                "operationId": "label",
                "summary": "Ask for names in an encoded photo",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": _ref("StoredQuestion"),
                            "examples": {"names": {"value": {"id": "0-4f6sJ2bD", **names}}},
                        }
                    },
                },
                "responses": {**_answers(), **_problems(404, 406, *work)},
            }
        },
        **openapi_banks.paths(limits, guards, _problems),
        "/v1/models": {
            "get": _get("models", "The model, and the limits", "Models", guards, _models(limits)),
        },
        "/healthz": {"get": _get("health", "Whether the server runs", "Status", [], {"status": "ok"})},
        "/readyz": {
            "get": _get("ready", "Whether the server accepts requests", "Status", [503], {"status": "ready"}),
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Metrics for Prometheus",
                "responses": {
                    "200": {
                        "description": "Metrics.",
                        "content": {
                            "text/plain": {
                                "schema": {"type": "string"},
                                "examples": {"queue": {"value": "deop_queue_length 0.0\n"}},
                            }
                        },
                    },
                    **_problems(*guards, 403, 500),
                },
            }
        },
    }  # fmt: skip


def _models(limits: Limits) -> dict[str, Any]:
    """An example of the answer of ``GET /v1/models``."""
    model = {
        "name": "nano",
        "backend": "ONNX Runtime, cpu",
        "modes": ["semantic", "panoptic", "instance"],
        "severances": ["self"],
        "heatmaps": True,
        "defaults": {"threshold": 0.0, "smallest_region": 0.0},
        "license": "Apache-2.0",
        "limits": {name: getattr(limits, name) for name in LISTED_LIMITS},
    }
    return {"default": "nano", "models": [model]}


def _get(name: str, summary: str, schema: str, statuses: list[int], example: Any) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {
                    "application/json": {"schema": _ref(schema), "examples": {summary: {"value": example}}},
                },
            },
            **_problems(*statuses, 403, 500),
        },
    }


def _answers() -> dict[str, Any]:
    return {
        "200": {
            "description": "What the photo shows, in the type that the header Accept asks for.",
            "content": {
                "application/json": {"schema": _ref("Segmentation"), "examples": {"names": {"value": _SUMMARY}}},
                **dict.fromkeys(PICTURES, _BINARY),
            },
        }
    }


def _problems(*statuses: int) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status in sorted(set(statuses)):
        answers[str(status)] = {
            "description": _REASONS[status],
            "content": {MEDIA_TYPE: {"schema": _ref("Problem"), "examples": {"problem": {"value": _example(status)}}}},
        }
        if status in (429, 503):
            answers[str(status)]["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
            }
    return answers


def _example(status: int) -> dict[str, Any]:
    """A problem as the server answers it."""
    detail, limit = _DETAILS[status]
    problem = Problem(status, detail, missing="photo" if status == 404 else None)
    if limit is not None:
        problem = exceeds(status, limit, getattr(Limits(), limit), detail)
    return problem.content("4bf92f3577b34da6")


def _query() -> list[dict[str, Any]]:
    """Parameters of the address; their values are texts."""
    schemas, encoding = (kind.model_json_schema()["properties"] for kind in (Question, Encoding))
    texts = {
        "names": ({"type": "string"}, "Class names with commas. `sofa|couch` are synonyms.", "cat, sofa|couch, wall"),
        "background": ({"type": "string"}, "Names that compete, but are not in the result.", "sky, road"),
        "things": ({"type": "string"}, "The names that are countable things.", "cat"),
        "mode": (schemas["mode"], "", "semantic"),
        "threshold": ({"type": "string"}, "Minimum score: `0.3`, or by name: `0.3, dog=0.6`.", "0.3"),
        "smallest_region": (
            schemas["smallest_region"]["anyOf"][0],
            schemas["smallest_region"]["description"],
            0.01,
        ),
        "vocabulary": (schemas["vocabulary"]["anyOf"][0], schemas["vocabulary"]["description"], "coco"),
        "heatmap": ({"type": "integer", "minimum": 0}, schemas["heatmap"]["description"], 0),
        "picture": (schemas["picture"], schemas["picture"]["description"], "overlay"),
        "bank": ({"type": "string"}, "Ids or names of banks, with commas. Without `names`, theirs are asked.", "shop"),
        "bank_weight": (schemas["bank_weight"]["anyOf"][0], schemas["bank_weight"]["description"], 0.5),
        "templates": ({"type": "string"}, schemas["templates"]["description"], "photo"),
        "severance": ({"type": "string"}, "How attention is severed, one of those in /v1/models.", "none"),
        "anchors": ({"type": "string"}, encoding["anchors"]["description"], "decoder"),
        "classifier": (encoding["classifier"], encoding["classifier"]["description"], "one-pass"),
    }
    return [
        {
            "name": name,
            "in": "query",
            "description": text,
            "schema": {key: value for key, value in schema.items() if key not in ("title", "default", "description")},
            **({"example": example} if name in ("names", "threshold") else {}),
        }
        for name, (schema, text, example) in texts.items()
    ]


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {kind.__name__: _plain(kind) for kind in (PhotoQuestion, StoredQuestion)}
    binary = {"type": "string", "format": "binary"}
    fields = {
        parameter["name"]: {**parameter["schema"], "description": parameter["description"]} for parameter in _query()
    }
    form = {"type": "object", "required": ["photo"], "additionalProperties": False}
    schemas["FormQuestion"] = {**form, "properties": {"photo": binary, **fields}}
    schemas["FormPhoto"] = {**form, "properties": {"photo": binary, **{name: fields[name] for name in ENCODING_FIELDS}}}
    pair = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    schemas["Kept"] = {
        "type": "object",
        "required": ["id", "size"],
        "properties": {"id": {"type": "string"}, "size": {**pair, "description": "Width and height, pixels."}},
    }
    schemas["Segmentation"] = {
        "type": "object",
        "description": "The result. Masks are COCO's compressed run lengths; boxes are x0, y0, x1, y1.",
        "required": list(_SUMMARY),
        "properties": {
            "photo": {"type": "null"},
            "size": {**pair, "description": "Width and height, pixels."},
            "mode": {"enum": ["semantic", "panoptic", "instance"]},
            "names": {"type": "array", "items": {"type": "string"}},
            "classes": {"type": "array", "items": {"type": "object"}},
            "segments": {"type": "array", "items": {"type": "object", "required": ["name", "score", "segmentation"]}},
            "settings": {"type": "object"},
            "warnings": {"type": "array", "items": {"type": "string"}},
        },
    }
    schemas["Models"] = {
        "type": "object",
        "required": ["default", "models"],
        "properties": {"default": {"type": "string"}, "models": {"type": "array", "items": {"type": "object"}}},
    }
    schemas["Status"] = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    schemas["Problem"] = {
        "type": "object",
        "description": "RFC 9457. `limit` names the limit that was exceeded, and `maximum` is its value.",
        "required": ["type", "title", "status", "detail", "request_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "request_id": {"type": "string"},
            "limit": {"type": ["string", "null"]},
            "maximum": {"type": ["number", "null"]},
            "missing": {"enum": ["photo", "bank"], "description": "With 404: what has to be sent again."},
        },
    }
    return schemas | openapi_banks.schemas()


def _plain(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    assert "$defs" not in schema
    return schema


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
"""A PNG with one pixel."""
