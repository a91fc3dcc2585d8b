"""Which module imports which, read from the source: also in functions and under TYPE_CHECKING."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "kontext_trt"


def module_files(root: Path, folders: tuple[str, ...]) -> dict[str, Path]:
    """Every module of the package by its dotted name, a package by its folder's. `root` is the package's folder."""
    files = [*root.glob("*.py"), *(file for folder in folders for file in (root / folder).rglob("*.py"))]
    return {module_name(file, root): file for file in sorted(files)}


def module_name(file: Path, root: Path) -> str:
    parts = [PACKAGE, *file.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Of every name that a file imports: the module after `from`, with an absolute name, and the name, or ""."""
    package = [PACKAGE, *file.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((stem, alias.name) for alias in node.names)


def module_imports(files: Mapping[str, Path], root: Path) -> dict[str, set[str]]:
    """By module of the package: those of its modules that it imports. A name that is no module's is its package's, so
    `from .. import __version__` imports the package above."""
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names = {f"{stem}.{name}" if f"{stem}.{name}" in files else stem for stem, name in imported(file, root)}
        found[module] = {name for name in names if name in files}
    return found


def find_circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules each of which imports the next, the last of them the first; [] if there is no such circle."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []
