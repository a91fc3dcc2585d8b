"""What the server sends of the playground, looked at without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
from served import served

from kontext_trt import Kontext
from kontext_trt.serving.options import ServingOptions
from kontext_trt.serving.playground.files import MEDIA_TYPES, is_playground

FOLDER = Path(__file__).parents[3] / "serving/playground"
FILES = sorted(file for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES)
MODULES = [file for file in FILES if file.suffix == ".js"]
NOTHING = ("/playground/files.py", "/playground/", "/playground/../app.py", "/playground/%2e%2e/app.py", "/playground")
EXPORTED = re.compile(r"^export (?:async )?(?:function\*? |class |const )(\w+)", re.MULTILINE)
SVG = "http://www.w3.org/2000/svg"
"""The name of a language, which nothing fetches."""


class Tags(HTMLParser):
    """Collects the attributes of a page's elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def tags() -> list[tuple[str, dict[str, str]]]:
    return Tags((FOLDER / "index.html").read_text()).found


@pytest.fixture(scope="module")
def url(kontext: Kontext) -> Iterator[str]:
    with served(kontext, ServingOptions(keys=("secret",), name="a-model")) as address:
        yield address


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_have_their_type_and_a_strict_policy_and_need_no_key(url: str, file: Path):
    answer = httpx2.get(f"{url}/" if file.name == "index.html" else f"{url}/playground/{file.name}")
    assert answer.status_code == 200
    assert answer.content == file.read_bytes()
    assert answer.headers["content-type"] == MEDIA_TYPES[file.suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'self'",
        "img-src": "'self' blob: data:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_settings_say_what_the_page_needs(url: str, kontext: Kontext):
    settings = httpx2.get(f"{url}/playground/settings.json").json()
    flow = kontext.bundle.manifest.model.flow
    assert settings["model"] == "a-model"
    assert settings["key_needed"] is True
    assert settings["masks"] is True
    assert (settings["steps"], settings["guidance"]) == (flow.steps, flow.guidance)
    assert settings["sizes"][0] == "x".join(map(str, kontext.bundle.manifest.model.sizes[0]))
    assert "secret" not in str(settings)


@pytest.mark.parametrize(
    "path",
    ["/playground/files.py", "/playground/", "/playground/../app.py", "/playground/%2e%2e/app.py", "/playground"],
)
def test_nothing_else_of_the_folder_is_served(url: str, path: str):
    answer = httpx2.get(f"{url}{path}", headers={"authorization": "Bearer secret"})
    assert answer.status_code == 404


def test_the_rest_needs_a_key(url: str):
    assert httpx2.get(f"{url}/v1/models").status_code == 401
    assert not is_playground("/playgrounds")
    assert not is_playground("/v1/models")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_refers_to_another_host(file: Path):
    text = file.read_text().replace(SVG, "")
    assert re.findall(r"""(?:https?:)?//(?=[\w.-]+\.\w)[^\s"'`]*""", text) == []
    assert re.findall(r"@import|url\(|importScripts|WebSocket|EventSource\(|sendBeacon", text) == []


def test_files_are_short():
    lengths = {file.name: len(file.read_text().splitlines()) for file in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_the_page_has_neither_script_nor_style_of_its_own(tags: list[tuple[str, dict[str, str]]]):
    """The policy would refuse them."""
    assert [found for tag, found in tags if tag == "script" and set(found) != {"type", "src"}] == []
    assert "style" not in [tag for tag, _ in tags]
    for _, attributes in tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_what_the_page_loads_is_there(tags: list[tuple[str, dict[str, str]]]):
    loaded = {found.get("src") or found["href"] for tag, found in tags if tag in ("script", "link")}
    assert loaded == {"playground/main.js", "playground/style.css", "playground/icon.svg"}


def test_ids_of_modules_and_labels_are_the_pages(tags: list[tuple[str, dict[str, str]]]):
    ids = [found["id"] for _, found in tags if "id" in found]
    assert len(ids) == len(set(ids))
    asked = re.compile(r"""(?:byId|getElementById)\("([\w-]+)"\)""")
    used = {name for file in MODULES for name in asked.findall(file.read_text())}
    assert len(used) > 30
    assert used <= set(ids)
    naming = ("for", "list", "aria-labelledby", "aria-describedby", "aria-controls")
    assert {found[name] for _, found in tags for name in naming if name in found} <= set(ids)


def test_modules_import_one_another_in_no_circle_and_use_what_they_import():
    imports: dict[str, set[str]] = {}
    for file in MODULES:
        text = file.read_text()
        found = re.findall(r"""^import \{([^}]*)\} from "\./([\w.]+)";$""", text, re.MULTILINE)
        imports[file.name] = {name for _, name in found}
        for names, other in found:
            exported = EXPORTED.findall((FOLDER / other).read_text())
            for name in names.split(","):
                original, _, alias = name.strip().partition(" as ")
                assert original in exported, f"{file.name} imports {original} from {other}"
                assert len(re.findall(rf"\b{alias or original}\b", text)) > 1, f"{file.name} does not use {original}"
    while imports:
        free = {name for name, others in imports.items() if not others & set(imports)}
        assert free, f"a circle among {sorted(imports)}"
        for name in free:
            del imports[name]
