"""The documentation's navigation, errors, extras and support matrix are complete, and name what exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pages import DOCS, GENERATED, ROOT, SITE, navigation, project, tables

import kontext_trt
from kontext_trt import KontextError
from kontext_trt.engine.components import Operators, Precision
from kontext_trt.export.graphs.recipes import RecipeName

LIBRARIES = ("ONNX Runtime", "TensorRT-RTX", "TensorRT")
STATES = ("ran", "built, not run", "never tried", "refused", "impossible")


def check_navigation(config: str) -> None:
    found = navigation(config)
    assert len(found) == len(set(found)), "a page stands in the navigation twice"
    wanted = {str(page.relative_to(DOCS)) for page in (*SITE, *GENERATED)}
    assert set(found) == wanted, f"in the navigation or in docs/ alone: {sorted(set(found) ^ wanted)}"


def test_every_page_is_in_the_navigation():
    check_navigation((ROOT / "zensical.toml").read_text())


def public_errors() -> dict[str, type]:
    found = {name: getattr(kontext_trt, name) for name in kontext_trt.__all__}
    return {name: one for name, one in found.items() if isinstance(one, type) and issubclass(one, KontextError)}


def check_errors(text: str) -> None:
    """The table names every public error and no other; in the tree each hangs below its base."""
    errors = public_errors()
    (table,) = tables(text, "error")
    listed = [row[0].strip("`") for row in table]
    assert sorted(listed) == sorted(errors), f"listed or public alone: {sorted(set(listed) ^ set(errors))}"
    (tree,) = re.findall(r"^```\n(KontextError\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    above: list[str] = []
    for line in tree.splitlines():
        found = re.search(r"\w+", line)
        assert found is not None
        depth = found.start() // 4
        assert depth == 0 or errors[above[depth - 1]] in errors[found[0]].__bases__, f"{found[0]} hangs wrongly"
        above[depth:] = [found[0]]
    assert sorted(re.findall(r"^[^\w\n]*(\w+)", tree, re.MULTILINE)) == sorted(errors)


def test_errors_are_those_that_are_public():
    check_errors((DOCS / "reference/errors.md").read_text())


def check_extras(text: str) -> None:
    (table,) = tables(text, "extra")
    listed = {row[0].strip("`"): re.findall(r"`([^`]+)`", row[-1]) for row in table}
    assert listed == project()["optional-dependencies"]
    (_, base) = text.split("## Without an extra\n")
    assert re.findall(r"`([^`]+)`", base.split(".\n\n")[0]) == project()["dependencies"]


def test_extras_are_pyprojects():
    check_extras((DOCS / "reference/extras.md").read_text())


def check_support(text: str) -> None:
    """Every precision in every form of operators and every recipe has a row; what ran or was built has a source."""
    wanted = {(precision.value, form.value) for precision in Precision for form in Operators}
    wanted |= {(recipe.value, Operators.SINGLE.value) for recipe in RecipeName}
    sources = set(re.findall(r"^\| (\([a-z]\)) \|", text, re.MULTILINE))
    found = tables(text, "precision or recipe")
    assert len(found) == len(LIBRARIES)
    for table in found:
        covered = {(row[0].strip("`"), row[1].strip("`")) for row in table}
        assert wanted <= covered, f"no row for {sorted(wanted - covered)}"
        for cell in (cell for row in table for cell in row[2:]):
            assert cell.startswith(STATES), f"no state: {cell}"
            cited = set(re.findall(r"\[(\([a-z]\))\]\(#sources\)", cell))
            assert cited <= sources, f"no source {cited - sources}"
            assert cited or not cell.startswith(STATES[:2]), f"no source: {cell}"


def test_support_covers_every_precision_and_recipe():
    check_support((DOCS / "reference/support.md").read_text())


def broken() -> Iterator[Any]:
    """(name, check of a broken text, what it must say)"""
    errors, extras, support = ((DOCS / f"reference/{name}.md").read_text() for name in ("errors", "extras", "support"))
    config = (ROOT / "zensical.toml").read_text()
    yield "page", lambda: check_navigation(config.replace('"tutorial.md"', '"turorial.md"')), "tutorial.md"
    yield "twice", lambda: check_navigation(config.replace('"tutorial.md"', '"index.md"')), "twice"
    yield "error", lambda: check_errors(errors.replace("| `ImageError` |", "| `PictureError` |")), "PictureError"
    yield "no error", lambda: check_errors(re.sub(r"^\| `BusyError.*\n", "", errors, flags=re.M)), "BusyError"
    yield "tree", lambda: check_errors(errors.replace("│   └── UntrustedPlanError", "├── UntrustedPlanError")), "hangs"
    yield "extra", lambda: check_extras(extras.replace("| `rtx` |", "| `rtz` |")), "rtz"
    yield "package", lambda: check_extras(extras.replace("onnxruntime>=1.23", "onnxruntime>=1.24")), "1.24"
    yield "base", lambda: check_extras(extras.replace("`rich>=13`, ", "")), "rich"
    yield (
        "recipe",
        lambda: check_support(support.replace("| `nvfp4-svd` |", "| `nvfp4-xyz` |")),
        "no row for .*nvfp4-svd",
    )
    yield "state", lambda: check_support(support.replace("| never tried |", "| works |", 1)), "no state: works"
    yield (
        "source",
        lambda: check_support(support.replace("| never tried |", "| ran, small |", 1)),
        "no source: ran, small",
    )


@pytest.mark.parametrize(("check", "words"), [pytest.param(*rest, id=name) for name, *rest in broken()])
def test_each_check_can_fail(check: Any, words: str):
    with pytest.raises(AssertionError, match=words):
        check()
