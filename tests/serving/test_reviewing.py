"""Review over HTTP: a picture is not handed out before a person approves, and who that is has a key of their own."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from served import error_of, served

from kontext_trt import Kontext, OptionError
from kontext_trt.serving.options import Review, ServingOptions

CLIENT, REVIEWER = {"authorization": "Bearer client"}, {"authorization": "Bearer reviewer"}
OPTIONS = ServingOptions(keys=("client",), review=Review(keys=("reviewer",), seconds=60))


class Asked:
    """A request that is under way in a thread of its own."""

    def __init__(self, url: str, route: str = "generations", **fields: Any) -> None:
        self.answer: Any = None
        self._ask = lambda: httpx2.post(
            f"{url}/v1/images/{route}",
            json={"prompt": "a cat", "size": "48x32", "num_inference_steps": 1, "seed": 1, **fields},
            headers=CLIENT,
            timeout=60,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.answer = self._ask()

    def wait(self) -> httpx2.Response:
        self._thread.join(60)
        assert self.answer is not None
        return self.answer


def listed(url: str, count: int = 1) -> list[dict[str, Any]]:
    """What waits, once there is as much as is expected."""
    deadline = time.monotonic() + 60
    while len(cases := httpx2.get(f"{url}/review/pictures", headers=REVIEWER).json()["data"]) != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return cases


def decide(url: str, case: dict[str, Any], word: str) -> httpx2.Response:
    return httpx2.post(f"{url}/review/pictures/{case['id']}/{word}", headers=REVIEWER)


def test_a_picture_is_handed_out_once_it_is_approved(kontext: Kontext) -> None:
    with served(kontext, OPTIONS) as url:
        asked = Asked(url)
        (case,) = listed(url)
        assert (case["prompt"], case["width"], case["height"]) == ("a cat", 48, 32)
        other = Asked(url, prompt="a dog")
        listed(url, 2), "one that waits for a person holds nobody else up"
        shown = Image.open(io.BytesIO(httpx2.get(f"{url}/review/pictures/{case['id']}", headers=REVIEWER).content))
        assert decide(url, case, "approve").json() == {"approved": True}
        data = base64.b64decode(asked.wait().json()["data"][0]["b64_json"])
        assert np.array_equal(np.asarray(shown), np.asarray(Image.open(io.BytesIO(data))))
        (case,) = listed(url)
        decide(url, case, "refuse")
        answer = other.wait()
        assert (answer.status_code, error_of(answer)["code"]) == (400, "content_policy_violation")
        assert error_of(answer)["message"] == "the output picture was refused by this server's filters"
        assert decide(url, case, "approve").status_code == 404
        text = httpx2.get(f"{url}/metrics", headers=CLIENT).text
        assert 'kontext_reviews_total{decision="refused"} 1.0' in text
        assert "kontext_review_waiting 0.0" in text


@pytest.mark.check
def test_a_session_goes_on_with_what_was_approved(kontext: Kontext, picture: Callable) -> None:
    file = io.BytesIO()
    picture(48, 32).save(file, format="PNG")
    image = base64.b64encode(file.getvalue()).decode()
    with served(kontext, OPTIONS) as url:

        def turn(word: str, **fields: Any) -> httpx2.Response:
            asked = Asked(url, "edits", size=None, **fields)
            decide(url, listed(url)[0], word)
            return asked.wait()

        begun = turn("approve", image=image, session="new").json()
        assert turn("refuse", session=begun["session"], prompt="not this").status_code == 400
        again = turn("approve", session=begun["session"], prompt="this").json()
        assert (begun["turn"], again["turn"], again["session"]) == (1, 2, begun["session"])
        first, second = (Asked(url, "edits", size=None, session=begun["session"], prompt=word) for word in "ab")
        for case in listed(url, 2):
            decide(url, case, "approve")
        codes = sorted((first.wait().status_code, second.wait().status_code))
        assert codes == [200, 409], "both were made from the same turn, and a session goes on with one"


def test_a_client_that_goes_away_takes_its_picture_along(kontext: Kontext) -> None:
    with served(kontext, OPTIONS) as url:
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{url}/v1/images/generations",
                json={"prompt": "x", "size": "48x32", "num_inference_steps": 1},
                headers=CLIENT,
                timeout=2,
            )
        listed(url, 0)


def test_nothing_is_shown_on_the_way(kontext: Kontext) -> None:
    with served(kontext, OPTIONS) as url:
        asked = Asked(url, stream=True, partial_images=2, num_inference_steps=4)
        decide(url, listed(url)[0], "approve")
        events = [line for line in asked.wait().text.splitlines() if line.startswith("event:")]
        assert events == ["event: image_generation.completed"]


def test_who_reviews_has_a_key_of_their_own(kontext: Kontext) -> None:
    with served(kontext, OPTIONS) as url:
        for headers in ({}, CLIENT, {"authorization": "Bearer wrong"}):
            for method, path in (("GET", "pictures"), ("GET", "pictures/x"), ("POST", "pictures/x/approve")):
                answer = httpx2.request(method, f"{url}/review/{path}", headers=headers)
                assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
        assert httpx2.get(f"{url}/v1/models", headers=REVIEWER).status_code == 401
        page = httpx2.get(f"{url}/review")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        foreign = httpx2.post(
            f"{url}/review/pictures/x/approve", headers={**REVIEWER, "origin": "https://elsewhere.example"}
        )
        assert foreign.status_code == 403
    with served(kontext) as url:
        assert [httpx2.get(f"{url}/review{path}").status_code for path in ("", "/pictures")] == [404, 404]
    for keys in ((), ("client",), ("reviewer", "client")):
        with pytest.raises(OptionError, match="or they could approve of their own pictures"):
            ServingOptions(keys=("client",), review=Review(keys=keys))
    with pytest.raises(OptionError, match="a key is a text of one character at least"):
        Review(keys=("",))
    with pytest.raises(OptionError, match="places must be a number above 0, not 0"):
        Review(places=0)
