"""Two servers with one folder of state: each answers for what the other has made."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from served import Held, error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Review, ServingOptions

QUICK = {"prompt": "x", "num_inference_steps": 1, "size": "32x32", "seed": 1}
EDITS, GENERATIONS = "/v1/images/edits", "/v1/images/generations"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "state"


@pytest.fixture(scope="module")
def urls(kontext: Kontext, state: Path) -> Iterator[tuple[str, str]]:
    one, two = (ServingOptions(state=state, replica=name) for name in ("one", "two"))
    with served(kontext, one) as first, served(kontext, two) as second:
        yield first, second


def ask(url: str, route: str = GENERATIONS, **more: object) -> httpx2.Response:
    return httpx2.post(f"{url}{route}", json={**QUICK, **more}, timeout=60)


def test_a_picture_is_fetched_from_either(urls: tuple[str, str]):
    first, second = urls
    (made,) = ask(first, response_format="url").json()["data"]
    there = httpx2.get(made["url"].replace(first, second))
    assert there.content == httpx2.get(made["url"]).content
    assert there.headers["content-type"] == "image/png"
    assert httpx2.get(f"{second}/v1/results/none").status_code == 404


def test_a_session_goes_on_at_either(urls: tuple[str, str], picture: Callable):
    file = io.BytesIO()
    picture(32, 32).save(file, format="PNG")
    image = base64.b64encode(file.getvalue()).decode()
    name = ask(urls[0], EDITS, session="new", image=image).json()["session"]
    turns = [ask(urls[turn % 2], EDITS, session=name).json()["turn"] for turn in range(1, 5)]
    assert turns == [2, 3, 4, 5]
    assert httpx2.delete(f"{urls[1]}/v1/sessions/{name}").json() == {"deleted": True}
    gone = ask(urls[0], EDITS, session=name)
    assert (gone.status_code, error_of(gone)["code"]) == (404, "session_not_found")


def test_a_task_is_asked_for_at_either(urls: tuple[str, str]):
    task = httpx2.post(f"{urls[0]}/v1/flux-kontext-pro", json={"prompt": "x", "seed": 1}, timeout=60).json()
    address, deadline = task["polling_url"].replace(urls[0], urls[1]), time.monotonic() + 60
    while (state := httpx2.get(address).json())["status"] == "Pending":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert state["status"] == "Ready"
    assert state["progress"] == 1
    assert httpx2.get(state["result"]["sample"]).status_code == 200


def test_a_task_that_waits_is_pending_and_one_that_is_refused_is_none(kontext: Kontext, state: Path):
    held = Held(kontext)
    with served(held, ServingOptions(state=state)) as url:
        task = httpx2.post(f"{url}/v1/flux-kontext-pro", json={"prompt": "x"}, timeout=60).json()
        assert httpx2.get(task["polling_url"]).json()["status"] == "Pending"
        held.go_on.set()


def test_what_replicas_count_says_whose_it_is(urls: tuple[str, str]):
    for url, name in zip(urls, ("one", "two"), strict=True):
        answer = httpx2.get(f"{url}/metrics", headers={"x-request-id": "from-the-proxy"})
        assert "x-request-id" not in answer.headers, "a proxy before it numbers requests"
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        assert len(lines) > 10
        assert all(f'replica="{name}"' in line for line in lines)


def test_nothing_is_named_in_the_folder(urls: tuple[str, str], state: Path):
    (made,) = ask(urls[0], response_format="url").json()["data"]
    name = made["url"].rpartition("/")[2]
    assert not [path for path in state.rglob("*") if name in path.name]
    assert len(list((state / "results").iterdir())) >= 1


def test_a_picture_is_shown_and_decided_at_either(kontext: Kontext, tmp_path: Path):
    options = ServingOptions(state=tmp_path / "state", review=Review(seconds=60))
    with served(kontext, options) as first, served(kontext, options) as second, ThreadPoolExecutor(2) as pool:
        for word, status in (("approve", 200), ("refuse", 400)):
            asked = pool.submit(ask, first)
            deadline = time.monotonic() + 60
            while not (waiting := httpx2.get(f"{second}/review/pictures").json()["data"]):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            (case,) = waiting
            assert (case["prompt"], case["width"], case["height"]) == ("x", 32, 32)
            shown = httpx2.get(f"{second}/review/pictures/{case['id']}").content
            assert httpx2.post(f"{second}/review/pictures/{case['id']}/{word}").status_code == 200
            assert httpx2.post(f"{first}/review/pictures/{case['id']}/approve").status_code == 404
            answer = asked.result()
            assert answer.status_code == status
            if status == 200:
                assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == shown
        assert httpx2.get(f"{first}/review/pictures").json()["data"] == []
    left = [path.name for kind in ("review", "approved", "refused") for path in (tmp_path / "state" / kind).iterdir()]
    assert set(left) <= {".lock"}
