"""A real browser for tests: Debian's Chromium, driven by Playwright, that can reach nothing but this machine."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = "KONTEXT_TRT_SCREENSHOTS"
"""The variable that names a folder for pictures of pages."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips where there is none, which fails where KONTEXT_TRT_CI says that nothing may be skipped.

    Per module: Playwright's event loop runs in this thread, and nobody else's can as long as it does.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None or importlib.util.find_spec("playwright") is None:
        pytest.skip(f"needs {' or '.join(NAMES)}, and playwright: make browser")
    from playwright.sync_api import sync_playwright

    own_machine_only = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", own_machine_only])
        yield opened
        opened.close()


@contextmanager
def watched_page(
    browser: Browser, url: str, *, path: str = "/", ready: str = "#model:not(:empty)", refusals: int = 0, **context: Any
) -> Iterator[Page]:
    """A page of `url`, once what `ready` selects is there.

    It asks no other host, and its console holds no error but one for each answer that is one.
    """
    said: list[str] = []
    outside: list[str] = []
    opened = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **context)
    opened.set_default_timeout(30_000)
    try:
        page = opened.new_page()
        page.on("console", lambda line: said.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: outside.append(request.url))
        page.goto(f"{url}{path}")
        page.wait_for_selector(ready)
        yield page
    finally:
        opened.close()
    assert not [one for one in outside if not one.startswith((f"{url}/", f"blob:{url}/", "data:"))]
    refused = [line for line in said if line.startswith("Failed to load resource: the server responded")]
    assert [line for line in said if line not in refused] == []
    assert len(refused) == refusals


def drop(page: Page, selector: str, file: Path, kind: str = "image/png") -> None:
    """Drop a file on an element, as a hand would."""
    page.dispatch_event(selector, "drop", {"dataTransfer": transfer(page, file, kind)})


def paste(page: Page, file: Path, kind: str = "image/png") -> None:
    page.evaluate(
        "data => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))",
        transfer(page, file, kind),
    )


def transfer(page: Page, file: Path, kind: str) -> Any:
    """A DataTransfer of the page that holds a file."""
    return page.evaluate_handle(
        """([bytes, name, type]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))], name, {type}));
            return data;
        }""",
        [base64.b64encode(file.read_bytes()).decode(), file.name, kind],
    )


def downloaded(page: Page, selector: str) -> tuple[str, Image.Image]:
    """The name and the picture of the file that a click saves."""
    with page.expect_download() as waiting:
        page.click(selector)
    file = waiting.value
    return file.suggested_filename, Image.open(io.BytesIO(Path(file.path()).read_bytes()))


def shoot(page: Page, name: str, **options: Any) -> None:
    """Take a picture of a page for the documentation, where that is wanted, its colours in steps of 4 to be smaller."""
    if folder := os.environ.get(SCREENSHOTS):
        image = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
        image.point(lambda value: min((value + 2) & ~3, 255)).save(Path(folder) / f"{name}.png", optimize=True)
