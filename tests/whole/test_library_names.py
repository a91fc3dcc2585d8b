"""Every name that builder and runtime use from a library exists in all of them, or stands in the flavour folder."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kontext_trt.engine import flavour as package
from kontext_trt.engine.flavour import Flavour

ENGINE = Path(package.__file__).parents[1]
# public names of the classes that we use, by version, as the real bindings have them
NAMES: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("library_names.json").read_text())
# what the code calls the objects that it gets from a library
VARIABLES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "optimization": "IOptimizationProfile",
    "engine": "ICudaEngine",
    "runtime": "Runtime",
    "measured": "ITimingCache",
    "context": "IExecutionContext",
    "settings": "IRuntimeConfig",
}
EXECUTORS = ENGINE.parent / "runtime" / "executors"
FILES = (
    *(ENGINE / "builder" / name for name in ("compile.py", "callbacks.py", "timing_cache.py")),
    *(EXECUTORS / name for name in ("tensorrt.py", "tensorrt_log.py")),
)


def _chain(node: ast.expr) -> list[str]:
    """`a.b.c` as ["a", "b", "c"]; [] for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := _chain(node.value)):
        return [*before, node.attr]
    return []


def _uses(files: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """(place, class, name) of every use; the name is "" where only the class is used."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            chain = _chain(node) if isinstance(node, ast.Attribute) else []
            if chain[:1] == ["self"] and len(chain) > 1:  # self._context.name
                chain = [chain[1].lstrip("_"), *chain[2:]]
            place = f"{file.name}:{node.lineno}" if isinstance(node, ast.Attribute) else ""
            if chain[:1] == ["trt"] and len(chain) > 1:
                yield place, chain[1], chain[2] if len(chain) > 2 else ""
            elif len(chain) == 2 and chain[0] in VARIABLES:
                yield place, VARIABLES[chain[0]], chain[1]


def _missing(uses: Iterable[tuple[str, str, str]], versions: Iterable[str]) -> list[str]:
    return [
        f"{place} {kind}.{name} is not in {version}"
        for place, kind, name in uses
        for version in versions
        if kind not in NAMES[version] or (name and not name.startswith("__") and name not in NAMES[version][kind])
    ]


def test_every_name_exists_in_every_version() -> None:
    uses = list(_uses(FILES))
    assert len(uses) > 65
    assert {kind for _, kind, _ in uses} > {"IExecutionContext", "ICudaEngine", "Builder"}
    assert _missing(uses, NAMES) == []


def test_what_makes_contexts_exists_in_its_own_library() -> None:
    folder = ENGINE / "flavour"
    uses = [use for use in _uses([folder / "tensorrt_rtx.py"]) if use[1] in NAMES["tensorrt-rtx-1.7.1.116"]]
    assert {kind for _, kind, _ in uses} >= {"IRuntimeConfig", "IExecutionContext", "CudaGraphStrategy"}
    assert _missing(uses, ["tensorrt-rtx-1.7.1.116"]) == []
    assert "USER_MANAGED" in NAMES["tensorrt-10.13.3.9"]["ExecutionContextAllocationStrategy"]


def test_the_list_knows_what_is_missing_somewhere() -> None:
    """The check above can fail: these names do exist, but not everywhere."""
    assert "set_compute_capability" in NAMES["tensorrt-rtx-1.7.1.116"]["IBuilderConfig"]
    assert "set_compute_capability" not in NAMES["tensorrt-11.4.0.106"]["IBuilderConfig"]
    assert "FP16" in NAMES["tensorrt-10.13.3.9"]["BuilderFlag"]
    assert "FP16" not in NAMES["tensorrt-11.4.0.106"]["BuilderFlag"]


def test_the_list_is_what_the_installed_library_has(rtx: Flavour) -> None:
    for kind, names in NAMES[f"tensorrt-rtx-{rtx.version}"].items():
        assert {name for name in names if not hasattr(getattr(rtx.trt, kind), name)} == set()


def test_only_the_flavour_folder_imports_a_library() -> None:
    files = [file for file in sorted(ENGINE.rglob("*.py")) if file.parent.name != "flavour"]
    assert len(files) > 30
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported.append(node.module or "")
            assert not {"tensorrt", "tensorrt_rtx"} & {name.partition(".")[0] for name in imported}, file.name
