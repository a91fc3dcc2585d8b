"""Bodies: types, limits of bytes, files, fields and time, and what stands in them."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest
from served import error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Limits, ServingOptions

EDITS = "/v1/images/edits"
HEAD = (
    b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
LIMITS = Limits(body_bytes=20_000, total_bytes=50_000, upload_seconds=0.3)


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext, ServingOptions(limits=LIMITS)) as address:
        yield address


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/mixed; boundary=x"])
def test_other_types_are_415(url: str, kind: str):
    answer = httpx2.post(f"{url}{EDITS}", content=b"prompt=x", headers={"content-type": kind})
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("size", [20_001, 100_000, 1_000_000])
def test_too_large_is_413_and_can_be_read_while_still_sending(url: str, size: int):
    answer = httpx2.post(f"{url}{EDITS}", data={"prompt": "x"}, files={"image": ("a.png", bytes(size))})
    assert answer.status_code == 413
    assert "larger than 20,000 bytes" in error_of(answer)["message"]


def test_too_large_without_a_length_is_413(url: str):
    def chunks() -> Iterator[bytes]:
        yield from [bytes(5000)] * 6

    answer = httpx2.post(f"{url}{EDITS}", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"x"', b"[" * 5000, b"nul", b'{"prompt": NaN}'])
def test_what_is_no_json_object_is_said(url: str, body: bytes):
    answer = httpx2.post(f"{url}{EDITS}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nvalue\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"no boundary at all"),
        ("multipart/form-data; boundary=" + "b" * 300, b"x"),
    ],
)
def test_forms_that_cannot_be_read_are_said(url: str, kind: str, body: bytes):
    answer = httpx2.post(f"{url}{EDITS}", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize("missing", [1, 8, 60, 300])
def test_a_form_that_is_cut_short_is_said(url: str, missing: int):
    """The parser would drop its last part: an edit would be made without its mask, or with another reference."""
    request = httpx2.Request("POST", f"{url}{EDITS}", files=[("prompt", (None, "x")), ("image", ("a.png", bytes(500)))])
    body = request.read()[:-missing].rstrip(b"\r\n-") if missing < 60 else request.read()[:-missing]
    answer = httpx2.post(f"{url}{EDITS}", content=body, headers={"content-type": request.headers["content-type"]})
    assert answer.status_code == 400
    assert "the form is cut short: its last boundary is missing" in error_of(answer)["message"]


def test_fields_come_once_and_files_are_pictures(url: str):
    two = [("prompt", (None, "x")), ("prompt", (None, "y"))]
    assert error_of(httpx2.post(f"{url}{EDITS}", files=two))["code"] == "duplicate_field"
    masks = [("prompt", (None, "x")), ("mask", ("a", b"1")), ("mask", ("b", b"2"))]
    assert error_of(httpx2.post(f"{url}{EDITS}", files=masks))["code"] == "duplicate_field"
    answer = httpx2.post(f"{url}{EDITS}", files=[("prompt", ("prompt.txt", b"x"))])
    assert "this field is a text, and came as a file" in error_of(answer)["message"]


def test_files_and_fields_are_counted(url: str):
    files = [("image[]", (f"{number}.png", b"x")) for number in range(18)]
    assert "Too many files" in error_of(httpx2.post(f"{url}{EDITS}", files=files))["message"]
    fields = [(f"field{number}", (None, "x")) for number in range(65)]
    assert "Too many fields" in error_of(httpx2.post(f"{url}{EDITS}", files=fields))["message"]


def test_more_references_than_a_request_takes(url: str, picture: Callable):
    file = io.BytesIO()
    picture(16, 16).save(file, format="PNG")
    files = [("image[]", (f"{number}.png", file.getvalue())) for number in range(17)]
    answer = httpx2.post(f"{url}{EDITS}", data={"prompt": "x"}, files=files)
    assert answer.status_code == 400
    assert "up to 16 references, not 17" in error_of(answer)["message"]


def whole_answer(connection: socket.socket) -> bytes:
    """Head and body, which may come one after the other; the body is a JSON object."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(10_000)
        assert part, answer
        answer += part
    return answer


def test_a_body_that_does_not_arrive_is_408(url: str):
    """And what was read of it is counted no more."""
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD % 100 + b'{"prompt":')
        connection.settimeout(10)
        answer = whole_answer(connection)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"upload_timeout" in answer
    assert "kontext_body_bytes 0.0" in httpx2.get(f"{url}/metrics").text


def test_bodies_together_have_a_limit(url: str):
    port = int(url.rpartition(":")[2])
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    try:
        for connection in opened:
            connection.sendall(HEAD % 19_000 + bytes(18_000))
            time.sleep(0.03)
        opened[2].settimeout(10)
        answer = whole_answer(opened[2])
    finally:
        for connection in opened:
            connection.close()
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"too_many_bytes" in answer
    assert b"retry-after: 5" in answer.lower()
