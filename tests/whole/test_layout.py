"""The shape of the repository: what is installed, where tests stand, how long files are, what importing costs."""

import inspect
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
from imports import imported

import kontext_trt

ROOT = Path(__file__).parents[2]
CODE = ("engine", "runtime", "export", "serving", "benchmarks", "cli")
HEAVY = ("torch", "diffusers", "transformers", "onnx", "tensorrt", "tensorrt_rtx", "modelopt")


def sources() -> Iterator[Path]:
    yield from sorted(ROOT.glob("*.py"))
    for folder in (*CODE, "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_root_modules_are_few():
    """Every root module lands in the wheel."""
    assert {file.name for file in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "version.py"}


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"kontext_trt"} | {
        ".".join(["kontext_trt", *file.parent.relative_to(ROOT).parts])
        for folder in CODE
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == found


def test_runtime_imports_nothing_heavy():
    for file in (ROOT / "runtime").rglob("*.py"):
        for name, _ in imported(file, ROOT):
            assert name.split(".")[0] not in HEAVY, f"{file} imports {name}"


def test_files_are_short():
    long = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in sources()}
    assert {name: lines for name, lines in long.items() if lines > 300 and not name.startswith("tests/")} == {}


def test_test_files_have_their_modules_names():
    """In the same folders; what crosses them stands in `whole`, what needs a GPU, Ray or LPIPS in one of that name. A
    folder's name is its `__init__`'s."""
    lost = []
    for file in (ROOT / "tests").rglob("test_*.py"):
        folder = file.parent.relative_to(ROOT / "tests")
        module = ROOT / folder / f"{file.stem.removeprefix('test_')}.py"
        package = ROOT / folder / "__init__.py" if folder.name == module.stem else module
        if folder.parts[0] not in ("whole", "gpu", "ray", "lpips") and not module.exists() and not package.exists():
            lost.append(str(file.relative_to(ROOT)))
    assert lost == []


def test_opening_needs_neither_torch_nor_time(bundle_path: Path):
    """A fresh interpreter, so that nothing that another test imported counts; its own time, whatever else runs."""
    code = (
        "import sys, time\nstart = time.process_time()\n"
        f"from kontext_trt import Kontext\nkontext = Kontext.open({str(bundle_path)!r})\n"
        "print(time.process_time() - start)\n"
        f"assert not [name for name in {HEAVY!r} if name in sys.modules]"
    )
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(ROOT / ".links")},
        )
        times.append(float(done.stdout))
    assert min(times) < 1.0, times


def test_a_compiler_imports_nothing_that_makes_pictures():
    """Its process compiles one plan: start-up and memory count for each."""
    code = (
        "import sys\nimport kontext_trt.engine.builder.compile_child\n"
        "from kontext_trt import BuildOptions, Coverage, build_plans\n"
        "found = [name for name in ('PIL', 'tokenizers', 'torch', 'kontext_trt.runtime', 'kontext_trt.export')"
        " if name in sys.modules]\nassert not found, found"
    )
    environment = {"PYTHONPATH": str(ROOT / ".links")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_wheel_holds_the_package_and_runs_outside_the_checkout(tmp_path: Path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    aside = {ROOT / name for name in ("build", "tests", "demo", "examples/small_kontext/checkpoint")}
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda folder, names: [
            name for name in names if name.startswith(".") or name.endswith(".egg-info") or Path(folder, name) in aside
        ],
    )
    assert (source / "examples/small_kontext/train.py").exists(), "it could have come into the wheel"
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    inside = {path.relative_to(target / "kontext_trt") for path in (target / "kontext_trt").rglob("*")}
    assert not [path for path in inside if path.parts[0] in ("examples", "tests", "docs")], "no training code"
    modules = {file.relative_to(target / "kontext_trt") for file in (target / "kontext_trt").rglob("*.py")}
    expected = {file.relative_to(ROOT) for file in sources()} - {
        file.relative_to(ROOT) for file in (ROOT / "tests").rglob("*.py")
    }
    assert modules == expected
    kinds = (".html", ".css", ".js", ".svg")
    playground = {str(file.relative_to(ROOT)) for file in ROOT.glob("serving/playground/*") if file.suffix in kinds}
    assert len(playground) > 10
    assert playground | {"py.typed", "__init__.pyi", "benchmarks/bench/page.html", "export/demo.png"} <= {
        str(file.relative_to(target / "kontext_trt")) for file in (target / "kontext_trt").rglob("*") if file.is_file()
    }
    assert not list(target.rglob("*.safetensors"))  # the small model's weights stay in the repository
    assert wheel.stat().st_size < 1_200_000
    command = [sys.executable, "-m", "kontext_trt", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(target)}, capture_output=True, check=True)
    assert done.stdout.decode().strip() == kontext_trt.__version__


def test_whole_jobs_are_calls():
    from kontext_trt import build_plans, export_bundle, export_quantized, quantize_bundle

    for job in (build_plans, export_bundle, export_quantized, quantize_bundle):
        assert callable(job)
        assert "progress" in inspect.signature(job).parameters


def test_public_names_exist_and_are_documented():
    for name in kontext_trt.__all__:
        assert getattr(kontext_trt, name).__doc__, name


def test_a_public_name_whose_library_is_missing_says_so():
    code = (
        "import sys; sys.modules['onnx_ir'] = None\n"
        "import kontext_trt\n"
        "try:\n    kontext_trt.export_bundle\n"
        "except kontext_trt.MissingDependencyError as error:\n    print(error)"
    )
    environment = {"PYTHONPATH": str(ROOT / ".links")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("kontext_trt.export_bundle needs onnx_ir, which is missing; `kontext-trt doctor`")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = kontext_trt.no_such_name  # pyright: ignore[reportAttributeAccessIssue]


def test_only_the_command_line_imports_what_draws_it():
    folders = [folder for folder in CODE if folder != "cli"]
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]
    assert len(files) > 150
    drawn = {
        file.relative_to(ROOT).as_posix()
        for file in files
        for stem, _ in imported(file, ROOT)
        if stem.partition(".")[0] in ("typer", "rich", "click")
    }
    assert drawn == set()
