"""The documentation's pages, and what they say: commands, files, links, tables, examples."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
GENERATED = {DOCS / "reference/command-line.md", DOCS / "reference/python.md"}
"""Written by docs/generate/ before each build of the site, and not in the repository."""
SITE = sorted(set(DOCS.rglob("*.md")) - GENERATED)
MEASUREMENTS = sorted(set((DOCS / "measurements").glob("*.md")) - {DOCS / "measurements/index.md"})
FOLDERS = ("benchmarks", "examples", "findings")
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *SITE,
    *sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")),
]
COMMAND = re.compile(
    r"^(?:\$ )?(?:KONTEXT_TRT_\w+=\S+ )*(kontext-trt|python -m kontext_trt\.|\.\.\. |make |pip install)"
)
MISTYPED = "mistyped"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def quoted(text: str) -> Iterator[str]:
    """What stands in backticks, and the lines of code blocks, comments cut off.

    Blocks of the language `mistyped` are left out: they show what the command line does not know.
    """
    blocks = [body for language, body in FENCE.findall(text) if language != MISTYPED]
    blocks += [
        textwrap.dedent(block) for block in re.findall(r"(?:^\n)((?:^ {4}\S.*\n)(?:^ {4}.*\n)*)", text, re.MULTILINE)
    ]
    for block in blocks:
        yield from (re.sub(r"\s+# .*$", "", line) for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines())
    rest = FENCE.sub("", text)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest))


def commands(text: str) -> list[str]:
    return [one.removeprefix("$ ") for one in quoted(text) if COMMAND.match(one)]


def links(text: str) -> Iterator[str]:
    """Targets of links to files, without their anchors."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if not re.match(r"[a-z]+:|#", target):
            yield target.split("#")[0]


def examples(text: str) -> Iterator[ast.Module]:
    """Python code blocks, parsed; one that is no Python raises SyntaxError."""
    for language, body in FENCE.findall(text):
        if language == "python":
            yield ast.parse(body)


def sections(text: str) -> list[str]:
    """What stands between two headings."""
    return re.split(r"^#+ .*$", re.sub(r"^```.*?^```", _without_headings, text, flags=re.M | re.S), flags=re.MULTILINE)


def _without_headings(block: re.Match[str]) -> str:
    return re.sub(r"^#", " #", block[0], flags=re.MULTILINE)


def tables(text: str, first_column: str) -> list[list[list[str]]]:
    """The cells of every table whose first column has this heading."""
    heading = rf"^\| {re.escape(first_column)} \|.*\n\|[-| ]+\|\n((?:^\|.*\n)+)"
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        for table in re.findall(heading, text, re.MULTILINE)
    ]


def project() -> dict[str, Any]:
    """What pyproject.toml says of the package: dependencies and extras among it."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def navigation(text: str) -> list[str]:
    """Every page that a site's configuration leads to, relative to docs/."""

    def flat(items: Any) -> Iterator[str]:
        for item in items:
            for entry in item.values() if isinstance(item, dict) else [item]:
                yield from [entry] if isinstance(entry, str) else flat(entry)

    return list(flat(tomllib.loads(text)["project"]["nav"]))
