"""The part of the description of ``/v1`` about banks of examples, and about marks."""

from collections.abc import Callable
from typing import Any

from deop.serving.bank_requests import Example, Examples, ForgottenNames, StoredExamples
from deop.serving.limits import Limits
from deop.serving.mark_requests import Mark, RunLengths, StoredMarks

_SUMMARY = {
    "id": "x8Zk2Qv5",
    "given": False,
    "names": [{"name": "cup", "regions": 7, "photos": 2}, {"name": "widget-a", "regions": 13, "photos": 1}],
    "regions": 40,
    "photos": 2,
    "bytes": 23456,
}
_MARKED = {"box": [0, 0, 1, 2], "area": 2, "segmentation": {"size": [2, 2], "counts": "022"}}
LINK_TO_MARKS = {
    "operationId": "mark",
    "description": "Ask which pixels a click stands for, before it is learned.",
    "requestBody": {"id": "$response.body#/id", "marks": [{"click": [40, 30]}]},
}
"""From an encoded photo."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PARAMETER = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
Problems = Callable[..., dict[str, Any]]


def paths(limits: Limits, guards: list[int], problems: Problems) -> dict[str, Any]:
    """The addresses of banks and marks.

    Args:
        limits: those of the server.
        guards: the status of requests without a token, if they need one.
        problems: describes the answers with given statuses.
    """
    work = [*guards, 403, 408, 413, 422, 429, 500, 503]
    change = [*work, 404, 405]
    lifetime = (
        f"A token has up to {limits.banks:,} banks with {limits.bank_bytes:,} bytes; those that were used longest ago "
        f"make room, and a bank is forgotten when it has not been used for {limits.bank_seconds:g} seconds. A bank has "
        f"up to {limits.bank_regions:,} regions."
    )
    file = {
        "description": "The bytes of a bank file, from `deop learn` or `GET /v1/banks/{id}/file`.",
        "content": {"application/octet-stream": _BINARY},
    }
    example = {"id": "0-4f6sJ2bD", "examples": [{"name": "cup", "click": [40, 30]}]}
    return {
        "/v1/marks": {
            "post": {
                "operationId": "mark",
                "summary": "Ask which pixels clicks and boxes stand for",
                "description": f"Up to {limits.examples:,} marked regions of an encoded photo. The answer has the "
                "pixels that `POST /v1/banks/{id}/examples` learns; its masks can be sent there in place of the marks.",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/StoredMarks"},
                            "examples": {
                                "marks": {"value": {"id": "0-4f6sJ2bD", "marks": [{"click": [40, 30]}]}},
                            },
                        }
                    },
                },
                "responses": {
                    "200": {
                        "description": "The pixels, in the order of the marks.",
                        "content": {
                            "application/json": {
                                "schema": {"$ref": "#/components/schemas/MarkedPixels"},
                                "examples": {"click": {"value": {"size": [2, 2], "marks": [_MARKED]}}},
                            }
                        },
                    },
                    **problems(*work, 404, 415),
                },
            }
        },
        "/v1/banks": {
            "post": {
                "operationId": "createBank",
                "summary": "Create a bank of examples",
                "description": f"Without a body it is empty. {lifetime}",
                "requestBody": {"required": False, **file},
                "responses": {
                    "201": {
                        **_summary("The bank."),
                        "headers": {"Location": {"schema": {"type": "string"}}},
                        "links": {
                            key: {"operationId": key, "parameters": {"id": "$response.body#/id"}}
                            for key in ("showBank", "addExamples", "mergeBank", "downloadBank", "deleteBank")
                        },
                    },
                    **problems(*work),
                },
            },
            "get": {
                "operationId": "listBanks",
                "summary": "The banks that the operator of the server gives to all",
                "responses": {
                    "200": {
                        "description": "Their id is a name. Banks of clients are not listed.",
                        "content": {
                            "application/json": {
                                "schema": {"$ref": "#/components/schemas/Banks"},
                                "examples": {
                                    "banks": {"value": {"banks": [{**_SUMMARY, "id": "shop", "given": True}]}}
                                },
                            }
                        },
                    },
                    **problems(*guards, 403, 500),
                },
            },
        },
        "/v1/banks/{id}": {
            "get": {
                "operationId": "showBank",
                "summary": "What a bank has",
                "parameters": _PARAMETER,
                "responses": {"200": _summary("The bank."), **problems(*guards, 403, 404, 405, 500)},
            },
            "post": {
                "operationId": "mergeBank",
                "summary": "Add the examples of a file",
                "parameters": _PARAMETER,
                "requestBody": {"required": True, **file},
                "responses": {"200": _summary("The bank with all examples."), **problems(*change)},
            },
            "delete": {
                "operationId": "deleteBank",
                "summary": "Forget a bank",
                "parameters": _PARAMETER,
                "responses": {
                    "204": {"description": "The bank is forgotten."},
                    **problems(*guards, 403, 404, 405, 429, 500, 503),
                },
            },
        },
        "/v1/banks/{id}/file": {
            "get": {
                "operationId": "downloadBank",
                "summary": "The file of a bank",
                "parameters": _PARAMETER,
                "responses": {
                    "200": {"description": "For `--bank`.", "content": {"application/octet-stream": _BINARY}},
                    **problems(*guards, 403, 404, 405, 409, 500),
                },
            }
        },
        "/v1/banks/{id}/examples": {
            "post": {
                "operationId": "addExamples",
                "summary": "Teach a name with marked regions of a photo",
                "description": f"Up to {limits.examples:,} regions, of a photo that was encoded, or in a form with a "
                "photo. What was not marked is learned as anything else.",
                "parameters": _PARAMETER,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/StoredExamples"},
                            "examples": {"click": {"value": example}},
                        },
                        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/FormExamples"}},
                    },
                },
                "responses": {"200": _summary("The bank with the examples."), **problems(*change, 415)},
            }
        },
        "/v1/banks/{id}/forget": {
            "post": {
                "operationId": "forgetNames",
                "summary": "Remove the examples of names",
                "parameters": _PARAMETER,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/ForgottenNames"},
                            "examples": {"names": {"value": {"names": ["cup"]}}},
                        }
                    },
                },
                "responses": {"200": _summary("The bank without them."), **problems(*change, 415)},
            }
        },
    }


def schemas() -> dict[str, Any]:
    """The forms of bodies and answers."""
    found: dict[str, Any] = {}
    for kind in (RunLengths, Mark, StoredMarks, Example, Examples, StoredExamples, ForgottenNames):
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        found[kind.__name__] = schema
    text = {"type": "string"}
    found["FormExamples"] = {
        "type": "object",
        "required": ["photo"],
        "additionalProperties": False,
        "properties": {
            "photo": {"type": "string", "format": "binary"},
            "mask": {"type": "string", "format": "binary", "description": "A picture: what is not 0 is marked."},
            "name": {**text, "description": "The name, with one of click, box and mask."},
            "negative": {"enum": ["true", "false"]},
            "click": {**text, "description": "`x,y`"},
            "box": {**text, "description": "`left,top,right,bottom`"},
            "examples": {**text, "description": "Instead of these: a list as in JSON, for several regions."},
            "replace": {"enum": ["true", "false"]},
        },
    }
    found["MarkedPixels"] = _marked_pixels()
    name = {
        "type": "object",
        "required": ["name", "regions", "photos"],
        "properties": {"name": text, "regions": {"type": "integer"}, "photos": {"type": "integer"}},
    }
    found["Bank"] = {
        "type": "object",
        "required": list(_SUMMARY),
        "properties": {
            "id": text,
            "given": {"type": "boolean", "description": "Whether it is the operator's, and cannot be changed."},
            "names": {"type": "array", "items": name},
            "regions": {"type": "integer", "description": "Also of regions without a name."},
            "photos": {"type": "integer"},
            "bytes": {"type": "integer"},
        },
    }
    found["Banks"] = {
        "type": "object",
        "required": ["banks"],
        "properties": {"banks": {"type": "array", "items": {"$ref": "#/components/schemas/Bank"}}},
    }
    return found


def _marked_pixels() -> dict[str, Any]:
    """The form of the answer of ``POST /v1/marks``."""
    integer = {"type": "integer"}
    box = {"type": ["array", "null"], "items": integer, "minItems": 4, "maxItems": 4}
    mark = {
        "type": "object",
        "required": list(_MARKED),
        "properties": {
            "box": {**box, "description": "x0, y0, x1, y1 in pixels. Null: a mask without a pixel, which is ignored."},
            "area": {**integer, "description": "Pixels."},
            "segmentation": {"$ref": "#/components/schemas/RunLengths"},
        },
    }
    size = {"type": "array", "items": integer, "minItems": 2, "maxItems": 2, "description": "Width and height, pixels."}
    return {
        "type": "object",
        "required": ["size", "marks"],
        "properties": {"size": size, "marks": {"type": "array", "items": mark}},
    }


def _summary(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Bank"}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "examples": {"bank": {"value": _SUMMARY}}}},
    }
