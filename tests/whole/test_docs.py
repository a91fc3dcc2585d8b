"""What the documentation tells a reader to type exists, and every measured number has its command."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import (
    DOCS,
    GENERATED,
    MEASUREMENTS,
    PAGES,
    README,
    ROOT,
    SITE,
    commands,
    examples,
    links,
    name_of,
    project,
    quoted,
    sections,
)

import kontext_trt
from kontext_trt.cli.app import app
from kontext_trt.runtime.keywords import EditKeywords, SessionKeywords, TurnKeywords

README_CHARACTERS = 7000
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
MEASURED = re.compile(r"\d\s?(?:ms|µs|s|dB|[KMGT]i?B|TFLOP/s|%)(?![\w/])")
"""A number in a unit of what is measured."""
PUBLIC = frozenset(kontext_trt.__all__)


def options(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]


def known_options(command: Any) -> set[str]:
    return {"--help"} | {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def check_own_command(words: list[str]) -> None:
    """Its names and options are the command line's."""
    found: Any = typer.main.get_command(app)
    while words and words[0] in known_options(found):
        words.pop(0)
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name == "COMMAND":
            return
        assert name in found.commands, f"there is no command {name}"
        found = found.commands[name]
    assert set(options(words)) <= known_options(found), words


def check_module(words: list[str]) -> None:
    """The module exists, runs as a program, and knows the options."""
    spec = importlib.util.find_spec(words[0])
    assert spec is not None, f"there is no module {words[0]}"
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert '__name__ == "__main__"' in source
    for option in options(words[1:]):
        name = option.removeprefix("--").removeprefix("no-").replace("-", "_")
        said = f'"{option}"' in source or re.search(rf"^    {name}: Annotated\[", source, re.MULTILINE)
        assert said, f"{words[0]} knows no {option}"


def check_install(words: list[str]) -> None:
    """From a checkout, with extras that there are; nothing is published."""
    for word in words:
        assert not word.startswith("kontext-trt"), f"{word} is on no index: install from a checkout"
        if extras := re.fullmatch(r"\.\[([a-z,-]+)\]", word):
            unknown = set(extras[1].split(",")) - set(project()["optional-dependencies"])
            assert not unknown, f"there is no extra {', '.join(unknown)}"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_command(command: str) -> None:
    words = [word for word in shlex.split(command.replace(" ...", ""), comments=True) if "KONTEXT_TRT_" not in word]
    if words[0] == "kontext-trt":
        check_own_command(words[1 : words.index("|") if "|" in words else None])
    elif words[0] == "python":
        check_module(words[2:])
    elif words[0] == "make":
        assert words[1] in targets(), f"there is no target {words[1]}"
    elif words[0] == "pip":
        check_install(words[2:])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path):
    for command in commands(page.read_text()):
        check_command(command)


def check_files(text: str) -> None:
    for name in quoted(text):
        if re.fullmatch(r"(?:tests|docs|benchmarks|export|engine|runtime|cli|examples|findings)/[\w./-]*", name):
            assert (ROOT / name).exists(), f"there is no {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page: Path):
    check_files(page.read_text())


def check_links(text: str, folder: Path) -> None:
    for target in links(text):
        path = (folder / target).resolve()
        assert path.exists() or path in GENERATED, f"{target} leads nowhere"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    check_links(page.read_text(), page.parent)


def called(node: ast.Call) -> tuple[str, Any] | None:
    """The name and the object of a call of ours: a public name, its class method, or a method of `kontext`."""
    match node.func:
        case ast.Name(id=name) if name in PUBLIC:
            return name, getattr(kontext_trt, name)
        case ast.Attribute(value=ast.Name(id="kontext" | "Kontext"), attr=method):
            name = f"Kontext.{method}"
            assert hasattr(kontext_trt.Kontext, method), f"there is no {name}"
            return name, getattr(kontext_trt.Kontext, method)
    return None


def keywords(call: Any) -> Iterator[str]:
    """The names that a call takes, those of its `**keywords` included."""
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            for keywords in (EditKeywords, SessionKeywords, TurnKeywords):
                yield from keywords.__annotations__
        yield name


def check_example(tree: ast.Module) -> None:
    """It imports what is public, and calls it with keywords that there are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "kontext_trt":
            private = {alias.name for alias in node.names} - PUBLIC
            assert not private, f"{', '.join(private)} cannot be imported from kontext_trt"
        elif isinstance(node, ast.Call) and (found := called(node)):
            unknown = {keyword.arg for keyword in node.keywords} - set(keywords(found[1]))
            assert not unknown, f"{found[0]} has no argument {', '.join(map(str, unknown))}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_use_public_names(page: Path):
    for tree in examples(page.read_text()):
        check_example(tree)


def says_how(text: str, folder: Path) -> bool:
    """Whether a text has a command or a test, or names or links a page of measurements that has one."""
    files = [ROOT / name for name in quoted(text) if name.startswith("docs/measurements/")]
    files += [(folder / target).resolve() for target in links(text)]
    pages = [file for file in files if file in MEASUREMENTS]
    tests = any(name.startswith("tests/") for name in quoted(text))
    return bool(commands(text)) or tests or any(commands(page.read_text()) for page in pages)


def check_measured(text: str, folder: Path, *, units: bool = True) -> None:
    """A paragraph or list item with a date has measured something, and so has a section with numbers in units."""
    paragraphs = re.split(r"\n\n|\n(?=- )", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    parts = [part for part in paragraphs if DATE.search(re.sub(r"\]\([^)]*\)|`[^`]*`", "", part))]
    parts += [section for section in sections(text) if units and MEASURED.search(section)]
    for part in parts:
        assert says_how(part, folder), f"measured, and no command: {part.strip()}"


@pytest.mark.parametrize("page", [page for page in (README, *SITE) if page not in MEASUREMENTS], ids=name_of)
def test_every_measured_number_says_how(page: Path):
    """Decisions also weigh with what follows from shapes, in bytes; there a date marks what was measured."""
    check_measured(page.read_text(), page.parent, units=page.parent.name != "decisions")


@pytest.mark.parametrize("page", MEASUREMENTS, ids=name_of)
def test_measurements_have_date_and_command(page: Path):
    text = page.read_text()
    assert DATE.search(text)
    assert commands(text) or "docs/measurements/" in text


def test_readme_is_short():
    assert len(README.read_text()) <= README_CHARACTERS


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("kontext-trt exprot A B", "no command exprot"),
        ("kontext-trt --verbose exprot A B", "no command exprot"),
        ("kontext-trt edit bundle --imgae x.png", "imgae"),
        ("python -m kontext_trt.benchmarks.no_such_thing", "no module"),
        ("python -m kontext_trt.benchmarks.costs.opening_cost --fast", "knows no --fast"),
        ("python -m kontext_trt.benchmarks.costs.opening_cost --time", "knows no --time"),
        ("make coffee", "no target coffee"),
        ("pip install '.[warp]'", "no extra warp"),
        ("pip install '.[cpu,warp]'", "no extra warp"),
        ("pip install kontext-trt", "on no index"),
        ("pip install 'kontext-trt[cpu]'", "on no index"),
    ],
)
def test_a_wrong_command_is_found(command: str, words: str):
    assert commands(f"`{command}`") == [command]
    with pytest.raises(AssertionError, match=words):
        check_command(command)


def broken() -> Iterator[Any]:
    """(name, check of a broken text, what it must say)"""
    here = DOCS / "how-to"
    yield "file", lambda: check_files("see `engine/no_such.py`"), "no engine/no_such.py"
    yield "link", lambda: check_links("[x](no-such.md)", here), "no-such.md leads nowhere"
    yield "date", lambda: check_measured("fast (2026-11-21)\n\nrun `make test`", here), "measured, and no command"
    yield "unit", lambda: check_measured("## A\nit takes 3.5 ms\n## B\n`make test`", here), "it takes 3.5 ms"
    yield "page", lambda: check_measured("it takes 9 s, see [x](checkpoints.md)", here), "it takes 9 s"
    for name, code, words in (
        ("import", "from kontext_trt import Kontxt", "Kontxt cannot be imported"),
        ("keyword", "AnyExecutor(vram=8)", "AnyExecutor has no argument vram"),
        ("method", "kontext.edit('a', 'b', sead=1)", "Kontext.edit has no argument sead"),
        ("no method", "kontext.edits('a')", "no Kontext.edits"),
    ):
        yield name, lambda code=code: check_example(ast.parse(code)), words


@pytest.mark.parametrize(("check", "words"), [pytest.param(*rest, id=name) for name, *rest in broken()])
def test_each_check_can_fail(check: Any, words: str):
    with pytest.raises(AssertionError, match=words):
        check()
