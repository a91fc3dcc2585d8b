"""Writes docs/reference/python.md: every public name of `__init__.pyi`, by the room that it comes from.

The page holds names only. mkdocstrings renders their docstrings, and a strict build fails where a name leads nowhere.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "python.md"
HEAD = """# Python

Everything here is imported from `kontext_trt`. A name is loaded when it is first asked for, so importing the package
costs little, and running a bundle never imports torch. Names that are not on this page may change at any time.
[Errors](errors.md) have a page of their own, with cause and cure.
"""
FIRST = ("Kontext", "Request", "Sampling", "Result", "Output")
"""The names that a reader looks for; the rest follows in the stub's order."""
ROOMS = {
    "runtime": "Pictures: opening a bundle, asking, results",
    "serving": "Serving over HTTP",
    "export": "Bundles: exporting, calibrating, quantizing",
    "engine": "Bundles and plans: opening, building",
}


def public_names(stub: Path = ROOT / "__init__.pyi") -> Mapping[str, str]:
    """Return each public name with its module, in the stub's order."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if not (alias.asname or alias.name).startswith("_")
    }


def page(names: Mapping[str, str]) -> str:
    """Return the page: every public name but errors, under the room that it comes from."""
    parts = [HEAD.strip()]
    shown = {name: module for name, module in names.items() if module != "engine.errors"}
    strange = [name for name, module in shown.items() if module.split(".")[0] not in ROOMS]
    if strange:
        raise SystemExit(f"{', '.join(strange)}: public, and of no room that this page has")
    for room, title in ROOMS.items():
        members = [name for name, module in shown.items() if module.split(".")[0] == room]
        members.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
        if members:
            parts += [f"## {title}", *(f"::: kontext_trt.{name}" for name in members)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(public_names()))


if __name__ == "__main__":
    main()
