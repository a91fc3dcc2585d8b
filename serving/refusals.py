"""Defines how a failure is said over HTTP: OpenAI's form, with a type, a parameter and a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..engine.errors import ContentRefused, ImageError, KontextError, RequestError

CODES: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "origin_not_allowed"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "upload_timeout"),
    409: ("invalid_request_error", "session_changed"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    421: ("invalid_request_error", "host_not_allowed"),
    422: ("invalid_request_error", "invalid_value"),
    429: ("rate_limit_error", "queue_full"),
    499: ("invalid_request_error", "client_closed_request"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "stopping"),
    504: ("server_error", "deadline_exceeded"),
}
"""The type and usual code of an error, by status."""
NO_RETRY = frozenset({409, 500, 504})
"""The statuses that OpenAI's clients would repeat by themselves, and that would cost the same again."""

MODERATED = "content_policy_violation"
"""The code of what filters or people refuse."""


class Refusal(KontextError):
    """Reports that a request over HTTP is not answered with a picture.

    Args:
        message: What is wrong, and what to do.
        status: The HTTP status.
        code: A word for programs; None for the status's own.
        param: The field that it is about.
        headers: Headers to send along.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param = status, param
        self.kind, usual = CODES[status]
        self.code = code or usual
        self.headers = dict(headers or {}) | ({"x-should-retry": "false"} if status in NO_RETRY else {})

    def body(self) -> dict[str, Any]:
        """Return the answer's body in OpenAI's form."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Return the whole answer."""
        return json_response(self.body(), status=self.status, headers=self.headers)


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as a JSON answer."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def refusal_of(error: BaseException) -> Refusal:
    """Return how a failure is said to a client; what only concerns this machine is not said."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ContentRefused):  # which filter it was is the operator's business
        param = {"prompt": "prompt", "input picture": "image"}.get(error.stage)
        return Refusal(f"the {error.stage} was refused by this server's filters", code=MODERATED, param=param)
    if isinstance(error, ImageError):
        words = str(error)
        param = "mask" if "the mask" in words[:40] else "image"
        return Refusal(words, code="invalid_image", param=param)
    if isinstance(error, RequestError):
        return Refusal(str(error))
    if isinstance(error, HTTPException):
        status = error.status_code if error.status_code in CODES else 400
        return Refusal(_words(error), status=status, headers=error.headers)
    return Refusal("the picture could not be made; the server's log says why", status=500)


def _words(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this address; the reference of the HTTP API lists what there is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another one")
        return f"this address does not take this method; it takes {allowed}"
    return f"the request cannot be read: {error.detail}"
