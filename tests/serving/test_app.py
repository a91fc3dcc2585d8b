"""The application whole: every failure has OpenAI's form, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from served import error_of, served

from kontext_trt import Kontext, ServingOptions, create_app


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext, ServingOptions(name="mine")) as address:
        yield address


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2", 404, "not_found"),
        ("GET", "/v1/images/edits/", 404, "not_found"),
        ("GET", "/v1/images/edits", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("DELETE", "/v1/sessions/none", 404, "session_not_found"),
        ("GET", "/v1/results/../../etc/hostname", 404, "not_found"),
        ("POST", "/v1/images/edits", 415, "unsupported_media_type"),
    ],
)
def test_every_failure_has_one_form(url: str, method: str, path: str, status: int, code: str):
    answer = httpx2.request(method, f"{url}{path}")
    assert answer.status_code == status
    assert error_of(answer)["code"] == code
    assert answer.headers["x-request-id"]


def test_a_failure_of_this_machine_says_nothing_of_it(kontext: Kontext):
    class Broken:
        bundle = kontext.bundle

        def run(self, *arguments: object, **keywords: object) -> None:
            raise RuntimeError("a path of this machine")

    with served(Broken()) as url:
        answer = httpx2.post(f"{url}/v1/images/generations", json={"prompt": "x"})
    assert answer.status_code == 500
    assert answer.headers["x-should-retry"] == "false"
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "path" not in error["message"]


def test_metrics_count_answers_pictures_and_seconds_per_stage(url: str):
    body = {"prompt": "x", "size": "32x32", "num_inference_steps": 2}
    assert httpx2.post(f"{url}/v1/images/generations", json=body).status_code == 200
    text = httpx2.get(f"{url}/metrics").text
    assert 'kontext_requests_total{route="/v1/images/generations",status="200"} 1.0' in text
    assert "kontext_pictures_total 1.0" in text
    for stage in ("denoise", "decode", "run"):
        assert f'kontext_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert "kontext_waiting 0.0" in text


def test_the_name_is_the_options_own(url: str):
    assert httpx2.get(f"{url}/v1/models").json()["data"][0]["id"] == "mine"
    body = {"prompt": "x", "size": "32x32", "num_inference_steps": 1, "model": "mine"}
    assert httpx2.post(f"{url}/v1/images/generations", json=body).status_code == 200


def test_a_stopping_server_is_not_ready(kontext: Kontext):
    app = create_app(kontext)
    app.state.service.drain()
    from starlette.testclient import TestClient

    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        refused = client.post("/v1/images/generations", json={"prompt": "x", "size": "32x32"})
        assert refused.json()["error"]["code"] == "stopping"
