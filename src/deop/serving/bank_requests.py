"""Reading a request with marked regions, in a worker: JSON about an encoded photo, or a form with a photo."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deop.bank.bank import NOT, clean_name
from deop.errors import DeopError
from deop.serving.bodies import FORM, JSON
from deop.serving.limits import Limits
from deop.serving.mark_requests import Mark, check_number
from deop.serving.photo_requests import check_photo, read_form
from deop.serving.problems import Problem, as_problem, exceeds
from deop.serving.questions import parse

FORM_FIELDS = ("examples", "name", "negative", "click", "box", "replace")


class Example(Mark):
    """A marked region: a mask, a box or a click, and its name."""

    name: Annotated[str, Field(strict=True, description="`sofa|couch` are synonyms; `-cup` is not a cup.")]
    negative: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Whether the region does not have the name."
    )

    def check(self, limits: Limits) -> None:
        """Check what can be checked without the photo.

        Raises:
            Problem: naming what is wrong.
        """
        if len(self.name) > limits.characters:
            raise exceeds(422, "characters", limits.characters, f"a name has {len(self.name):,} characters")
        super().check(limits)
        self.clean_name()

    def clean_name(self) -> str:
        """The name as the bank stores it.

        Raises:
            Problem: it is blank.
        """
        try:
            name = clean_name(self.name)
        except DeopError as error:
            raise as_problem(error) from None
        if not name:
            raise Problem(422, "examples: a name is blank: give it a name such as 'cup'")
        return NOT + name.removeprefix(NOT) if self.negative else name


class Examples(BaseModel):
    """Marked regions of a photo."""

    model_config = ConfigDict(extra="forbid")

    examples: list[Example] = Field(description="The marked regions. Mark every object of a name, or most of them.")
    replace: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Whether these are all marked regions of the photo: what the bank has of it is dropped.",
    )

    def check(self, limits: Limits) -> None:
        """Check the examples against the limits.

        Raises:
            Problem: naming the limit, or what is wrong.
        """
        check_number(self.examples, limits, "examples")
        if not self.examples and not self.replace:
            raise Problem(422, "examples: there is none, and replace is false, so that nothing would change")
        for example in self.examples:
            example.check(limits)

    def names(self) -> list[str]:
        """The names, as the bank stores them."""
        return [example.clean_name() for example in self.examples]


class StoredExamples(Examples):
    """Marked regions of a photo that was encoded before."""

    id: str = Field(description="What `POST /v1/encode` answered.", max_length=100)


class ForgottenNames(BaseModel):
    """Names whose examples are removed."""

    model_config = ConfigDict(extra="forbid")

    names: (
        Annotated[list[Annotated[str, Field(strict=True)]], Field(min_length=1)] | Annotated[str, Field(strict=True)]
    ) = Field(description="A list, or one text with commas: `cup, -mug`.")

    def listed(self) -> list[str]:
        """The names."""
        return self.names if isinstance(self.names, list) else [part for part in self.names.split(",") if part.strip()]


@dataclass(frozen=True)
class MarkedRequest:
    """A request with marked regions.

    Attributes:
        examples: the regions.
        photo: the bytes of the photo; None: it was encoded before.
    """

    examples: Examples
    photo: bytes | None


def read_examples(body: bytes, content_type: str, limits: Limits) -> MarkedRequest:
    """Marked regions, and their photo if the request has it.

    Raises:
        Problem: naming the field or the limit, and what is wrong.
    """
    kind = content_type.partition(";")[0].strip().casefold()
    if kind == JSON:
        examples: Examples = parse(StoredExamples, body)
        examples.check(limits)
        return MarkedRequest(examples, None)
    if kind != FORM:
        raise Problem(415, f"the content must be {JSON}, about an encoded photo, or {FORM} with a photo")
    files, fields = asyncio.run(read_form(body, content_type, limits, ("photo", "mask"), FORM_FIELDS))
    if "photo" not in files:
        raise Problem(422, 'the form has no file "photo": with curl, add -F photo=@photo.jpg')
    if "examples" in fields:
        others = {"name", "negative", "click", "box"} & fields.keys()
        if others or "mask" in files:
            raise Problem(422, "give either examples, or name with click, box or mask")
        text = f'{{"examples": {fields["examples"]}, "replace": {_flag(fields, "replace")}}}'
        examples = parse(Examples, text.encode("utf-8", "replace"))
    else:
        examples = parse(
            Examples, {"examples": [_single(files, fields)], "replace": _flag(fields, "replace") == "true"}
        )
    examples.check(limits)
    check_photo(files["photo"], limits)
    return MarkedRequest(examples, files["photo"])


def _single(files: dict[str, bytes], fields: dict[str, str]) -> dict[str, Any]:
    """The example of a form without the field "examples"."""
    example: dict[str, Any] = {"name": fields.get("name", ""), "negative": _flag(fields, "negative") == "true"}
    for key in ("click", "box"):
        if key in fields:
            try:
                example[key] = [float(part) for part in fields[key].split(",")]
            except ValueError:
                raise Problem(422, f"{key}: give numbers with commas, in pixels") from None
    if "mask" in files:
        from base64 import b64encode

        example["mask"] = b64encode(files["mask"]).decode()
    return example


def _flag(fields: dict[str, str], name: str) -> Literal["true", "false"]:
    text = fields.get(name, "false").strip().casefold()
    if text in ("true", "1", "on"):
        return "true"
    if text in ("false", "0", "off", ""):
        return "false"
    raise Problem(422, f"{name}: give true or false")
