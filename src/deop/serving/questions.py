"""What a client may ask, as the bodies of requests."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deop.errors import DeopError, SettingError
from deop.serving.limits import Limits
from deop.serving.problems import Problem, as_problem, exceeds
from deop.text.builtin import builtin_vocabulary
from deop.text.thresholds import Thresholds
from deop.text.vocabulary import Vocabulary

Score = Annotated[float, Field(ge=0, le=1, strict=True)]
Text = Annotated[str, Field(strict=True)]
Names = Annotated[
    list[Text] | Text,
    Field(description="Class names: a list, or one text with commas. `sofa|couch` are synonyms."),
]
Picture = Literal["overlay", "outline", "labels", "side-by-side", "label-map", "cutout"]

MAX_BANKS = 8
"""Banks of one question."""


class Question(BaseModel):
    """What to look for in a photo."""

    model_config = ConfigDict(extra="forbid")

    names: Names = Field(default_factory=list)
    background: Names = Field(default_factory=list, description="Names that compete, but are not in the result.")
    things: Names | None = Field(
        default=None, description="The names that are countable things. Null: guessed from the names."
    )
    mode: Literal["semantic", "panoptic", "instance"] = "semantic"
    threshold: Score | dict[str, Score] | None = Field(
        default=None,
        description='Minimum score: one number, or one for each name, `{"*": 0.3, "dog": 0.6}`. Null: the model\'s '
        "setting.",
    )
    smallest_region: Annotated[float, Field(ge=0, lt=1, strict=True)] | None = Field(
        default=None,
        description="Share of the photo: smaller connected regions get the name of their surroundings. 0 keeps all. "
        "Null: the model's setting.",
    )
    vocabulary: Literal["coco", "ade20k", "cityscapes", "everyday"] | None = Field(
        default=None, description="A built-in vocabulary instead of names."
    )
    templates: str | None = Field(
        default=None,
        description="Prompt templates of the names: `single`, `photo`, `vild`, `imagenet`, `none`, or a sentence with "
        "`{}`. Null: the model's setting.",
    )
    heatmap: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        default=None, description="Index of a name whose score at each pixel is the answer: a grey PNG, 255 = 1."
    )
    picture: Picture = Field(
        default="overlay",
        description="What an answer of the type image/png, image/jpeg or image/webp shows. label-map: a PNG whose "
        "values are the index of the name + 1, 0 = none. cutout: all names on a transparent background.",
    )

    bank: Annotated[list[Text], Field(max_length=MAX_BANKS)] | Text | None = Field(
        default=None,
        description="Examples that count beside the words: the id of a bank, or the name of one of `GET /v1/banks`; or "
        "several, as a list or with commas. Without `names`, those of the bank are asked.",
    )
    bank_weight: Score | None = Field(
        default=None,
        description="How much examples count: 0 words alone, 1 examples alone where there are some. Null: 0.5, as "
        "fitted on the examples.",
    )

    @property
    def banks(self) -> list[str]:
        """The ids and names of the banks."""
        parts = self.bank.split(",") if isinstance(self.bank, str) else self.bank or []
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))

    @property
    def has_names(self) -> bool:
        """Whether it says what to ask for."""
        texts = self.names.replace(",", " ") if isinstance(self.names, str) else "".join(self.names)
        return self.vocabulary is not None or bool(texts.strip())

    def check(self, limits: Limits) -> None:
        """Check the question against the limits.

        Raises:
            Problem: naming the limit, or the name that cannot be used.
        """
        most = limits.names * (limits.characters + 2)
        for names in (self.names, self.background, self.things):
            if isinstance(names, str) and len(names) > most:  # before it is split
                raise exceeds(422, "characters", limits.characters, f"the names have {len(names):,} characters")
        texts = [
            text
            for names in (self.names, self.background, self.things or [])
            for text in (names.replace(";", ",").replace("\n", ",").split(",") if isinstance(names, str) else names)
        ]
        count = sum(text.count("|") + 1 for text in texts)
        if count > limits.names:
            raise exceeds(422, "names", limits.names, f"the question has {count:,} names")
        if isinstance(self.threshold, dict) and len(self.threshold) > limits.names + 1:
            raise exceeds(422, "names", limits.names, f"the question has {len(self.threshold):,} thresholds")
        longest = max(map(len, [*texts, self.templates or ""]))
        if longest > limits.characters:
            raise exceeds(422, "characters", limits.characters, f"a name or a template has {longest:,} characters")
        if len(self.banks) > MAX_BANKS or any(len(name) > limits.characters for name in self.banks):
            raise Problem(422, f"bank: give at most {MAX_BANKS} banks, by id or name")
        if self.bank_weight is not None and not self.banks:
            raise Problem(422, 'bank_weight has no effect without examples: give "bank"')
        if self.banks and not self.has_names:
            return  # what the bank has is asked, which only the worker knows that has it
        if self.vocabulary is None and not any(text.strip() for text in texts):
            raise Problem(
                422, 'there are no names: give "names", a built-in list as "vocabulary", or a "bank" with names'
            )
        try:
            self._check_names()
        except DeopError as error:
            raise as_problem(error) from None

    def _check_names(self) -> None:
        """Find mistakes before the photo is encoded.

        Raises:
            VocabularyError, SettingError: naming the name.
        """
        names = self.names if self.vocabulary is None else builtin_vocabulary(self.vocabulary)
        vocabulary = Vocabulary.parse(names, background=self.background, templates=self.templates, things=self.things)
        vocabulary.check_mode(self.mode, warn=False)
        Thresholds.parse(self.threshold).values(vocabulary, 0)
        if self.heatmap is not None and self.heatmap >= len(vocabulary.names):
            raise SettingError(f"heatmap: there is no name {self.heatmap}; the first one is 0")


class StoredQuestion(Question):
    """A question about a photo that was encoded before."""

    id: str = Field(description="What `POST /v1/encode` answered.", max_length=100)


class PhotoId(BaseModel):
    """The part of a ``StoredQuestion`` that names the worker. The worker itself reads the rest."""

    id: str = Field(max_length=100)


class Encoding(BaseModel):
    """How a photo is encoded: the arguments of ``ModelSurface.encode``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severance: str | None = Field(
        default=None, max_length=200, description="How attention is severed. Null: the model's setting."
    )
    anchors: str | None = Field(
        default=None,
        max_length=20,
        description="How masks are classified: `decoder`, `pool`, `tokens` or `patch`. Null: the model's setting.",
    )
    classifier: Literal["one-pass", "two-stream"] = Field(
        default="one-pass", description="two-stream: the baseline, which encodes a crop of each mask."
    )


class PhotoQuestion(Question, Encoding):
    """A photo in base64, and what to look for in it."""

    model_config = ConfigDict(extra="forbid", frozen=False)

    photo: str = Field(description="The bytes of the photo, in base64.", json_schema_extra={"format": "byte"})


ENCODING_FIELDS = tuple(Encoding.model_fields)
QUERY_FIELDS = (*Question.model_fields, *ENCODING_FIELDS)
"""Fields that may be given in the address or in a form."""
_MAY_BE_BLANK = ("names", "background", "things", "threshold", "templates", "severance", "anchors", "bank")
"""Fields with any text, which forms of web pages also send where nothing was typed."""


def parse(kind: type[BaseModel], content: Any) -> Any:
    """A question from JSON or from the fields of a form.

    Args:
        kind: the class.
        content: bytes of JSON, or a dictionary.

    Raises:
        Problem: naming the field and what is wrong with it.
    """
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        parts = [
            f"{'.'.join(str(part) for part in _place(entry['loc'])) or 'the body'}: {entry['msg']}"
            for entry in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        unique = list(dict.fromkeys(parts))
        raise Problem(422, "; ".join(unique[:5])) from None


def _place(path: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of the path of a field that is shown; of thresholds by name, for example, only the field."""
    return path[:3] if path[:1] in (("examples",), ("marks",)) else path[:1]


def from_fields(fields: dict[str, str]) -> dict[str, Any]:
    """The content of a question whose fields are texts, as in an address or a form.

    Raises:
        Problem: a text that is not a number.

    >>> from_fields({"names": "cat, dog", "threshold": "0.3"})
    {'names': 'cat, dog', 'threshold': 0.3}
    """
    content: dict[str, Any] = {}
    for name, text in fields.items():
        if name in _MAY_BE_BLANK and not text.strip():
            continue
        if name == "threshold":
            content[name] = _threshold(text)
        elif name in ("smallest_region", "bank_weight"):
            content[name] = _number(name, text)
        elif name == "heatmap":
            if not (text.isascii() and text.isdecimal() and len(text) < 10):
                raise Problem(422, "heatmap: give the index of a name, counted from 0")
            content[name] = int(text)
        elif name in QUERY_FIELDS:
            content[name] = text
        else:
            raise Problem(422, f"unknown field: give some of {', '.join(QUERY_FIELDS)}")
    return content


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Problem(422, f"{name}: this is not a number") from None


def _threshold(text: str) -> Any:
    try:
        thresholds = Thresholds.parse(text)
    except SettingError as error:
        raise Problem(422, str(error)) from None
    if not thresholds.by_name:
        return thresholds.default
    default = {} if thresholds.default is None else {"*": thresholds.default}
    return {**default, **dict(thresholds.by_name)}
