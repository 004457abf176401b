"""An ML backend for Label Studio: it proposes masks for the photos that annotators open, or for all tasks of a project.

    pip install "deop[serve]"
    LABEL_STUDIO_URL=http://localhost:8080 LABEL_STUDIO_API_KEY=... python backend.py

The names are those of the project's labeling configuration, which has ``BrushLabels`` or ``PolygonLabels``; a label
``sofa|couch`` has synonyms. README.md has the settings. Label Studio asks ``/health``, ``/setup`` and ``/predict``.
"""

import json
import os
import threading
import urllib.error
import urllib.request
import xml.etree.ElementTree as xml
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote, urljoin

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import deop
from deop.errors import DeopError
from deop.images.download import MAX_BYTES
from deop.images.reading import read_photo

MODEL = os.environ.get("DEOP_MODEL", "nano")
MODE = os.environ.get("DEOP_MODE", "panoptic")
LABEL_STUDIO = os.environ.get("LABEL_STUDIO_URL", "http://localhost:8080").rstrip("/")
KEY = os.environ.get("LABEL_STUDIO_API_KEY", "")
VERSION = f"deop {deop.__version__} {MODEL}"

app = FastAPI(title="deop for Label Studio")
lock = threading.Lock()
"""One photo at a time: the model already uses all cores."""


@dataclass(frozen=True)
class Control:
    """What a labeling configuration asks for.

    Attributes:
        name: of the tag with the labels.
        image: name of the image tag.
        variable: key of the photo in a task's data.
        labels: the labels, in order.
        polygons: whether the tag is for polygons, else for brush masks.
    """

    name: str
    image: str
    variable: str
    labels: list[str]
    polygons: bool


class Question(BaseModel):
    """What Label Studio sends to get predictions."""

    tasks: list[dict[str, Any]]
    label_config: str
    project: str | int | None = None
    params: dict[str, Any] | None = None


@app.get("/")
@app.get("/health")
def health() -> dict[str, str]:
    """Whether the backend runs."""
    return {"status": "UP", "model_class": "deop"}


@app.post("/setup")
def setup() -> dict[str, str]:
    """A project is connected: load the model, so that the first prediction does not wait for it."""
    load()
    return {"model_version": VERSION}


@app.post("/predict")
def predict(question: Question) -> dict[str, Any]:
    """A prediction for each task."""
    try:
        control = read_config(question.label_config)
        results = [prediction_of(task, control) for task in question.tasks]
    except (DeopError, ValueError, OSError) as error:
        raise HTTPException(422, str(error)) from error
    return {"results": results, "model_version": VERSION}


@app.post("/webhook", status_code=201)
def webhook() -> dict[str, str]:
    """Annotations have changed: the model does not learn from them."""
    return {}


def read_config(config: str) -> Control:
    """The control tag of a labeling configuration.

    Raises:
        ValueError: it has none that fits.
    """
    try:
        root = xml.fromstring(config)
    except xml.ParseError as error:
        raise ValueError(f"the labeling configuration is not XML: {error}") from error
    images = {tag.get("name"): tag.get("value", "").lstrip("$") for tag in root.iter("Image")}
    for kind in ("BrushLabels", "PolygonLabels"):
        for tag in root.iter(kind):
            image = tag.get("toName")
            labels = [value for label in tag.iter("Label") if (value := label.get("value"))]
            if image in images and labels:
                return Control(tag.get("name", ""), str(image), images[image], labels, kind == "PolygonLabels")
    raise ValueError("the labeling configuration needs BrushLabels or PolygonLabels, with labels, for an Image")


def prediction_of(task: dict[str, Any], control: Control) -> dict[str, Any]:
    """The prediction for a task, in Label Studio's format."""
    content = photo_of(task, str(task["data"][control.variable]))
    with lock:
        result = load().segment(content, control.labels, mode=MODE)
    tolerance = 1.0 if control.polygons else 0.0
    entry = result.to_labelstudio(polygons=control.polygons, from_name=control.name, tolerance=tolerance)
    prediction: dict[str, Any] = entry["predictions"][0]
    labels = dict(zip(result.names, control.labels, strict=True))  # "sofa": "sofa|couch"
    for region in prediction["result"]:
        region["to_name"] = control.image
        region["value"][region["type"]] = [labels[name] for name in region["value"][region["type"]]]
    return {**prediction, "model_version": VERSION}


def photo_of(task: dict[str, Any], address: str) -> Any:
    """The photo of a task: from Label Studio, which also knows the keys of its cloud storage, or from the web."""
    if address.startswith("https://") and not address.startswith(f"{LABEL_STUDIO}/"):
        return read_photo(address)  # with limits, and never from this network by a redirect
    if address.startswith("/"):
        address = LABEL_STUDIO + address
    elif address.startswith(("s3://", "gs://", "azure-blob://")):
        place = quote(urlsafe_b64encode(address.encode()).decode())
        address = f"{LABEL_STUDIO}/tasks/{int(task['id'])}/presign/?fileuri={place}"
    if not address.startswith(f"{LABEL_STUDIO}/"):
        raise ValueError(f"{address}: photos are read from Label Studio at {LABEL_STUDIO}, or by https")
    request = urllib.request.Request(address, headers={"Authorization": authorization()} if KEY else {})
    try:
        with opener.open(request, timeout=60) as answer:
            content: bytes = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        hint = ": set LABEL_STUDIO_API_KEY" if error.code in (401, 403) else ""
        raise ValueError(f"Label Studio answers {error.code} for {address}{hint}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{address} has more than {MAX_BYTES:,} bytes")
    return content


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to cloud storage without the key."""

    def redirect_request(self, request: Any, *rest: Any) -> Any:
        """The next request."""
        following = super().redirect_request(request, *rest)
        if following is not None and not following.full_url.startswith(f"{LABEL_STUDIO}/"):
            following.headers.pop("Authorization", None)
        return following


opener = urllib.request.build_opener(_Redirects)


def authorization() -> str:
    """The header of requests: a legacy token as it is; of a personal access token, the token that it is exchanged for.

    The first kind is 40 hexadecimal digits, the second a JSON Web Token, with two dots.
    """
    if KEY.count(".") != 2:
        return f"Token {KEY}"
    body = json.dumps({"refresh": KEY}).encode()
    request = urllib.request.Request(
        urljoin(LABEL_STUDIO + "/", "api/token/refresh/"), body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return f"Bearer {json.load(answer)['access']}"


@cache
def load() -> Any:
    """The model, loaded once."""
    return deop.load(MODEL)


if __name__ == "__main__":
    uvicorn.run(app, host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "9090")))
