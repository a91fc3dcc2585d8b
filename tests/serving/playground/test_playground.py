"""The playground in a real browser, served with the small Kontext: what a person sees and does, start to end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
from browser import downloaded, drop, paste, shoot, watched_page
from PIL import Image
from served import Held, served

from kontext_trt import Kontext
from kontext_trt.serving.options import Keeping, ServingOptions

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.check

BEFORE = Path(__file__).parents[3] / "docs/small-kontext/before.png"
PROMPT = "turn the orange hexagon black"
STEPS = 4
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def kontext(small_demo: Path) -> Iterator[Kontext]:
    with Kontext.open(small_demo / "bundle") as opened:
        yield opened


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext, ServingOptions(name="small-kontext")) as address:
        yield address


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with watched_page(browser, url, viewport={"width": 1200, "height": 900}) as opened:
        yield opened


def choose(page: Page, file: Path = BEFORE) -> None:
    page.set_input_files("#choose", file)
    page.wait_for_selector("#tree li")


def set_up(page: Page, prompt: str, *, steps: int = STEPS, seed: int = 0) -> None:
    page.fill("#prompt", prompt)
    page.evaluate("document.getElementById('settings').open = true")
    page.fill("#steps", str(steps))
    page.fill("#seed", str(seed))


def edit(page: Page, prompt: str, **settings: int) -> None:
    """Ask for an edit, and wait for its picture in the history."""
    count = page.locator("#tree li").count()
    set_up(page, prompt, **settings)
    page.click("#run")
    page.wait_for_function("count => document.querySelectorAll('#tree li').length === count", arg=count + 1)


def titles(page: Page) -> list[str]:
    """The pictures of the history by their titles, with the level of each."""
    return page.eval_on_selector_all(
        "#tree li", "items => items.map((one) => one.ariaLevel + ' ' + one.querySelector('.title').textContent)"
    )


def current(page: Page) -> str:
    return page.inner_text("#tree [aria-selected=true] .title")


def copied(page: Page, kind: str) -> str:
    page.evaluate("document.getElementById('program').open = true")
    page.click(f"#copy-{kind}")
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Copied')")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text == page.input_value("#snippet")
    return text


def run_copied(page: Page, kind: str, folder: Path) -> Image.Image:
    """The picture that a copied request makes in a folder."""
    (folder / "edited.png").unlink(missing_ok=True)
    text = copied(page, kind)
    command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-c", f"set -o pipefail; {text}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Image.open(folder / "edited.png")


def test_a_dropped_picture_is_edited_with_previews_and_compared(page: Page, kontext: Kontext):
    """The picture is that of the session's own call, byte for byte."""
    drop(page, "#drop", BEFORE)
    page.wait_for_selector("#tree li")
    set_up(page, PROMPT, steps=28)
    page.evaluate(
        """() => {
            window.said = [];
            const status = document.getElementById("status");
            const note = () => said.push([status.textContent, document.getElementById("progress").value]);
            new MutationObserver(note).observe(status, {childList: true});
        }"""
    )
    page.click("#run")
    page.wait_for_selector("#preview:not([hidden])")
    page.wait_for_selector("#tree li:nth-child(2)")
    said = page.evaluate("said")
    assert [one for one in said if one[0].startswith("Preview")] == [
        [f"Preview {number} of 3", number / 4] for number in (1, 2, 3)
    ]
    assert page.inner_text("#status").startswith("Made in ")
    assert not page.is_visible("#preview")
    assert not page.is_visible("#progress")
    name, made = downloaded(page, "#download")
    assert name == "picture-1.png"
    with kontext.session(BEFORE) as session:
        assert np.array_equal(made, session.edit(PROMPT, steps=28, seed=0).picture())
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    shoot(page, "desktop", full_page=True)


def test_the_slider_moves_by_mouse_and_keys(page: Page):
    choose(page)
    assert not page.is_visible("#slider"), "there is nothing to compare yet"
    edit(page, PROMPT)
    shown = "getComputedStyle(document.getElementById('before')).clipPath"
    assert page.evaluate(shown) == "inset(0px 50% 0px 0px)"
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown) == "inset(0px 51% 0px 0px)"
    page.keyboard.press("Home")
    assert page.evaluate(shown) == "inset(0px 100% 0px 0px)"
    box: Any = page.locator("#compare").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=5)
    page.mouse.up()
    assert 76 <= int(page.input_value("#slider")) <= 84
    assert page.get_attribute("#slider", "aria-valuetext") == f"{page.input_value('#slider')} % before"


def test_history_goes_back_and_branches(page: Page, kontext: Kontext):
    choose(page)
    edit(page, PROMPT)
    edit(page, "remove the yellow star")
    page.click("#undo")
    assert current(page) == f"1. {PROMPT}"
    page.click("#undo")
    assert page.is_disabled("#undo")
    edit(page, "remove the orange hexagon")
    edit(page, "remove the yellow star")
    assert titles(page) == [
        "1 0. before.png",
        f"2 1. {PROMPT}",
        "3 2. remove the yellow star",
        "2 3. remove the orange hexagon",
        "3 4. remove the yellow star",
    ]
    _, made = downloaded(page, "#download")
    with kontext.session(BEFORE) as session:
        session.edit("remove the orange hexagon", steps=STEPS, seed=0)
        assert np.array_equal(made, session.edit("remove the yellow star", steps=STEPS, seed=0).picture())
    page.click("#tree li:nth-child(2)")
    page.keyboard.press("Control+z")
    assert current(page) == "0. before.png"
    page.keyboard.press("Control+Shift+z")
    assert current(page) == "3. remove the orange hexagon", "the last that was made of it"


def test_a_part_is_marked_and_the_rest_keeps_its_bytes(page: Page, tmp_path: Path):
    choose(page)
    page.click("#mask-open")
    set_up(page, PROMPT)
    page.click("#run")
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "Nothing is marked. Paint over the part to edit, or go on without mask."
    box: Any = page.locator("#mask").bounding_box()
    x, y = box["x"] + box["width"] * 0.84, box["y"] + box["height"] * 0.82
    page.evaluate("document.getElementById('brush').value = 60")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 4, y + 4, steps=3)
    page.mouse.up()
    assert page.inner_text("#error") == ""
    shoot(page, "mask")
    name, mask = downloaded(page, "#mask-download")
    marked = np.asarray(mask.getchannel("A")) < 128
    assert (name, mask.size) == ("mask.png", (128, 128))
    assert 0.02 < marked.mean() < 0.2
    shutil.copyfile(BEFORE, tmp_path / "before.png")
    mask.save(tmp_path / "mask.png")
    by_program = run_copied(page, "python", tmp_path)
    page.click("#run")
    page.wait_for_selector("#tree li:nth-child(2)")
    _, made = downloaded(page, "#download")
    before = np.asarray(Image.open(BEFORE).convert("RGB"))
    assert np.array_equal(np.asarray(made)[~marked], before[~marked])
    assert (np.asarray(made)[marked] != before[marked]).any()
    assert np.array_equal(made, by_program)
    assert page.get_attribute("#mask-open", "aria-expanded") == "false"


def marks(page: Page) -> np.ndarray:
    """What is marked, (128, 128) bool."""
    _, mask = downloaded(page, "#mask-download")
    return np.asarray(mask.getchannel("A")) < 128


def test_a_mask_is_erased_inverted_cleared_and_painted_by_keys(page: Page):
    choose(page)
    page.click("#mask-open")
    page.focus("#mask")
    page.keyboard.press("Space")
    dot = marks(page)
    assert dot[64, 64]
    assert not dot[64, 84]
    page.focus("#mask")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    line = marks(page)
    assert line[64, 82], "three halves of a brush of 12.8 pixels further"
    page.click("#mask-invert")
    assert np.array_equal(marks(page), ~line)
    page.click("#mask-invert")
    page.click("#mask-erase")
    page.focus("#mask")
    page.keyboard.press("Space")
    assert marks(page)[64, 64]
    assert not marks(page)[64, 82]
    page.click("#mask-clear")
    assert not marks(page).any()


def test_cancel_ends_the_request_and_the_next_one_works(browser: Browser, kontext: Kontext):
    held = Held(kontext)
    with served(held) as address, watched_page(browser, address) as page:
        choose(page)
        set_up(page, PROMPT)
        page.click("#run")
        assert held.running.wait(60)
        assert page.evaluate("document.activeElement.id") == "cancel", "what was pressed is now the other button"
        page.click("#cancel")
        page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Cancelled')")
        page.wait_for_function("() => !document.getElementById('run').disabled")
        for _ in range(600):
            if held.done:
                break
            page.wait_for_timeout(100)
        assert held.done == ["Cancelled"]
        assert titles(page) == ["1 0. before.png"]
        page.click("#run")
        page.fill("#prompt", "typed meanwhile")
        held.go_on.set()
        page.wait_for_selector("#tree li:nth-child(2)")
        assert held.done == ["Cancelled", "made"]
        assert titles(page)[1] == f"2 1. {PROMPT}"


def test_the_keyboard_alone_reaches_everything(page: Page):
    choose(page)
    edit(page, PROMPT)
    page.evaluate("document.getElementById('settings').open = false")
    page.focus(".skip")
    seen: list[str] = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        framed = page.evaluate(
            """() => {
                const active = document.activeElement;
                const shown = active.id === "slider" ? active.parentElement
                    : active.classList.contains("unseen") ? active.nextElementSibling : active;
                return getComputedStyle(shown).outlineStyle;
            }"""
        )
        assert framed == "solid", f"{seen[-1]} does not show that it has the focus"
    assert seen[:11] == [
        "slider",
        "choose",
        "download",
        "mask-open",
        "prompt",
        "run",
        "reference-choose",
        "Settings",
        "This request in a program",
        "undo",
        "start-over",
    ]
    assert seen[11].startswith("1. "), "the current picture of the tree"
    page.focus("#tree [tabindex='0']")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert current(page) == "0. before.png"
    page.keyboard.press("ArrowRight")
    assert "black" in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert current(page) == f"1. {PROMPT}"
    page.fill("#prompt", "remove the yellow star")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#tree li:nth-child(3)")


def test_every_control_has_a_name_and_live_regions_tell(page: Page):
    choose(page)
    page.click("#mask-open")
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select, a, [role]")]
            .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim() || one.role === "alert"
                || one.getAttribute("role") === "status" || one.getAttribute("role") === "alert"))
            .map((one) => one.id)"""
    )
    assert nameless == []
    assert page.get_attribute("#status", "aria-live") == "polite"
    assert page.get_attribute("#error", "role") == "alert"


def test_several_references_and_what_is_pasted(page: Page, kontext: Kontext, tmp_path: Path):
    other = tmp_path / "other.jpg"
    Image.new("RGB", (96, 96), (10, 200, 30)).save(other)
    paste(page, BEFORE)
    page.wait_for_selector("#tree li")
    drop(page, "#references-box", other, "image/jpeg")
    page.wait_for_selector("#references li")
    page.set_input_files("#reference-choose", [other])
    page.wait_for_selector("#references li:nth-child(2)")
    assert page.eval_on_selector_all("#references span", "all => all.map((one) => one.textContent)") == [
        "other.jpg",
        "other-2.jpg",
    ]
    page.click("[aria-label='Remove other-2.jpg']")
    edit(page, PROMPT)
    _, made = downloaded(page, "#download")
    with kontext.session(BEFORE) as session:
        turn = session.edit(PROMPT, beside=[other.read_bytes()], steps=STEPS, seed=0)
        assert np.array_equal(made, turn.picture())


def test_a_picture_of_words_begins_a_history(page: Page, kontext: Kontext):
    page.select_option("#format", "webp") if page.is_visible("#format") else None
    set_up(page, "a red circle")
    page.fill("#size", "96x160")
    assert page.inner_text("#run") == "Make a picture"
    page.click("#run")
    page.wait_for_selector("#tree li")
    _, made = downloaded(page, "#download")
    assert np.array_equal(made, kontext.generate("a red circle", size=(96, 160), steps=STEPS, seed=0).image)
    page.fill("#size", "")
    edit(page, "add a blue square")
    assert titles(page) == ["1 0. a red circle", "2 1. add a blue square"]


def test_what_another_program_is_told_makes_the_same_picture(page: Page, tmp_path: Path):
    """With a file's name and words that a shell, curl, JSON or Python could take for their own."""
    file = tmp_path / "be,fo;re 'x'.png"
    shutil.copyfile(BEFORE, file)
    prompt = """turn the "orange" hexagon 'black' \\ $HOME `x` ü 😀\n@file <file ;type=x"""
    choose(page, file)
    set_up(page, prompt)
    first = [run_copied(page, kind, tmp_path) for kind in ("python", "curl")]
    assert "It reads be,fo;re 'x'.png" in page.inner_text("#snippet-files")
    edit(page, prompt)
    page.click("#undo")
    of_session = [run_copied(page, kind, tmp_path) for kind in ("python", "curl")]
    assert "a turn that the server keeps for 60 minutes" in page.inner_text("#snippet-files")
    page.click("#redo")
    _, made = downloaded(page, "#download")
    for one in (*first, *of_session):
        assert np.array_equal(one, made)


def test_a_session_that_is_gone_is_begun_anew(browser: Browser, kontext: Kontext):
    options = ServingOptions(keeping=Keeping(sessions=1))
    with served(kontext, options) as address, watched_page(browser, address, refusals=1) as page:
        choose(page)
        edit(page, PROMPT)
        other = {"prompt": "x", "session": "new", "num_inference_steps": "1"}
        answer = httpx2.post(f"{address}/v1/images/edits", data=other, files={"image": BEFORE.read_bytes()}, timeout=60)
        assert answer.status_code == 200
        edit(page, "remove the yellow star")
        assert titles(page)[-1] == "3 2. remove the yellow star"
        assert page.inner_text("#error") == ""


def test_what_the_server_refuses_is_said_in_its_words(browser: Browser, url: str):
    with watched_page(browser, url, refusals=1) as page:
        choose(page)
        set_up(page, PROMPT)
        page.fill("#size", "17x17")
        page.click("#run")
        page.wait_for_selector("#error:not(:empty)")
        assert "17" in page.inner_text("#error")
        assert "16" in page.inner_text("#error")
        page.fill("#size", "")
        edit(page, PROMPT)
        assert page.inner_text("#error") == ""


def test_what_is_no_picture_is_said(page: Page, tmp_path: Path):
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    drop(page, "#drop", file)
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "notes.png is no picture that this browser can read."
    drop(page, "#drop", file, "text/plain")
    page.wait_for_function("() => document.getElementById('error').textContent.startsWith('That is no picture')")


def test_a_server_with_a_key_asks_for_it(browser: Browser, kontext: Kontext):
    options = ServingOptions(keys=("secret",))
    with served(kontext, options) as address, watched_page(browser, address, refusals=1) as page:
        choose(page)
        assert page.is_visible("#key")
        page.fill("#key", "wrong")
        set_up(page, PROMPT)
        page.click("#run")
        page.wait_for_selector("#error:not(:empty)")
        assert "a key is needed" in page.inner_text("#error")
        assert page.evaluate("document.activeElement.id") == "key"
        page.fill("#key", "secret")
        edit(page, PROMPT)
        assert 'os.environ["KONTEXT_API_KEY"]' in copied(page, "python")
        assert "secret" not in copied(page, "curl")
        assert page.evaluate("[localStorage.length, Object.values(sessionStorage)]") == [0, ["secret"]]


def test_start_over_forgets_and_ends_sessions(page: Page, url: str):
    count = lambda: httpx2.get(f"{url}/metrics").text.split("\nkontext_sessions ")[1].split()[0]  # noqa: E731
    before = count()
    choose(page)
    edit(page, PROMPT)
    assert float(count()) == float(before) + 1
    page.click("#start-over")
    page.wait_for_selector("#drop", state="visible")
    assert titles(page) == []
    assert count() == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_aside(browser: Browser, url: str, scheme: str):
    with watched_page(browser, url, **PHONE, color_scheme=scheme, reduced_motion="reduce") as page:
        fits: Callable[[], bool] = lambda: page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # noqa: E731
        assert fits()
        choose(page)
        edit(page, PROMPT)
        if scheme == "dark":
            close = "document.getElementById('settings').open = false; document.activeElement.blur(); scrollTo(0, 0)"
            page.evaluate(close)
            shoot(page, "phone")
        edit(page, "averylongwordwithoutanyspaces" * 10)
        page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        page.click("#copy-curl")
        page.tap("#mask-open")
        assert fits()
        box: Any = page.locator("#mask").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert marks(page)[64, 64]
        small = page.eval_on_selector_all(
            "button, .button",
            "all => all.filter((one) => one.offsetHeight && one.offsetHeight < 44).map((one) => one.id)",
        )
        assert small == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(22, 24, 27)" if scheme == "dark" else "rgb(251, 251, 250)")
        assert page.evaluate("getComputedStyle(document.getElementById('run')).transitionDuration") == "0s"
