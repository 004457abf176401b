"""Refusals as problem+json (RFC 9457), and which status each error of deop has."""

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from deop.errors import (
    DataError,
    DeopError,
    ImageError,
    NotFoundInPhotoError,
    ProposalError,
    ResourceError,
    SettingError,
    VocabularyError,
)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is refused.

    Args:
        status: the status code.
        detail: what is wrong and what to do, for people.
        limit: the limit that was exceeded, an attribute of ``Limits``.
        maximum: its value.
        retry_after: seconds after which the request may be sent again.
        headers: further headers.
        missing: "photo" or "bank", where the id of one is not known.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        limit: str | None = None,
        maximum: float | None = None,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
        missing: str | None = None,
    ) -> None:
        super().__init__(status)  # the detail may contain names, which must not reach a log
        self.status = status
        self.detail = detail
        self.limit = limit
        self.maximum = maximum
        self.retry_after = retry_after
        self.headers = headers or {}
        self.missing = missing

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers send problems to the process that answers.
        return _restore, (
            self.status, self.detail, self.limit, self.maximum, self.retry_after, self.headers, self.missing,
        )  # fmt: skip

    def content(self, request_id: str) -> dict[str, Any]:
        """The members of the body."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.limit is not None:
            members |= {"limit": self.limit, "maximum": self.maximum}
        if self.missing is not None:
            members["missing"] = self.missing
        return members

    def response(self, request_id: str) -> Response:
        """The answer."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        body = json.dumps(self.content(request_id), ensure_ascii=False).encode("utf-8", "backslashreplace")
        return Response(body, self.status, headers, MEDIA_TYPE)


def _restore(
    status: int,
    detail: str,
    limit: str | None,
    maximum: float | None,
    retry: int | None,
    headers: dict[str, str],
    missing: str | None,
) -> Problem:
    return Problem(status, detail, limit=limit, maximum=maximum, retry_after=retry, headers=headers, missing=missing)


def exceeds(status: int, limit: str, maximum: float, what: str, **options: Any) -> Problem:
    """The problem that a request exceeds a limit.

    >>> exceeds(413, "pixels", 100, "the photo has 200 pixels").detail
    'the photo has 200 pixels, and this server accepts up to 100 (limit "pixels")'
    """
    detail = f'{what}, and this server accepts up to {maximum:,g} (limit "{limit}")'
    if isinstance(maximum, int):
        detail = f'{what}, and this server accepts up to {maximum:,} (limit "{limit}")'
    return Problem(status, detail, limit=limit, maximum=maximum, **options)


def as_problem(error: DeopError) -> Problem:
    """The problem for an error that deop raises about a request."""
    if isinstance(error, ResourceError):
        return Problem(413, str(error), limit="memory")
    if isinstance(error, (ImageError, VocabularyError, SettingError, NotFoundInPhotoError, ProposalError, DataError)):
        return Problem(422, str(error))
    return Problem(500, "the model cannot answer: see the log of the server")
