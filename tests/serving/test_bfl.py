"""BFL's protocol, asked by a client of its own: submit, poll, fetch."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from served import Held, error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Limits, ServingOptions

KEY = "a-key"


class Client:
    """What a program that speaks BFL's protocol does."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.url, self.headers = url, {"x-key": key}

    def submit(self, **fields: Any) -> httpx2.Response:
        return httpx2.post(f"{self.url}/v1/flux-kontext-pro", json=fields, headers=self.headers)

    def poll(self, address: str) -> dict[str, Any]:
        return httpx2.get(address, headers=self.headers).json()

    def wait(self, **fields: Any) -> dict[str, Any]:
        """The last state of a request."""
        submitted = self.submit(**fields)
        assert submitted.status_code == 200, submitted.text
        assert set(submitted.json()) == {"id", "polling_url"}
        deadline = time.monotonic() + 60
        while (state := self.poll(submitted.json()["polling_url"]))["status"] == "Pending":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return state

    def picture(self, state: dict[str, Any]) -> Image.Image:
        answer = httpx2.get(state["result"]["sample"], headers=self.headers)
        assert answer.status_code == 200
        return Image.open(io.BytesIO(answer.content))


class OneStep:
    """Asks for one step, which the protocol cannot."""

    def __init__(self, kontext: Kontext) -> None:
        self._kontext, self.bundle = kontext, kontext.bundle

    def run(self, request: Any, **watch: Any) -> Any:
        from dataclasses import replace

        return self._kontext.run(replace(request, sampling=replace(request.sampling, steps=1)), **watch)


@pytest.fixture(scope="module")
def client(kontext: Kontext) -> Iterator[Client]:
    with served(OneStep(kontext), ServingOptions(keys=(KEY,))) as url:
        yield Client(url)


@pytest.fixture(scope="module")
def data(picture: Callable) -> str:
    file = io.BytesIO()
    picture(144, 112).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_an_edit_is_ready_after_a_while(client: Client, kontext: Kontext, data: str):
    state = client.wait(prompt="make it blue", input_image=data, seed=4, prompt_upsampling=False, safety_tolerance=2)
    assert (state["status"], state["progress"], state["details"]) == ("Ready", 1.0, None)
    result = state["result"]
    assert (result["prompt"], result["seed"]) == ("make it blue", 4)
    assert result["duration"] == pytest.approx(result["end_time"] - result["start_time"], abs=1e-3)
    bare = kontext.edit(base64.b64decode(data), "make it blue", steps=1, seed=4)
    assert np.array_equal(client.picture(state), bare.image)


def test_an_aspect_ratio_is_the_nearest_trained_size(client: Client, kontext: Kontext):
    state = client.wait(prompt="x", aspect_ratio="21:9", output_format="jpeg", seed=1)
    made = client.picture(state)
    assert made.format == "JPEG"
    assert made.size == max(kontext.sizes, key=lambda size: size[0] / size[1])


def test_several_references_are_taken(client: Client, kontext: Kontext, data: str):
    state = client.wait(prompt="x", input_image=data, input_image_2=f"data:image/png;base64,{data}", seed=1)
    encoded = base64.b64decode(data)
    assert np.array_equal(client.picture(state), kontext.edit([encoded, encoded], "x", steps=1, seed=1).image)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({}, 422, "missing_required_parameter", "prompt"),
        ({"prompt": "x", "steps": 3}, 422, "unknown_parameter", "steps"),
        ({"prompt": "x", "image": "AAAA"}, 422, "unknown_parameter", "image"),
        ({"prompt": "x", "mask": "AAAA"}, 422, "unknown_parameter", "mask"),
        ({"prompt": "x", "seed": -1}, 422, "invalid_value", "seed"),
        ({"prompt": "x", "aspect_ratio": "22:9"}, 422, "invalid_value", "aspect_ratio"),
        ({"prompt": "x", "aspect_ratio": "1:0"}, 422, "invalid_value", "aspect_ratio"),
        ({"prompt": "x", "aspect_ratio": "wide"}, 422, "invalid_value", "aspect_ratio"),
        ({"prompt": "x", "safety_tolerance": 7}, 422, "invalid_value", "safety_tolerance"),
        ({"prompt": "x", "webhook_url": "https://example.org/"}, 400, "url_not_supported", "webhook_url"),
        ({"prompt": "x", "input_image": "https://example.org/a.png"}, 400, "url_not_supported", "input_image"),
        ({"prompt": "x", "input_image_3": "no base64!"}, 400, "invalid_image", "input_image_3"),
    ],
    ids=str,
)
def test_mistakes_are_typed(client: Client, fields: dict, status: int, code: str, param: str):
    answer = client.submit(**fields)
    assert answer.status_code == status
    error = error_of(answer)
    assert (error["code"], error["param"]) == (code, param)


def test_the_same_key_is_needed_everywhere(client: Client):
    state = client.wait(prompt="x", seed=1, aspect_ratio="1:1")
    stranger = Client(client.url, "another-key")
    assert error_of(stranger.submit(prompt="x"))["code"] == "invalid_api_key"
    answer = httpx2.get(state["result"]["sample"], headers=stranger.headers)
    assert answer.status_code == 401
    assert httpx2.get(f"{client.url}/v1/get_result?id=x").status_code == 401


def test_an_unknown_task_is_said_in_both_forms(client: Client):
    answer = httpx2.get(f"{client.url}/v1/get_result?id=nothing", headers=client.headers)
    assert answer.status_code == 404
    assert (answer.json()["status"], answer.json()["result"]) == ("Task not found", None)
    assert answer.json()["error"]["code"] == "task_not_found"


def test_a_picture_that_cannot_be_read_is_an_error_state(client: Client, data: str):
    cut = base64.b64encode(base64.b64decode(data)[:600]).decode()
    state = client.wait(prompt="x", input_image=cut)
    assert state["status"] == "Error"
    assert state["details"]["code"] == "invalid_image"


def test_progress_and_a_deadline(kontext: Kontext):
    held = Held(kontext)
    with served(held, ServingOptions(limits=Limits(seconds=0.5))) as url:
        client = Client(url)
        state = client.wait(prompt="x", aspect_ratio="1:1")
        assert state["status"] == "Error"
        assert state["details"]["code"] == "deadline_exceeded"
        assert 0 < state["progress"] < 1
        text = httpx2.get(f"{url}/metrics").text
    assert held.done == ["Cancelled"]
    assert 'kontext_cancelled_total{reason="deadline_exceeded"} 1.0' in text
    assert "kontext_body_bytes 0.0" in text
