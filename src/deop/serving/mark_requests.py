"""What a client marks in a photo: a mask, a box or a click; and which pixels that stands for."""

import json
from base64 import b64decode
from collections.abc import Sequence
from io import BytesIO
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from deop.bank.learning import NOTHING_MARKED
from deop.bank.marks import Box, Click, masks_of
from deop.errors import DataError, DeopError
from deop.images.reading import no_pixel_limit, open_image
from deop.images.rle import compress_counts, decode_rle, encode_crop
from deop.serving.answers import JSON, Answer
from deop.serving.limits import Limits
from deop.serving.photo_requests import check_photo
from deop.serving.problems import Problem, as_problem, exceeds

Pixels = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1_000_000, le=1_000_000)]


class RunLengths(BaseModel):
    """A mask as COCO's run lengths, as answers have it."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[list[Annotated[int, Field(strict=True, gt=0)]], Field(min_length=2, max_length=2)] = Field(
        description="Height and width of the photo, pixels."
    )
    counts: str | list[Annotated[int, Field(strict=True, ge=0)]]


class Mark(BaseModel):
    """A marked region: a mask, a box or a click."""

    model_config = ConfigDict(extra="forbid")

    click: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="x, y in pixels of the upright photo."
    )
    box: Annotated[list[Pixels], Field(min_length=4, max_length=4)] | None = Field(
        default=None, description="left, top, right, bottom in pixels."
    )
    mask: RunLengths | str | None = Field(
        default=None, description="Run lengths, as answers have them, or a picture in base64: what is not 0 is marked."
    )

    def check(self, limits: Limits) -> None:
        """Check what can be checked without the photo.

        Raises:
            Problem: naming what is wrong.
        """
        if sum(mark is not None for mark in (self.click, self.box, self.mask)) != 1:
            raise Problem(422, "each marked region needs one of click, box and mask")


class StoredMarks(BaseModel):
    """Marked regions of a photo that was encoded before, without names."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="What `POST /v1/encode` answered.", max_length=100)
    marks: Annotated[list[Mark], Field(min_length=1)] = Field(description="The marked regions.")

    def check(self, limits: Limits) -> None:
        """Check the marks against the limits.

        Raises:
            Problem: naming the limit, or what is wrong.
        """
        check_number(self.marks, limits, "marks")
        for mark in self.marks:
            mark.check(limits)


def check_number(marks: Sequence[Mark], limits: Limits, what: str) -> None:
    """Refuse more marked regions than a request may have.

    Args:
        marks: the regions.
        limits: of the server.
        what: what the request calls them.

    Raises:
        Problem: naming the limit.
    """
    if len(marks) > limits.examples:
        raise exceeds(422, "examples", limits.examples, f"the request has {len(marks):,} {what}")


def decode_marks(marks: Sequence[Mark], size: tuple[int, int], limits: Limits) -> list[Any]:
    """The marks as ``masks_of`` and ``learn`` take them: masks (H, W) bool, ``Box`` and ``Click``.

    Args:
        marks: what the client has sent.
        size: (H, W) of the photo.
        limits: for memory, and for pictures of masks.

    Raises:
        Problem: a mask that cannot be read, or that has another size.
    """
    if len(marks) * size[0] * size[1] > 4 * limits.pixels:
        what = f"{len(marks):,} marked regions of a photo with {size[1]:,} x {size[0]:,} pixels"
        raise Problem(413, f"{what} need too much memory: send them in several requests", limit="memory")
    return [_decoded(mark, size, limits) for mark in marks]


def answer_marks(encoded: Any, marks: Sequence[Mark], limits: Limits) -> Answer:
    """The pixels that marks stand for: the same that are learned.

    Args:
        encoded: the photo, with the proposals of the model.
        marks: what the client has sent.
        limits: for memory, and for the size of the answer.

    Raises:
        Problem: a mask that cannot be read, or an answer that is too large.
        ProposalError: a click or a box outside the photo, or that marks nothing.
        DataError: no pixel is marked.
    """
    size = encoded.photo.shape[:2]
    masks = masks_of(decode_marks(marks, size, limits), size, encoded.masks, encoded.canvas)
    if not masks.any():
        raise DataError(NOTHING_MARKED)
    most, total, entries = limits.examples_bytes, 0, []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        # A run takes at least one byte. They are counted first, since a small picture can have a hundred million.
        total += int(np.count_nonzero(mask[1:] != mask[:-1]))
        if total > most:
            raise _too_large(most)
        box = None
        counts = [mask.size]
        if len(rows):
            left, top, right, bottom = box = [int(end) for end in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
            counts = encode_crop(mask[top:bottom, left:right], left, top, size)
        segmentation = {"size": list(size), "counts": compress_counts(counts)}
        entries.append({"box": box, "area": int(np.count_nonzero(mask)), "segmentation": segmentation})
    content = json.dumps({"size": [size[1], size[0]], "marks": entries}).encode()
    if len(content) > most:
        raise _too_large(most)
    return Answer(content, JSON)


def _too_large(most: int) -> Problem:
    return Problem(
        413,
        f"the answer would have more than {most:,} bytes: send the marks in several requests, and masks with a smooth "
        "outline",
        limit="examples_bytes",
        maximum=most,
    )


def _decoded(mark: Mark, size: tuple[int, int], limits: Limits) -> Any:
    if mark.click is not None:
        return Click(*mark.click)
    if mark.box is not None:
        return Box(*mark.box)
    if isinstance(mark.mask, RunLengths):
        _check_size((mark.mask.size[0], mark.mask.size[1]), size)
        try:
            return decode_rle(mark.mask.model_dump())
        except DeopError as error:
            raise as_problem(error) from None
    return _picture_mask(mark.mask or "", size, limits)


def _picture_mask(text: str, size: tuple[int, int], limits: Limits) -> np.ndarray:
    """The mask (H, W) bool that a picture in base64 shows."""
    head, separator, rest = text.partition(",")
    try:
        data = b64decode(rest if separator and head.startswith("data:") else text, validate=True)
    except ValueError:
        raise Problem(422, "mask: this is neither run lengths nor a picture in base64") from None
    check_photo(data, limits)
    try:
        with no_pixel_limit(), open_image(BytesIO(data)) as image:
            _check_size((image.height, image.width), size)
            return _marked_pixels(image)
    except Problem:
        raise
    except Exception:  # Pillow's decoders raise almost any exception for a damaged file
        raise Problem(422, "mask: the picture is damaged: send it again") from None


def _marked_pixels(image: Image.Image) -> np.ndarray:
    """What is not 0; in a picture with transparent pixels, what is not transparent."""
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() == 0:
            return alpha > 0
    pixels = np.asarray(image if image.mode in ("1", "L", "P", "I", "F", "I;16") else image.convert("RGB"))
    return np.asarray(pixels.any(-1) if pixels.ndim == 3 else pixels != 0)


def _check_size(given: tuple[int, int], size: tuple[int, int]) -> None:
    if given != size:
        raise Problem(
            422,
            f"the mask has {given[1]} x {given[0]} pixels, and the upright photo {size[1]} x {size[0]}: give a mask of "
            "the same size",
        )
