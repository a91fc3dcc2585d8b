"""The page of the review in a real browser, served with the small Kontext: what who decides sees and does."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from browser import shoot, watched_page
from PIL import Image
from served import error_of, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Review, ServingOptions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.check

BEFORE = base64.b64encode((Path(__file__).parents[2] / "docs/small-kontext/before.png").read_bytes()).decode()
PROMPT = "turn the orange hexagon black"
SHUT = "#state:has-text('a key is needed')"


@pytest.fixture(scope="module")
def kontext(small_demo: Path) -> Iterator[Kontext]:
    with Kontext.open(small_demo / "bundle") as opened:
        yield opened


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext, ServingOptions(keys=("client",), review=Review(keys=("reviewer",)))) as address:
        yield address


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def ask(url: str, prompt: str = PROMPT, *, seconds: float = 120, **more: Any) -> httpx2.Response:
    body = {"image": BEFORE, "prompt": prompt, "seed": 0, "num_inference_steps": 28, **more}
    headers = {"authorization": "Bearer client"}
    return httpx2.post(f"{url}/v1/images/edits", json=body, headers=headers, timeout=seconds)


def enter(page: Page, key: str) -> None:
    page.focus("#key")
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def wait_for(page: Page, count: int) -> None:
    """Wait until as many pictures are shown, all of them loaded."""
    page.wait_for_function(
        "count => [...document.querySelectorAll('#list img')].filter((one) => one.naturalWidth).length === count"
        " && document.querySelectorAll('#list li').length === count",
        arg=count,
    )


def test_a_person_decides_by_keyboard(browser: Browser, url: str, pool: ThreadPoolExecutor):
    """What is shown is what is handed out, and nothing is asked for before a key is accepted."""
    view = {"viewport": {"width": 1200, "height": 900}}
    with watched_page(browser, url, path="/review", ready=SHUT, refusals=2, **view) as page:
        enter(page, "wrong")
        page.wait_for_timeout(2500)  # longer than between two looks: it does not ask again and again
        page.fill("#key", "")
        enter(page, "reviewer")
        page.wait_for_selector("#state:has-text('nothing waits')")
        first = pool.submit(ask, url)
        wait_for(page, 1)
        second = pool.submit(ask, url, "<b>turn</b> it green", num_inference_steps=4)
        wait_for(page, 2)
        assert page.locator("#list p").all_inner_texts() == [PROMPT, "<b>turn</b> it green"]
        assert page.locator("#list b").count() == 0
        assert page.inner_text("#state") == "2 wait"
        pixels = page.evaluate(
            """() => {
                const image = document.querySelector("#list img"), canvas = document.createElement("canvas");
                [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
            }"""
        )
        page.evaluate("document.activeElement.blur()")
        shoot(page, "review")
        page.focus("#list button >> nth=0")
        assert page.evaluate("document.activeElement.textContent") == "Hand out"
        page.keyboard.press("Enter")
        answer = first.result()
        made = Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"])))
        shown = np.array(pixels, np.uint8).reshape(made.height, made.width, 4)
        assert np.array_equal(shown[..., :3], np.asarray(made))
        wait_for(page, 1)
        assert page.evaluate("document.activeElement.textContent") == "Hand out", "that of the next picture"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Refuse"
        page.keyboard.press("Space")
        refused = second.result()
        assert (refused.status_code, error_of(refused)["code"]) == (400, "content_policy_violation")
        wait_for(page, 0)
        assert page.evaluate("document.activeElement.id") == "state"
        assert page.inner_text("#state") == "nothing waits"


def test_who_goes_away_takes_the_picture_along_and_a_key_stays_in_the_tab(browser: Browser, url: str):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with watched_page(browser, url, path="/review", ready=SHUT, refusals=1, **phone) as page:
        enter(page, "reviewer")
        page.wait_for_selector("#state:has-text('nothing waits')")
        with ThreadPoolExecutor(1) as pool:
            left = pool.submit(ask, url, seconds=8, num_inference_steps=1)
            wait_for(page, 1)
            assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing is wider than a phone"
            page.reload()
            wait_for(page, 1)
            with pytest.raises(httpx2.ReadTimeout):
                left.result()
        wait_for(page, 0)
