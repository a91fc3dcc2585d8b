"""A server under load, and under requests that are wrong: nothing is lost, nothing fails, nothing grows."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from malformed import malformed
from pages import DOCS, FENCE
from PIL import Image
from served import Process, error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Limits, ServingOptions

MIB = 1 << 20
CASES = 1000
SEEDS = 20


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    limits = Limits(body_bytes=4 * MIB, steps=4, output_pixels=160 * 160)
    with served(kontext, ServingOptions(limits=limits)) as address:
        yield address


def ask_wrongly(client: httpx2.Client, url: str, seed: int) -> int:
    """The status of a malformed request, whose error has OpenAI's form."""
    case = malformed(seed)
    answer = client.post(f"{url}{case.route}", content=case.body, headers=case.headers)
    assert answer.status_code < 500, f"case {seed}: {answer.status_code} {answer.text[:500]}"
    if answer.status_code != 200:
        error_of(answer)
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert "internal_error" not in answer.text
    return answer.status_code


def test_malformed_requests_are_the_clients_mistakes(url: str):
    """A tenth of those of `make check`."""
    with httpx2.Client(timeout=60) as client:
        statuses = Counter(ask_wrongly(client, url, seed) for seed in range(0, CASES, 10))
    assert statuses[400] > 0.5 * CASES / 10
    assert len(statuses) >= 3


@pytest.mark.check
def test_no_malformed_request_fails_or_leaves_anything(bundle_path: Path):
    """Twice the same, so that what is loaded once does not count as growth."""
    options = ("--max-body", "4MiB", "--max-steps", "28")
    with Process(bundle_path, *options) as server, httpx2.Client(timeout=60) as client:
        statuses = Counter(ask_wrongly(client, server.url, seed) for seed in range(CASES))
        wait_until_idle(client, server.url)
        before = server.resident_bytes()
        for seed in range(CASES):
            ask_wrongly(client, server.url, seed)
        wait_until_idle(client, server.url)
        grown = server.resident_bytes() - before
        text = client.get(f"{server.url}/metrics").text
    print(f"{dict(statuses)}, {grown / MIB:+.1f} MiB from {before / MIB:.0f}")
    assert not re.search(r'status="5', text)
    assert grown < 48 * MIB


def wait_until_idle(client: httpx2.Client, url: str) -> None:
    deadline = time.monotonic() + 120
    while "kontext_admitted 0.0" not in (text := client.get(f"{url}/metrics").text):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "kontext_body_bytes 0.0" in text
    assert "kontext_waiting 0.0" in text


class Load:
    """Clients that ask for pictures of a few seeds, one after another, for a while."""

    def __init__(self, url: str, expected: dict[int, np.ndarray]) -> None:
        self._url, self._expected = url, expected
        self.made, self.refused, self.waits = 0, 0, Counter()

    async def run(self, clients: int, seconds: float) -> None:
        limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
        until = time.monotonic() + seconds
        async with httpx2.AsyncClient(timeout=120, limits=limits) as http:
            await asyncio.gather(*(self._client(http, number, until) for number in range(clients)))

    async def _client(self, http: httpx2.AsyncClient, number: int, until: float) -> None:
        turn = number
        while time.monotonic() < until:
            seed = turn % SEEDS
            turn += 1
            body = {"prompt": "x", "size": "32x32", "num_inference_steps": 1, "seed": seed}
            answer = await http.post(f"{self._url}/v1/images/generations", json=body)
            if answer.status_code == 429:
                self.refused += 1
                assert error_of(answer)["code"] == "queue_full"
                wait = int(answer.headers["retry-after"])
                assert 1 <= wait <= 60
                self.waits[wait] += 1
                await asyncio.sleep(min(wait, 1))
                continue
            assert answer.status_code == 200, answer.text
            (made,) = answer.json()["data"]
            assert made["seed"] == seed
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(made["b64_json"]))))
            assert np.array_equal(pixels, self._expected[seed]), f"the picture of another seed than {seed}"
            self.made += 1


@pytest.fixture(scope="module")
def expected(kontext: Kontext) -> dict[int, np.ndarray]:
    return {seed: np.asarray(kontext.generate("x", size=(32, 32), steps=1, seed=seed).image) for seed in range(SEEDS)}


def made_by(url: str) -> int:
    found = re.search(r"^kontext_pictures_total (\S+)$", httpx2.get(f"{url}/metrics").text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_every_client_gets_its_own_picture_once(kontext: Kontext, expected: dict[int, np.ndarray]):
    with served(kontext, ServingOptions(limits=Limits(waiting=4))) as url:
        load = Load(url, expected)
        asyncio.run(load.run(clients=12, seconds=1.5))
        assert load.made == made_by(url) > 12
        assert load.refused > 0


@pytest.mark.check
@pytest.mark.alone
def test_two_hundred_clients_for_a_minute(bundle_path: Path, expected: dict[int, np.ndarray]):
    with Process(bundle_path) as server:
        load = Load(server.url, expected)
        asyncio.run(load.run(clients=200, seconds=15))
        before = server.resident_bytes()
        start = time.monotonic()
        asyncio.run(load.run(clients=200, seconds=60))
        seconds, grown = time.monotonic() - start, server.resident_bytes() - before
        assert load.made == made_by(server.url)
        with httpx2.Client() as client:
            wait_until_idle(client, server.url)
    print(f"{load.made} pictures, {load.refused} refusals {dict(load.waits)}, {seconds:.0f} s, {grown / MIB:+.1f} MiB")
    assert load.made > 200
    assert load.refused > 0
    assert grown < 32 * MIB


def curl_commands() -> list[tuple[str, str]]:
    """The commands of the documentation, each with its page."""
    found = []
    for page in ("how-to/service.md", "reference/http.md"):
        for language, body in FENCE.findall((DOCS / page).read_text()):
            if language == "sh":
                found.append((page, body.replace("\\\n", " ")))
    return found


def test_the_documentations_curl_commands_work(kontext: Kontext, picture: Callable, tmp_path: Path):
    image = picture(144, 112)
    image.save(tmp_path / "cat.png")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (32, 32, 96, 80))
    Image.merge("RGBA", (*image.split(), alpha)).save(tmp_path / "mask.png")
    assert len(curl_commands()) >= 5
    with served(kontext) as url:
        for page, command in curl_commands():
            words = shlex.split(command.replace("http://localhost:8000", url))
            assert words[0] == "curl"
            done = subprocess.run(
                [*words, "--silent", "--show-error", "--fail-with-body"], cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{page}: {command}{done.stdout}{done.stderr}"
            assert any(name in done.stdout for name in ("b64_json", '"url"', "polling_url")), done.stdout
