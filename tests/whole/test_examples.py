"""The examples: scripts are short and do what they say; the notebook runs, and its outputs are of what it says."""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from command_line import environment
from PIL import Image

import kontext_trt

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS = [EXAMPLES / name for name in ("edit.py", "batch_folder.py", "build_and_benchmark.py")]
NOTEBOOK = EXAMPLES / "first_edit.ipynb"
BEFORE = ROOT / "docs/small-kontext/before.png"
NOTEBOOK_BYTES = 400_000


def main_of(name: str) -> Callable[..., None]:
    return runpy.run_path(str(EXAMPLES / name))["main"]


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def texts(book: Any) -> str:
    """All that cells have printed and returned."""
    outputs = [output for cell in code_cells(book) for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_scripts_are_short_and_import_what_is_public():
    for script in SCRIPTS:
        text = script.read_text()
        assert len(text.splitlines()) < 60
        assert "argparse" not in text
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "kontext_trt":
                assert {name.name for name in node.names} <= set(kontext_trt.__all__)


def test_edit_edits_a_picture(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main_of("edit.py")(str(bundle_path), str(BEFORE), "x", str(tmp_path / "out.png"))
    said = capsys.readouterr().out
    assert "step 28 of 28\n" in said
    assert re.search(r"out\.png: 128x128, seed 0, by onnxruntime \(cpu\): tokenize [\d,]+ ms, ", said)


def test_batch_folder_goes_on(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(BEFORE.read_bytes())
    for status in ("made", "kept"):
        main_of("batch_folder.py")(str(bundle_path), str(photos), "x", str(tmp_path / "out"), "2")
        assert f"{status}  {photos / 'a.png'}: {tmp_path / 'out' / 'a.png'}, seed " in capsys.readouterr().out
    (photos / "b.png").touch()
    with pytest.raises(SystemExit):
        main_of("batch_folder.py")(str(bundle_path), str(photos), "x", str(tmp_path / "out"), "2")
    assert "b.png is empty (0 bytes)" in capsys.readouterr().out


def test_build_and_benchmark_times_nothing_without_a_gpu(bundle_copy: Path, capsys: pytest.CaptureFixture[str]):
    main = main_of("build_and_benchmark.py")
    for how in (r"built in \d+ s", "was there"):
        main(str(bundle_copy), "rtx 5090", "conditioner")
        said = capsys.readouterr().out
        assert re.search(rf"building for rtx 5090\nconditioner for sm_120, .*: [\d.]+ MiB, {how}\n", said)
        assert "There is no GPU on this machine: the plans were compiled and not run, and nothing was timed." in said


@pytest.mark.check
def test_scripts_run_on_the_small_model(small_demo: Path, tmp_path: Path):
    def run(name: str, *arguments: object) -> str:
        words = [sys.executable, str(EXAMPLES / name), str(small_demo / "bundle"), *map(str, arguments)]
        done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
        return done.stdout

    out = tmp_path / "black.png"
    run("edit.py", BEFORE, "turn the orange hexagon black", out)
    with Image.open(out) as answer:
        assert np.abs(np.asarray(answer)[99:115, 99:115].astype(int) - 24).max() < 60, "the hexagon is black"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(BEFORE.read_bytes())
    assert "made  " in run("batch_folder.py", tmp_path / "photos", "make the scene night", tmp_path / "night", 8)
    with Image.open(tmp_path / "night" / "a.png") as answer, Image.open(BEFORE) as before:
        assert np.asarray(answer).mean() < 0.8 * np.asarray(before.convert("RGB")).mean(), "night is darker"


def test_the_notebook_that_is_committed_was_run_from_top_to_bottom():
    book = notebook()
    cells = code_cells(book)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    text = NOTEBOOK.read_text()
    assert len(text) < NOTEBOOK_BYTES
    assert not re.search(r"/(?:tmp|home|work|root)/", text), "no paths of a machine"
    for link in re.findall(r"\]\((\.\.[^)]+)\)", json.dumps([cell.source for cell in book.cells])):
        assert (EXAMPLES / link).exists(), link


def test_the_notebook_imports_what_there_is():
    for cell in code_cells(notebook()):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module == "kontext_trt":
                assert {name.name for name in node.names} <= set(kontext_trt.__all__)


@pytest.mark.check  # two minutes
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    book = notebook()
    before = texts(book)
    nbclient.NotebookClient(book, timeout=900, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    after = texts(book)
    assert "first ['made', 'made', 'made']" in after
    assert "again ['kept', 'kept', 'kept']" in after
    assert "fp8" in after
    for line in (
        "turn the orange hexagon black",
        "denoiser",
        "['turn the orange hexagon black', 'make the scene night']",
    ):
        assert line in before
        assert line in after
    pictures = sum("image/png" in output.get("data", {}) for cell in code_cells(book) for output in cell.outputs)
    assert pictures == 7
