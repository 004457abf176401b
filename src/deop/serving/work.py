"""What a worker does: it reads requests, encodes photos together, and answers questions about them."""

import secrets
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deop.errors import DeopError, SettingError
from deop.images.reading import read_photo
from deop.networks.memory import does_not_fit, free_memory, is_out_of_memory
from deop.results.checks import MODES
from deop.serving.answers import Answer, render
from deop.serving.encoded_photos import EncodedPhotos
from deop.serving.limits import Limits
from deop.serving.photo_requests import PhotoRequest, read_request
from deop.serving.problems import Problem, as_problem
from deop.serving.questions import Encoding, Question, StoredQuestion, parse
from deop.severance import KINDS, PRESETS
from deop.text.builtin import builtin_vocabulary
from deop.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from deop.surface import ModelSurface


@dataclass(frozen=True)
class Work:
    """What a request needs of a worker. Only the worker reads what a client has sent.

    Attributes:
        kind: "encode": keep the encoded photo; "label": answer a question about a kept one; "segment": both without
            keeping it; "forget": remove a kept one.
        body: the body of the request.
        content_type: its type.
        query: the fields of the address.
        type: media type of the answer, one of ``answers.TYPES``.
        id: the id of a kept photo.
    """

    kind: Literal["encode", "label", "segment", "forget"]
    body: bytes = b""
    content_type: str = ""
    query: dict[str, str] = field(default_factory=dict)
    type: str = ""
    id: str = ""


@dataclass(frozen=True)
class Kept:
    """A photo that was encoded and kept.

    Attributes:
        id: its id, which cannot be guessed.
        size: (width, height) of the photo, upright, pixels.
    """

    id: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Crash:
    """An error that is a bug: where it was raised. Its message is left out, since it may contain names.

    Attributes:
        type: the class of the error.
        places: "file:line" of each call, the innermost last.
    """

    type: str
    places: tuple[str, ...]


Outcome = Answer | Kept | Problem | Crash | bool
"""What a worker returns for a ``Work``; for "forget", whether the photo was there."""


@dataclass(frozen=True)
class Done:
    """The outcomes of a batch, and the state of the worker's cache after it."""

    outcomes: list[Outcome]
    photos: int
    bytes: int


class Worker:
    """A model and the photos that it has encoded. Used by one thread.

    Args:
        model: the model.
        limits: for the cache and the photos.
        prefix: the ids of photos begin with it.
    """

    def __init__(self, model: "ModelSurface", limits: Limits, prefix: str = "") -> None:
        self._model = model
        self._limits = limits
        self._prefix = prefix
        self._photos = EncodedPhotos(limits.cache_bytes, limits.cache_seconds)

    def describe(self) -> dict[str, Any]:
        """The model, as ``GET /v1/models`` lists it."""
        model = self._model
        library = "ONNX Runtime" if model.engine == "onnx" else "torch"
        return {
            "name": model.card.name,
            "backend": f"{library}, {model.device_kind}",
            "modes": list(MODES),
            "severances": _severances(model),
            "heatmaps": True,
            "defaults": {
                "threshold": model.settings.threshold,
                "smallest_region": model.settings.smallest_region,
            },
            "license": model.card.license,
            "batch": model.default_batch,
        }

    def warm_up(self) -> None:
        """Run the model once, so that the first request is as fast as the others."""
        (encoded,) = self._model.encode([np.full((64, 64, 3), 128, np.uint8)])
        self._model.label(encoded, ["cat", "wall"])

    def run(self, works: Sequence[Work]) -> Done:
        """The outcome of each work. Errors of one do not affect the others."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those about names are part of the answers, and not of the log
            return self._run(works)

    def _run(self, works: Sequence[Work]) -> Done:
        outcomes: list[Outcome | None] = [None] * len(works)
        requests: dict[int, PhotoRequest] = {}
        arrays: dict[int, Any] = {}
        self._photos.expire()
        for index, work in enumerate(works):
            if work.kind in ("encode", "segment"):
                result = _attempt(lambda work=work: self._read(work))
                if isinstance(result, (Problem, Crash)):
                    outcomes[index] = result
                else:
                    requests[index], arrays[index] = result
        encoded: dict[int, Any] = {}
        for encoding in dict.fromkeys(request.encoding for request in requests.values()):
            members = [index for index, request in requests.items() if request.encoding == encoding]
            results = self._encode([arrays.pop(index) for index in members], encoding)
            encoded |= dict(zip(members, results, strict=True))
        for index, work in enumerate(works):
            if outcomes[index] is None:
                request, result = requests.get(index), encoded.pop(index, None)
                outcomes[index] = _attempt(
                    lambda work=work, request=request, result=result: self._finish(work, request, result)
                )
        return Done(outcomes, len(self._photos), self._photos.bytes)  # type: ignore[arg-type]

    def _read(self, work: Work) -> tuple[PhotoRequest, np.ndarray]:
        request = read_request(work.body, work.content_type, work.query, self._limits, asks=work.kind == "segment")
        self._model.check_encoding(**request.encoding.model_dump())
        return replace(request, photo=b""), read_photo(request.photo, self._limits.pixels, allow_urls=False)

    def _encode(self, arrays: list[Any], encoding: Encoding) -> list[Any]:
        """Encoded photos; if that fails, one by one, so that only the faulty ones have problems."""
        result = _attempt(lambda: self._model.encode(arrays, **encoding.model_dump()))
        if not isinstance(result, (Problem, Crash)):
            return list(result)
        if len(arrays) == 1:
            return [result]
        return [one for array in arrays for one in self._encode([array], encoding)]

    def _finish(self, work: Work, request: PhotoRequest | None, encoded: Any) -> Any:
        if isinstance(encoded, (Problem, Crash)):
            return encoded
        if work.kind == "forget":
            return self._photos.remove(work.id)
        if work.kind == "encode":
            key = self._prefix + secrets.token_urlsafe(18)
            self._photos.add(key, encoded)
            height, width = encoded.photo.shape[:2]
            return Kept(key, (width, height))
        question = None if request is None else request.question
        if work.kind == "label":
            question = parse(StoredQuestion, work.body)
            question.check(self._limits)
            encoded = self._photos.get(work.id)
        if question is None:
            raise TypeError("a question is missing")
        return self._answer(encoded, question, work.type)

    def _answer(self, encoded: Any, question: Question, kind: str) -> Answer:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vocabulary = self._vocabulary(question)
            vocabulary.check_mode(question.mode)
            heatmaps = []
            if question.heatmap is not None and kind != "application/json":
                heatmaps = [vocabulary.names[question.heatmap]]
            result = self._model.label(
                encoded,
                vocabulary,
                mode=question.mode,
                threshold=question.threshold,
                smallest_region=question.smallest_region,
                heatmaps=heatmaps,
            )
        remarks = list(dict.fromkeys(str(entry.message) for entry in caught if _is_ours(entry)))
        return render(result, question, kind, remarks)

    def _vocabulary(self, question: Question) -> Vocabulary:
        names = question.names if question.vocabulary is None else builtin_vocabulary(question.vocabulary)
        return self._model.vocabulary(
            names, background=question.background, templates=question.templates, things=question.things
        )


def _severances(model: "ModelSurface") -> list[str]:
    """Names of severances that the model computes, its own first."""

    def computes(name: str) -> bool:
        try:
            model.check_encoding(name)
        except SettingError:
            return False
        return True

    names = dict.fromkeys([model.settings.severance.name, *KINDS, "affinity-normalized", *PRESETS])
    return [name for name in names if computes(name)]


def _is_ours(entry: warnings.WarningMessage) -> bool:
    return type(entry.message).__module__.partition(".")[0] == "deop"


def _attempt(function: Any) -> Any:
    """The result of a function, or its error as a ``Problem`` or a ``Crash``."""
    try:
        return function()
    except Problem as problem:
        return problem
    except DeopError as error:
        found = as_problem(error)
        return found if found.status != 500 else _crash(error)
    except Exception as error:
        if not is_out_of_memory(error):
            return _crash(error)
    # Not in the handler, where the error still keeps arrays alive.
    free_memory()
    return as_problem(does_not_fit("the photo", "cpu"))


def _crash(error: Exception) -> Crash:
    frames = traceback.extract_tb(error.__traceback__)
    return Crash(type(error).__name__, tuple(f"{frame.filename}:{frame.lineno}" for frame in frames[-12:]))
