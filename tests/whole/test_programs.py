"""Benchmarks as programs: wrong arguments are answered in words, and before anything heavy is imported."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command_line import environment, server
from fork_server import RUNNING

from kontext_trt.benchmarks.costs import opening_cost

ROOT = Path(opening_cost.__file__).parents[2]
BENCH, COSTS, FIXTURES = (f"benchmarks.{room}" for room in ("bench", "costs", "fixtures"))
SMALL = "examples.small_kontext"
RUN = (
    "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
WRONG = {
    f"{FIXTURES}.bare_bundle": [
        ([], "required: command"),
        (["strip"], "required: bundle, bare"),
        (["strip", "{bundle}", "{bundle}"], "exists; choose another name for the bare bundle"),
        (["fil", "nope"], "invalid choice: 'fil'"),
    ],
    f"{BENCH}.ceilings": [
        ([], "required: result"),
        (["{folder}"], "cannot be written; name a file in a folder that"),
    ],
    f"{BENCH}.devices_child": [([], "required: job"), (["nope"], "it is no job of devices_table: JSON is malformed")],
    f"{BENCH}.devices_table": [
        (["nope"], "required: --out"),
        (["nope", "--out", "{folder}/x"], "bundle nope does not exist"),
        (["{bundle}", "--out", "{folder}/x", "--devices", "2"], "the first number of devices is 1"),
        (["{bundle}", "--out", "{folder}/x", "--devices", "1;2"], "'1;2' is not a list of numbers, such as 1,2,4"),
        (["{bundle}", "--out", "{folder}/x", "--predict", "2,1"], "--predict counts from 2"),
        (["{bundle}", "--out", "{folder}/x", "--devices", "1,5"], "heads cannot be shared by 5 devices"),
    ],
    f"{BENCH}.full_size": [(["run", "nope", "--out", "x"], "nope has no bundle; make it with: full_size prepare nope")],
    f"{BENCH}.peer_process": [
        ([], "required: request, result"),
        (["nope", "{folder}/result"], "No such file or directory: 'nope'"),
        (["{bundle}/networks.json", "{folder}/result"], "is not a request to a peer"),
    ],
    f"{BENCH}.roofline": [
        (["nope"], "bundle nope does not exist"),
        (["nope", "--batch", "0"], "'0' is not a whole number of at least 1"),
        (["{bundle}", "--size", "big"], "a size is WIDTHxHEIGHT"),
    ],
    f"{BENCH}.sizes_table": [
        ([], "required: BUNDLE"),
        (["nope"], "bundle nope does not exist"),
        (["nope", "--steps", "0"], "'0' is not a whole number of at least 1"),
    ],
    f"{BENCH}.unpruned": [
        (["nope", "target"], "bundle nope does not exist"),
        (["{bundle}", "{bundle}"], "exists; choose another name for the bundle"),
    ],
    f"{COSTS}.budget_table": [
        (["--check", "x"], "blocks are DOUBLE+SINGLE, one of each at least, such as 19+38, not 'x'"),
        (["--budget", "much"], "much"),
    ],
    f"{COSTS}.build_cost": [
        (["--blocks", "x"], "blocks are DOUBLE+SINGLE, one of each at least, such as 19+38, not 'x'")
    ],
    f"{COSTS}.device_memory": [(["nope"], "bundle nope does not exist")],
    f"{COSTS}.export_cost": [
        (["--blocks", "2"], "expected 2 arguments"),
        (["--blocks", "0", "1"], "'0' is not a whole number"),
    ],
    f"{COSTS}.lora_plan_cost": [(["--rank", "0"], "'0' is not a whole number of at least 1")],
    f"{COSTS}.lora_swap_cost": [(["--rank", "x"], "'x' is not a whole number of at least 1")],
    f"{COSTS}.lora_cost": [
        (["--blocks", "2"], "expected 2 arguments"),
        (["--rank", "0"], "'0' is not a whole number of at least 1"),
    ],
    f"{COSTS}.preview_cost": [
        (["nope"], "bundle nope does not exist"),
        (["nope", "--steps", "0"], "'0' is not a whole number"),
    ],
    f"{COSTS}.serving_cost": [(["nope"], "bundle nope does not exist"), ([], "required: bundle")],
    f"{COSTS}.nvfp4_cost": [(["--size", "1"], "unrecognized arguments: --size 1")],
    f"{COSTS}.opening_cost": [(["--repeat", "0"], "'0' is not a whole number of at least 1")],
    f"{COSTS}.quantized_cost": [
        (["--blocks", "1+0"], "blocks are DOUBLE+SINGLE"),
        (["--recipe", "nope"], "invalid choice: 'nope'"),
    ],
    "benchmarks.quality.attention_rounding": [
        (["nope"], "bundle nope does not exist"),
        (["nope", "--steps", "0"], "'0' is not a whole number of at least 1"),
    ],
    "benchmarks.quality.nibble_evidence": [([], "required: MODEL.onnx")],
    "benchmarks.quality.precision_table": [
        (["nope"], "bundle nope does not exist"),
        (["nope", "--steps", "4;8"], "steps are whole numbers from 1 to 1000 with commas between, not '4;8'"),
        (["nope", "--plot", "x.png"], "a plot is of loss over seconds, which are reckoned of a bundle of --full-size"),
        (["nope", "--gpu", "RTX 1"], "the GPU is one of RTX 5090, H200, whose data sheets are known here, not 'RTX 1'"),
    ],
    "benchmarks.quality.step_table": [
        (["nope"], "bundle nope does not exist"),
        (["nope", "--steps", "4;8"], "steps are whole numbers from 1 to 1000 with commas between, not '4;8'"),
    ],
    f"{SMALL}.calibration": [([], "required: folder")],
    "examples.first_hour.__main__": [(["--nope"], "unrecognized arguments: --nope")],
    f"{FIXTURES}.nvfp4_checkpoint": [([], "required: file, small")],
    f"{FIXTURES}.sparse_checkpoint": [([], "required: folder")],
    f"{FIXTURES}.tiny_bundles": [([], "required: folder")],
}
HEAVY = {
    "examples.first_hour.comfyui_tree",
    f"{SMALL}.assemble",
    f"{SMALL}.disassemble",
    f"{SMALL}.train",
    f"{SMALL}.train_lora",
    f"{SMALL}.tune_decoder",
}
"""Those that are torch from end to end."""


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return server(RUNNING).run(RUN, [f"kontext_trt.{module}", *arguments], environment())


def test_every_program_is_tried():
    programs = [
        file
        for folder in ("benchmarks", "examples")
        for file in (ROOT / folder).rglob("*.py")
        if file.parent != ROOT / "examples"  # scripts to read, which tests/whole/test_examples.py runs
        if '__name__ == "__main__"' in file.read_text()
    ]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in programs}
    assert names == set(WRONG) | HEAVY
    for file in programs:
        assert "    run_main(" in file.read_text(), f"{file} lets its errors through"


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [(module, arguments, words) for module, cases in WRONG.items() for arguments, words in cases],
)
def test_wrong_arguments_are_answered_in_words(
    module: str, arguments: list[str], words: str, bundle_path: Path, tmp_path: Path
):
    given = [argument.format(bundle=bundle_path, folder=tmp_path) for argument in arguments]
    done = run_module(module, *given)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["nothing", "manifest alone"])
def test_only_a_bare_bundle_is_filled(what: str, bundle_path: Path, tmp_path: Path):
    if what == "manifest alone":
        (tmp_path / "manifest.json").write_bytes((bundle_path / "manifest.json").read_bytes())
    done = run_module(f"{FIXTURES}.bare_bundle", "fill", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} is not a bare bundle: it has no ")
    assert len(done.stderr.splitlines()) == 1


def test_help_has_no_errors():
    assert "strip" in run_module(f"{FIXTURES}.bare_bundle", "--help").stdout
