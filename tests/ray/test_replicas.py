"""A bundle served from two replicas by Ray Serve: one run of the command, asked by clients that know nothing of it."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image
from replicas import Cluster, descendants, proc, until
from served import error_of

from kontext_trt import Kontext

pytestmark = pytest.mark.check

WAITING = 1
LONG = {"prompt": "x", "num_inference_steps": 100, "size": "160x160", "seed": 1}
QUICK = {"prompt": "x", "num_inference_steps": 1, "size": "32x32", "seed": 1}
EDITS, GENERATIONS = "/v1/images/edits", "/v1/images/generations"


@pytest.fixture(scope="module")
def cluster(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(bundle_path, tmp_path_factory.mktemp("replicas"), "--waiting", str(WAITING))
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="x", max_retries=0, timeout=120) as opened:
        yield opened


@pytest.fixture(scope="module")
def png(picture: Callable) -> bytes:
    file = io.BytesIO()
    picture(144, 112).save(file, format="PNG")
    return file.getvalue()


def ask(cluster: Cluster, body: dict[str, Any] = QUICK, route: str = GENERATIONS) -> httpx2.Response:
    return httpx2.post(f"{cluster.url}{route}", json=body, timeout=300)


def test_an_edit_is_that_of_the_bare_call(client: openai.OpenAI, kontext: Kontext, png: bytes):
    answer = client.images.edit(image=png, prompt="blue", extra_body={"num_inference_steps": 2, "seed": 1})
    bare = kontext.edit(png, "blue", steps=2, seed=1)
    (made,) = answer.data
    assert made.b64_json
    image = Image.open(io.BytesIO(base64.b64decode(made.b64_json)))
    assert np.abs(np.asarray(image, int) - np.asarray(bare.image, int)).max() <= 1  # another number of threads


def test_errors_and_headers_are_the_applications_own(cluster: Cluster):
    answer = ask(cluster, {**QUICK, "size": "17x16"})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "size"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"]), "one, Ray's"
    numbers = {ask(cluster, {**QUICK, "size": "17x16"}).headers["x-request-id"] for _ in range(12)}
    until(lambda: all(f'"request": "{number}"' in cluster.log() for number in numbers))
    elsewhere = httpx2.get(f"{cluster.url}/v1/models", headers={"host": "evil.example"}, timeout=60)
    assert (elsewhere.status_code, error_of(elsewhere)["code"]) == (421, "host_not_allowed")


def test_the_page_for_people_is_there(cluster: Cluster):
    page = httpx2.get(f"{cluster.url}/", timeout=60)
    assert page.headers["content-type"].startswith("text/html")
    scripts = re.findall(r'src="([^"]+\.js)"', page.text)
    assert scripts
    for script in scripts:
        assert httpx2.get(f"{cluster.url}/{script.lstrip('/')}", timeout=60).status_code == 200


def test_events_come_while_the_picture_is_made(client: openai.OpenAI, png: bytes):
    came: list[tuple[str, float]] = []
    more = {"num_inference_steps": 60, "size": "96x96"}
    for event in client.images.edit(image=png, prompt="x", stream=True, partial_images=2, extra_body=more):
        came.append((event.type, time.monotonic()))
    assert [kind for kind, _ in came] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert came[2][1] - came[1][1] > 0.05
    assert came[1][1] - came[0][1] > 0.05


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("headers", [{}, {"x-request-disconnect-disabled": "?1"}], ids=["plain", "not for Ray"])
def test_a_client_that_leaves_ends_the_work(cluster: Cluster, stream: bool, headers: dict[str, str]):
    """Also where it forbids Ray to cancel, which anybody can: the application hears of it, too."""

    def cancelled() -> float:
        return sum(
            count
            for labels, count in cluster.metric("kontext_cancelled_total").items()
            if "client_closed_request" in labels
        )

    def running() -> float:
        return sum(cluster.metric("kontext_running").values())

    before, pictures = cancelled(), sum(cluster.metric("kontext_pictures_total").values())
    body = {**LONG, "n": 10, "stream": stream, "partial_images": 3 if stream else 0}
    with httpx2.Client(timeout=60, headers=headers) as leaving:
        if stream:
            with leaving.stream("POST", f"{cluster.url}{GENERATIONS}", json=body) as answer:
                assert next(answer.iter_lines()) == "event: image_generation.partial_image"
        else:
            with pytest.raises(httpx2.ReadTimeout):
                leaving.post(f"{cluster.url}{GENERATIONS}", json=body, timeout=1.5)
    until(lambda: cancelled() > before)
    until(lambda: running() == 0, 10)
    assert sum(cluster.metric("kontext_pictures_total").values()) - pictures < 10


def test_the_applications_own_queue_refuses_what_is_too_much(cluster: Cluster):
    with ThreadPoolExecutor(12) as pool:
        body = {**QUICK, "num_inference_steps": 60, "size": "96x96"}
        answers = list(pool.map(lambda _: ask(cluster, body), range(12)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}, statuses
    assert statuses[200] >= 2
    for answer in answers:
        if answer.status_code == 429:
            assert error_of(answer)["code"] == "queue_full"
            assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_any_replica_knows_the_sessions_results_and_tasks(cluster: Cluster, png: bytes):
    body = {**QUICK, "session": "new", "image": base64.b64encode(png).decode()}
    begun = ask(cluster, body, EDITS).json()
    for turn in range(2, 8):
        answer = ask(cluster, {**QUICK, "session": begun["session"]}, EDITS).json()
        assert (answer["session"], answer["turn"]) == (begun["session"], turn)
    (made,) = ask(cluster, {**QUICK, "response_format": "url"}).json()["data"]
    pictures = {httpx2.get(made["url"], timeout=60).content for _ in range(12)}
    assert len(pictures) == 1
    task = httpx2.post(f"{cluster.url}/v1/flux-kontext-pro", json={"prompt": "x"}, timeout=60).json()
    states: list[str] = []
    until(lambda: states.append(httpx2.get(task["polling_url"], timeout=60).json()["status"]) or states[-1] == "Ready")
    assert set(states) <= {"Pending", "Ready"}
    answered = cluster.metric("kontext_requests_total")
    for route in ("/v1/images/edits", "/v1/results/{name}"):
        replicas = {re.search('replica="(.*?)"', labels) for labels in answered if route in labels}
        assert replicas, answered


def test_after_the_end_of_a_replica_the_next_request_works(cluster: Cluster, png: bytes):
    body = {**QUICK, "session": "new", "image": base64.b64encode(png).decode()}
    begun = ask(cluster, body, EDITS).json()
    answers: list[httpx2.Response | Exception] = []

    def run() -> None:
        try:
            answers.append(ask(cluster, {**LONG, "n": 10}))
        except httpx2.HTTPError as error:
            answers.append(error)

    asking = threading.Thread(target=run)
    asking.start()
    time.sleep(1)
    killed = cluster.busiest()
    os.kill(killed, signal.SIGKILL)
    asking.join(60)
    (answer,) = answers
    assert isinstance(answer, Exception) or answer.status_code == 500, "an error, and soon"
    assert ask(cluster).status_code == 200
    again = ask(cluster, {**QUICK, "session": begun["session"]}, EDITS)
    assert again.json()["turn"] == 2
    until(lambda: len(cluster.replicas()) == 2, 120)
    assert killed not in cluster.replicas()
    assert all(ask(cluster).status_code == 200 for _ in range(8))


def test_sigterm_ends_everything(cluster: Cluster):
    processes = descendants(cluster.process.pid)
    assert cluster.stop() == 128 + signal.SIGTERM
    until(lambda: not any(proc(pid, "stat").exists() for pid in processes), 30)
