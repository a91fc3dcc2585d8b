"""Imports run one way, in every folder, and nowhere in a circle."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from imports import PACKAGE, find_circle, module_files, module_imports

ROOT = Path(__file__).parents[2]
FOLDERS = ("engine", "runtime", "export", "serving", "benchmarks", "cli", "examples")
CHAINS: dict[str, tuple[set[str], ...]] = {
    # what stands further on may import what stands before it, and what stands with it
    PACKAGE: (
        {"version"},
        {"engine"},
        {"runtime"},
        {"export"},
        {"serving"},
        {"benchmarks"},
        {"cli"},
        {"examples", "__main__", "__init__"},
    ),
    f"{PACKAGE}.engine": (
        {"growth", "number_types", "ports", "uses"},
        {
            "components",
            "documents",
            "errors",
            "model_dims",
            "printable",
            "sizes",
            "progress",
            "byte_sizes",
            "spelling",
            "system",
        },
        {"tensor_names", "branches"},
        {"bundle"},
        {"lora"},
        {"flavour"},
        {"plans"},
        {"builder"},
        {"__init__"},
    ),
    f"{PACKAGE}.runtime": (
        {"cancelling", "inputs"},
        {"outputs", "flow"},
        {"device"},
        {"operators"},
        {"executors"},
        {"packing"},
        {"admission", "adapters", "filters", "keywords", "runner", "turn"},
        {"carrying", "session_file"},
        {"session"},
        {"kontext"},
        {"folder_records", "folder_report"},
        {"folder"},
        {"__init__"},
    ),
    f"{PACKAGE}.serving": (
        {"environment", "keys", "options", "refusals"},
        {"state"},
        {"bodies", "health", "loras", "metrics", "pictures", "results", "sessions", "tasks", "turns", "work"},
        {"desk"},
        {"fields", "filed_desk", "filed_sessions", "making", "streams"},
        {"service"},
        {"playground"},
        {"guard", "orders"},
        {"images", "reviewing"},
        {"bfl"},
        {"app", "server"},
        {"replica"},
        {"ray_app"},
        {"__init__"},
    ),
    f"{PACKAGE}.export": (
        {"configs", "destination", "environment", "fp4", "options", "records", "torch_types"},
        {"checkpoint"},
        {"demo_folder", "networks"},
        {"graphs"},
        {"machine"},
        {"export", "tiny", "tokenizers"},
        {"emulate"},
        {"quantize"},
        {"checks"},
        {"export_quantized", "fuse_lora"},
        {"demo"},
        {"__init__"},
    ),
}


def room(module: str, folder: str) -> str:
    """What stands in `folder` and is or holds the module; the folder itself is its `__init__`."""
    return "__init__" if module == folder else module.removeprefix(f"{folder}.").partition(".")[0]


def against(imports: dict[str, set[str]], folder: str, chain: tuple[set[str], ...]) -> list[str]:
    """The imports within a folder that run against its chain."""
    rank = {name: position for position, names in enumerate(chain) for name in names}
    inside = {name for name in imports if name == folder or name.startswith(f"{folder}.")}
    return [
        f"{one} imports {other}"
        for one in sorted(inside)
        for other in sorted(imports[one] & inside)
        if rank[room(other, folder)] > rank[room(one, folder)]
    ]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return module_imports(module_files(ROOT, FOLDERS), ROOT)


@pytest.mark.parametrize("folder", CHAINS)
def test_a_chain_names_what_is_there(imports: dict[str, set[str]], folder: str) -> None:
    there = {room(name, folder) for name in imports if name == folder or name.startswith(f"{folder}.")}
    assert there == set().union(*CHAINS[folder])
    assert sum(map(len, CHAINS[folder])) == len(there), "each stands in one place"


@pytest.mark.parametrize("folder", CHAINS)
def test_imports_run_one_way(imports: dict[str, set[str]], folder: str) -> None:
    assert against(imports, folder, CHAINS[folder]) == []


def test_serving_stands_on_the_runtime_alone(imports: dict[str, set[str]]) -> None:
    """An export needs torch, and a server does not."""
    rooms = {
        room(other, PACKAGE) for one, others in imports.items() if room(one, PACKAGE) == "serving" for other in others
    }
    assert rooms == {"serving", "runtime", "engine"}


def test_imports_run_in_no_circle(imports: dict[str, set[str]]) -> None:
    assert sum(map(len, imports.values())) > 500, "they were read"
    assert find_circle(imports) == []


def write(root: Path, **files: str) -> dict[str, set[str]]:
    """The imports of a made-up package; `__` in a name is a folder's border."""
    for name, text in files.items():
        file = root / f"{name.replace('__', '/') if name != '__init__' else name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return module_imports(module_files(root, ("engine", "runtime")), root)


def test_a_circle_is_found(tmp_path: Path) -> None:
    """Through a function, a folder above and a name that is no module's."""
    found = write(
        tmp_path,
        engine__plans="def late():\n    from .builds import build\n",
        engine__builds="from ..runtime import kontext\n",
        runtime__kontext="if TYPE_CHECKING:\n    from ..engine.plans import Plan\n",
        version="",
    )
    circle = find_circle(found)
    assert circle[0] == circle[-1]
    assert set(circle) == {f"{PACKAGE}.{name}" for name in ("engine.plans", "engine.builds", "runtime.kontext")}
    assert all(other in found[one] for one, other in pairwise(circle))
    assert against(found, PACKAGE, ({"version"}, {"engine"}, {"runtime"})) == [
        f"{PACKAGE}.engine.builds imports {PACKAGE}.runtime.kontext"
    ]


def test_the_roots_names_are_the_roots(tmp_path: Path) -> None:
    found = write(tmp_path, __init__="from .engine.plans import Plan\n", engine__plans="from .. import __version__\n")
    assert find_circle(found)[1:] in ([PACKAGE, f"{PACKAGE}.engine.plans"], [f"{PACKAGE}.engine.plans", PACKAGE])
    chain = ({"engine"}, {"__init__"})
    assert against(found, PACKAGE, chain) == [f"{PACKAGE}.engine.plans imports {PACKAGE}"]
    (tmp_path / "engine/plans.py").write_text("from ..version import __version__\n")
    assert find_circle(write(tmp_path, version="")) == []
