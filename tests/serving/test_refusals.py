"""How failures are said: a status, a type and a code for each, and nothing of this machine."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException

from kontext_trt import BundleError, GpuMemoryError, ImageError, RequestError
from kontext_trt.serving.refusals import CODES, Refusal, refusal_of


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (RequestError("steps are wrong"), 400, "invalid_value", None),
        (ImageError("the picture is empty (0 bytes)"), 400, "invalid_image", "image"),
        (ImageError("the mask cannot be decoded"), 400, "invalid_image", "mask"),
        (HTTPException(404), 404, "not_found", None),
        (HTTPException(405, headers={"Allow": "POST"}), 405, "method_not_allowed", None),
        (HTTPException(418, "no coffee"), 400, "invalid_value", None),
        (GpuMemoryError("12 GiB at /home/somebody"), 500, "internal_error", None),
        (BundleError("/home/somebody/bundle is altered"), 500, "internal_error", None),
        (ZeroDivisionError("x"), 500, "internal_error", None),
        (Refusal("as it is", status=413), 413, "request_too_large", None),
    ],
    ids=repr,
)
def test_each_failure_has_its_status(error: Exception, status: int, code: str, param: str | None):
    refusal = refusal_of(error)
    assert (refusal.status, refusal.code, refusal.param) == (status, code, param)
    body = refusal.body()["error"]
    assert body["type"] == CODES[status][0]
    assert "/home" not in body["message"]
    assert refusal.response().status_code == status


def test_words_of_what_the_library_raises():
    assert "there is nothing at this address" in str(refusal_of(HTTPException(404)))
    assert "it takes POST" in str(refusal_of(HTTPException(405, headers={"Allow": "POST"})))
    assert "the request cannot be read: no coffee" in str(refusal_of(HTTPException(418, "no coffee")))


def test_what_would_repeat_work_is_not_repeated():
    assert Refusal("x", status=500).headers == {"x-should-retry": "false"}
    assert Refusal("x", status=503).headers == {}
    assert Refusal("x", status=429, headers={"retry-after": "3"}).headers == {"retry-after": "3"}
