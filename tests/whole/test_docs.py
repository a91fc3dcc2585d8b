"""What the README and the measurements tell a reader to type exists, and every measured number has its command."""

from __future__ import annotations

import importlib.util
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
import typer

from kontext_trt.cli.app import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MEASUREMENTS = sorted((ROOT / "docs/measurements").glob("*.md"))
PAGES = [
    README,
    *MEASUREMENTS,
    *sorted((ROOT / "docs/decisions").glob("*.md")),
    *sorted(ROOT.glob("benchmarks/**/*.md")),
]
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")
COMMAND = re.compile(
    r"^(?:\$ )?(?:KONTEXT_TRT_\w+=\S+ )*(kontext-trt|python -m kontext_trt\.|\.\.\. |make |pip install)"
)


def quoted(text: str) -> Iterator[str]:
    """What stands in backticks, and the lines of code blocks, comments cut off."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += [
        textwrap.dedent(block) for block in re.findall(r"(?:^\n)((?:^ {4}\S.*\n)(?:^ {4}.*\n)*)", text, re.MULTILINE)
    ]
    for block in blocks:
        yield from (re.sub(r"\s+# .*$", "", line) for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines())
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest))


def commands(text: str) -> list[str]:
    return [one.removeprefix("$ ") for one in quoted(text) if COMMAND.match(one)]


def options(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]


def check_own_command(words: list[str]) -> None:
    """Its names and options are the command line's."""
    found: Any = typer.main.get_command(app)
    if words and words[0] == "--version":
        return
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in found.commands, f"there is no command {name}"
        found = found.commands[name]
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert set(options(words)) <= known | {"--help"}, words


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


def check_command(command: str) -> None:
    words = [word for word in shlex.split(command.replace(" ...", ""), comments=True) if "KONTEXT_TRT_" not in word]
    if words[0] == "kontext-trt":
        for part in " ".join(words[1:]).split(" | ")[:1]:
            check_own_command(part.split(" "))
    elif words[0] == "python":
        check_module(words[2:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"there is no target {words[1]}"
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"kontext-trt\[([a-z,]+)\]", command)
        assert set(",".join(asked).split(",")) - {""} <= set(extras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path):
    for command in commands(page.read_text()):
        check_command(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_exist(page: Path):
    for name in quoted(page.read_text()):
        if re.fullmatch(r"(?:tests|docs|benchmarks|export|engine|runtime)/[\w./-]+", name):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_measured_paragraph_says_how():
    """A paragraph or list item with a date has measured something: it names a command, or a page that does."""
    text = re.sub(r"^```\w*\n.*?^```", "", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    measured = [part for part in re.split(r"\n\n|\n(?=- )", text) if DATE.search(part)]
    assert len(measured) >= 5
    for part in measured:
        pages = [ROOT / name for name in quoted(part) if name.startswith("docs/measurements/")]
        assert commands(part) or any(commands(page.read_text()) for page in pages), part


@pytest.mark.parametrize("page", MEASUREMENTS, ids=lambda page: page.name)
def test_measurements_have_date_and_command(page: Path):
    text = page.read_text()
    assert DATE.search(text)
    assert commands(text) or "docs/measurements/" in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("kontext-trt exprot A B", "no command exprot"),
        ("kontext-trt edit bundle --imgae x.png", "imgae"),
        ("python -m kontext_trt.benchmarks.no_such_thing", "no module"),
        ("python -m kontext_trt.benchmarks.costs.opening_cost --fast", "knows no --fast"),
        ("python -m kontext_trt.benchmarks.costs.opening_cost --time", "knows no --time"),
        ("make coffee", "no target coffee"),
        ("pip install 'kontext-trt[warp]'", "warp"),
    ],
)
def test_a_wrong_command_is_found(command: str, words: str):
    with pytest.raises(AssertionError, match=words):
        check_command(command)
