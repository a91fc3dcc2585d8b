"""Who may call: keys, names of the server, origins of pages; what the log says of it, and what it does not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import httpx2
import pytest
from served import error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.guard import known_host
from kontext_trt.serving.options import ServingOptions
from kontext_trt.serving.server import JsonLines

OPTIONS = ServingOptions(keys=("first", "second"), hosts=("studio.example",), origins=("https://pages.example",))


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext, OPTIONS) as address:
        yield address


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer first"}, {"authorization": "bearer second"}, {"x-key": "first"}],
    ids=str,
)
def test_a_known_key_lets_in(url: str, headers: dict):
    assert httpx2.get(f"{url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer third"}, {"authorization": "Basic first"}, {"x-key": ""}, {"x-key": "firs"}],
    ids=str,
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/results/x", "/nothing"])
def test_without_one_nobody_gets_in(url: str, path: str, headers: dict):
    answer = httpx2.get(f"{url}{path}", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert error_of(answer)["code"] == "invalid_api_key"


def test_health_needs_none(url: str):
    assert httpx2.get(f"{url}/healthz").json() == httpx2.get(f"{url}/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("127.0.0.1:1", True),
        ("[::1]:8000", True),
        ("192.168.1.7", True),
        ("studio.example", True),
        ("STUDIO.example:80", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("studio.example@evil.example", False),
        ("", False),
        ("[::1", False),
        ("localhost:none", False),
    ],
)
def test_names_of_the_server(host: str, known: bool):
    assert known_host(host, OPTIONS) is known


def test_a_name_that_leads_here_by_somebody_elses_doing_is_refused(url: str):
    answer = httpx2.get(f"{url}/v1/models", headers={"host": "rebound.example", "x-key": "first"})
    assert answer.status_code == 421
    assert error_of(answer)["code"] == "host_not_allowed"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_a_page_of_another_origin_is_refused(url: str, origin: str):
    answer = httpx2.post(f"{url}/v1/images/edits", headers={"origin": origin, "x-key": "first"})
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "origin_not_allowed"


def test_its_own_pages_and_those_that_are_allowed_may_call(url: str):
    assert httpx2.get(f"{url}/v1/models", headers={"origin": url, "x-key": "first"}).status_code == 200
    answer = httpx2.get(f"{url}/v1/models", headers={"origin": "https://pages.example", "x-key": "first"})
    assert answer.headers["access-control-allow-origin"] == "https://pages.example"


def test_a_page_that_is_allowed_is_told_beforehand(url: str):
    """Browsers ask without the key."""
    headers = {"origin": "https://pages.example", "access-control-request-method": "POST"}
    headers |= {"access-control-request-headers": "authorization"}
    answer = httpx2.options(f"{url}/v1/images/edits", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://pages.example"
    foreign = httpx2.options(f"{url}/v1/images/edits", headers={**headers, "origin": "https://evil.example"})
    assert foreign.status_code == 403


@pytest.mark.parametrize("wanted", [False, True])
def test_prompts_are_in_the_log_where_they_are_wanted(kontext: Kontext, caplog: pytest.LogCaptureFixture, wanted: bool):
    body = {"prompt": "a rare wording " + "word " * 600, "size": "32x32", "num_inference_steps": 1}
    with (
        caplog.at_level(logging.INFO, "kontext_trt.serving"),
        served(kontext, ServingOptions(log_prompts=wanted)) as url,
    ):
        assert httpx2.post(f"{url}/v1/images/generations", json=body).status_code == 200
        assert httpx2.post(f"{url}/v1/images/generations", json={**body, "n": 99}).status_code == 400
    entries = [json.loads(JsonLines().format(record)) for record in caplog.records if hasattr(record, "fields")]
    made, refused = (entry for entry in entries if entry["route"] == "/v1/images/generations")
    assert (made["status"], made["pictures"], made["size"]) == (200, 1, "32x32")
    assert made["seconds"] > made["waited"]
    assert (refused["status"], refused["error"]) == (400, "invalid_value")
    assert ("a rare wording" in json.dumps(entries)) is wanted
