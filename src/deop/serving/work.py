"""What a worker does: it reads requests, encodes photos together, and answers questions about them."""

import secrets
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deop.bank.space import check_bank
from deop.errors import DeopError, SettingError
from deop.images.reading import read_photo
from deop.networks.memory import does_not_fit, free_memory, is_out_of_memory
from deop.results.checks import MODES
from deop.serving.answers import Answer, render
from deop.serving.bank_requests import ForgottenNames, read_examples
from deop.serving.banks import MissingBanks, StoredBank, given_summaries
from deop.serving.encoded_photos import EncodedPhotos
from deop.serving.limits import Limits
from deop.serving.mark_requests import StoredMarks, answer_marks
from deop.serving.photo_requests import PhotoRequest, read_request
from deop.serving.problems import Problem, as_problem
from deop.serving.questions import Encoding, Question, StoredQuestion, parse
from deop.serving.worker_banks import BanksAreMissing, WorkerBanks
from deop.severance import KINDS, PRESETS
from deop.text.builtin import builtin_vocabulary
from deop.text.thresholds import Thresholds
from deop.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from deop.bank import Bank
    from deop.surface import ModelSurface


@dataclass(frozen=True)
class Work:
    """What a request needs of a worker. Only the worker reads what a client has sent.

    Attributes:
        kind: "encode": keep the encoded photo; "label": answer a question about a kept one; "mark": say which pixels
            marks of a kept one stand for; "segment": encode and label without keeping it; "forget": remove a kept one;
            "learn": add marked regions to a bank; "merge": add a file to it; "drop": remove names from it.
        body: the body of the request.
        content_type: its type.
        query: the fields of the address.
        type: media type of the answer, one of ``answers.TYPES``.
        id: the id of a kept photo.
        bank: the id of the bank to be changed; "": a new one.
        banks: the digest of each bank of the client, by id.
        contents: the content of some of them, by digest, which the worker did not have.
    """

    kind: Literal["encode", "label", "mark", "segment", "forget", "learn", "merge", "drop"]
    body: bytes = b""
    content_type: str = ""
    query: dict[str, str] = field(default_factory=dict)
    type: str = ""
    id: str = ""
    bank: str = ""
    banks: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)


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


Outcome = Answer | Kept | StoredBank | MissingBanks | Problem | Crash | bool
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
        banks: banks that all clients can use, by name.

    Raises:
        SettingError: a bank of another model.
    """

    def __init__(
        self, model: "ModelSurface", limits: Limits, prefix: str = "", banks: "Mapping[str, Bank] | None" = None
    ) -> None:
        self._model = model
        self._limits = limits
        self._prefix = prefix
        self._photos = EncodedPhotos(limits.cache_bytes, limits.cache_seconds)
        self._given = banks or {}
        for bank in self._given.values():
            check_bank(model, bank)
        self._banks = WorkerBanks(model, limits, self._given)

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
            "banks": given_summaries(self._given),
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
            if work.kind in ("encode", "segment") or (work.kind == "learn" and not work.id):
                result = _attempt(lambda work=work: self._read(work))
                if isinstance(result, _FAILED):
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
        if work.kind == "learn":
            self._banks.of([work.bank], work)
            marked = read_examples(work.body, work.content_type, self._limits)
            if marked.photo is None:
                raise TypeError("a photo is missing")
            request = PhotoRequest(marked.photo, Encoding(), None, marked.examples)
            return replace(request, photo=b""), read_photo(marked.photo, self._limits.pixels, allow_urls=False)
        request = read_request(work.body, work.content_type, work.query, self._limits, asks=work.kind == "segment")
        self._model.check_encoding(**request.encoding.model_dump())
        if request.question is not None and request.question.banks:
            self._vocabulary(request.question, self._banks.of(request.question.banks, work))
        return replace(request, photo=b""), read_photo(request.photo, self._limits.pixels, allow_urls=False)

    def _encode(self, arrays: list[Any], encoding: Encoding) -> list[Any]:
        """Encoded photos; if that fails, one by one, so that only the faulty ones have problems."""
        result = _attempt(lambda: self._model.encode(arrays, **encoding.model_dump()))
        if not isinstance(result, _FAILED):
            return list(result)
        if len(arrays) == 1:
            return [result]
        return [one for array in arrays for one in self._encode([array], encoding)]

    def _finish(self, work: Work, request: PhotoRequest | None, encoded: Any) -> Any:
        if isinstance(encoded, _FAILED):
            return encoded
        match work.kind:
            case "forget":
                return self._photos.remove(work.id)
            case "encode":
                return self._keep(encoded, request)
            case "merge":
                return self._banks.merge(work)
            case "drop":
                names: ForgottenNames = parse(ForgottenNames, work.body)
                return self._banks.forget(work, names.listed())
            case "learn":
                return self._learn(work, request, encoded)
            case "mark":
                return self._mark(work)
        question = None if request is None else request.question
        if work.kind == "label":
            question = parse(StoredQuestion, work.body)
            question.check(self._limits)
            encoded, _ = self._photos.get(work.id)
        if question is None:
            raise TypeError("a question is missing")
        return self._answer(encoded, question, work)

    def _keep(self, encoded: Any, request: PhotoRequest | None) -> Kept:
        key = self._prefix + secrets.token_urlsafe(18)
        self._photos.add(key, (encoded, Encoding() if request is None else request.encoding))
        height, width = encoded.photo.shape[:2]
        return Kept(key, (width, height))

    def _learn(self, work: Work, request: PhotoRequest | None, encoded: Any) -> StoredBank:
        encoding, examples = Encoding(), None if request is None else request.examples
        if work.id:
            examples = read_examples(work.body, work.content_type, self._limits).examples
            encoded, encoding = self._photos.get(work.id)
        if examples is None:
            raise TypeError("the examples are missing")
        _check_examples(encoding)
        return self._banks.learn(work, encoded, examples, encoding.model_dump())

    def _mark(self, work: Work) -> Answer:
        marks: StoredMarks = parse(StoredMarks, work.body)
        marks.check(self._limits)
        encoded, encoding = self._photos.get(work.id)
        _check_examples(encoding)
        return answer_marks(encoded, marks.marks, self._limits)

    def _answer(self, encoded: Any, question: Question, work: Work) -> Answer:
        kind = work.type
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vocabulary = self._vocabulary(question, self._banks.of(question.banks, work))
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
        return render(result, question, kind, remarks)._replace(banks=tuple(question.banks))

    def _vocabulary(self, question: Question, bank: "Bank | None") -> Vocabulary:
        """The names of a question, checked.

        Raises:
            Problem, DeopError: naming what is wrong.
        """
        names: Any = question.names if question.has_names else None
        if question.vocabulary is not None:
            names = builtin_vocabulary(question.vocabulary)
        if names is None and bank is None:
            raise Problem(422, 'the bank has no examples yet, and there are no "names": give some')
        vocabulary = self._model.vocabulary(
            names,
            background=question.background,
            templates=question.templates,
            things=question.things,
            bank=bank,
            bank_weight=None if bank is None else question.bank_weight,
        )
        vocabulary.check_mode(question.mode, warn=False)
        Thresholds.parse(question.threshold).values(vocabulary, 0)
        if question.heatmap is not None and question.heatmap >= len(vocabulary.names):
            raise SettingError(f"heatmap: there is no name {question.heatmap}; the first one is 0")
        return vocabulary


_FAILED = (Problem, Crash, MissingBanks)


def _check_examples(encoding: Encoding) -> None:
    if encoding.classifier != "one-pass":
        raise Problem(422, "examples do not apply to the two-stream classifier: encode the photo without it")


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
    except BanksAreMissing as error:
        return error.missing
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
