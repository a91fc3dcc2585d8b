"""Commands that need torch refuse what cannot be done before they import it, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import LINKS

HEAVY = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "modelopt", "tensorrt", "tensorrt_rtx", "matplotlib")
CHILD = """
import json, sys
from typer.testing import CliRunner
from kontext_trt.cli.app import app
for line in sys.stdin:
    done = CliRunner().invoke(app, json.loads(line))
    heavy = [name for name in HEAVY if name in sys.modules]
    sys.__stdout__.write(json.dumps([str(done.exception), heavy]) + "\\n")
"""
CASES: tuple[tuple[str, str], ...] = (
    ("export gone OUT", "checkpoint gone does not exist; on the hub it would be named OWNER/NAME"),
    ("export CHECKPOINT BUNDLE", "exists; choose another name, or allow it with --overwrite"),
    ("export CHECKPOINT FOLDER --overwrite", "exists and is not a bundle; it will not be overwritten"),
    ("export CHECKPOINT OUT --vae gone", "gone does not exist; on the hub it would be named"),
    ("export FOLDER/junk.safetensors OUT", "junk.safetensors"),
    ("export CHECKPOINT OUT --lora gone.safetensors", "gone.safetensors"),
    ("export CHECKPOINT OUT --lora x:y", "y"),
    ("export CHECKPOINT OUT --lora-rank 100000", "the rank of swapped LoRAs is from 0"),
    ("export CHECKPOINT OUT --keep x", "go with a --precision that quantizes"),
    ("export CHECKPOINT OUT --precision fp8", "needs the ranges of activations: --calibration FOLDER"),
    ("export CHECKPOINT OUT --precision fp8 --calibration gone", "calibration folder gone does not exist"),
    ("export CHECKPOINT OUT --precision fp8 --calibration FOLDER/junk", "junk"),
    ("export CHECKPOINT OUT --operators onnxruntime --precision fp8", "graphs of --operators onnxruntime are not"),
    ("export CHECKPOINT OUT --trust-layout linear-low --reference-weights CHECKPOINT", "not both"),
    ("quantize gone OUT", "gone"),
    ("quantize BUNDLE BUNDLE", "exists; choose another name, or allow it with --overwrite"),
    ("quantize BUNDLE OUT", "needs the ranges of activations: --calibration FOLDER"),
    ("quantize BUNDLE OUT --calibration gone", "calibration folder gone does not exist"),
    ("quantize BUNDLE OUT --percentile 3 --calibration gone", "a percentile from 50 to below 100 is possible"),
    ("calibrate gone FOLDER", "gone"),
    ("calibrate BUNDLE gone", "calibration folder gone does not exist"),
    ("calibrate BUNDLE FOLDER", "should have one .csv or .txt file"),
    ("calibrate BUNDLE SAMPLES --out FOLDER", "cannot be written: "),
    ("calibrate BUNDLE SAMPLES --steps 0", "steps must be a whole number from 1 to 1000, not 0"),
    ("calibrate BUNDLE SAMPLES --limit 0", "a calibration takes at least one sample, not a limit of 0"),
    ("compare gone BUNDLE", "gone"),
    ("compare BUNDLE gone", "gone"),
    ("compare BUNDLE BUNDLE --image gone.png", "picture gone.png cannot be read"),
    ("compare BUNDLE BUNDLE --size 5x5", "size 5x5 is not possible"),
    ("compare BUNDLE BUNDLE --steps 0", "steps must be a whole number from 1 to 1000, not 0"),
    ("compare BUNDLE BUNDLE --executor tensorrt", "--executor is cpu or cuda, not tensorrt"),
    ("lora fuse gone FILE OUT", "gone"),
    ("lora fuse BUNDLE gone.safetensors OUT", "gone.safetensors"),
    ("lora fuse BUNDLE gone.safetensors BUNDLE", "exists; choose another name, or allow it with --overwrite"),
    ("lora fuse BUNDLE gone.safetensors:far OUT", "far"),
    ("lora show gone.safetensors", "gone.safetensors"),
    ("demo BUNDLE", "is a bundle; name a folder that a demo may fill"),
    ("demo OUT --image gone.png", "picture gone.png cannot be read"),
    ("demo OUT --steps 0", "steps must be a whole number from 1 to 1000, not 0"),
    ("demo OUT --checkpoint gone", "checkpoint gone does not exist"),
    ("evaluate gone --emulate", "gone"),
    ("evaluate BUNDLE --emulate", "EditBench needs a bundle of the small Kontext"),
    ("evaluate BUNDLE --count 0", "--count must be 1 to"),
    ("evaluate BUNDLE --out FOLDER/junk", "is a file; the sheets and the report need a folder"),
    ("schedule gone OUT --requests SAMPLES", "gone"),
    ("schedule BUNDLE OUT --requests gone", "calibration folder gone does not exist"),
    ("schedule BUNDLE FOLDER --requests SAMPLES", "cannot be written: "),
    ("bench gone", "gone"),
    ("bench BUNDLE --repeat 0", "at least one picture a request and one warm request"),
    ("bench BUNDLE --image gone.png", "picture gone.png cannot be read"),
    ("bench BUNDLE --steps 0", "steps must be a whole number from 1 to 1000, not 0"),
    ("bench BUNDLE --out FOLDER/junk", "is a file; the report needs a folder"),
    ("build gone", "gone"),
    ("build BUNDLE --size big", "a size is WIDTHxHEIGHT"),
    ("build BUNDLE --gpu far", "far"),
    ("edit gone -i x.png -p x", "gone"),
    ("edit BUNDLE -i x.png -p x -o x.xyz", "no picture format has the suffix '.xyz'"),
    ("generate gone -p x", "gone"),
    ("session gone -i x.png", "gone"),
    ("serve gone", "gone"),
    ("inspect gone", "gone"),
    ("plans list gone", "gone"),
    ("calibration show gone", "gone"),
    ("calibration show BUNDLE", "is a bundle: see it with kontext-trt inspect. A calibration is a file, BUNDLE.cal"),
    ("calibration show FOLDER", "is a folder. A calibration is a file, BUNDLE.calibration.json, as kontext-trt"),
    ("sign gone --cert gone --key gone", "gone"),
)


@pytest.fixture(scope="module")
def refused(bundle_path: Path, checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a fresh interpreter answers to every line, one after another, and which heavy modules it has by then."""
    folder = tmp_path_factory.mktemp("folder")
    (folder / "junk").write_text("junk")
    (folder / "junk.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    samples = tmp_path_factory.mktemp("samples")
    (samples / "lines.txt").write_text("make it blue\n")
    places = {
        "BUNDLE": bundle_path, "CHECKPOINT": checkpoint_path, "OUT": folder.parent / "out", "FOLDER": folder,
        "SAMPLES": samples, "FILE": folder / "junk.safetensors",
    }  # fmt: skip
    lines = []
    for line, _ in CASES:
        words = []
        for word in line.split():
            name, slash, rest = word.partition("/")
            words.append(f"{places[name]}{slash}{rest}" if name in places else word)
        lines.append(json.dumps(words))
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{CHILD}"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": LINKS, "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (folder.parent / "out").exists()
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[line for line, _ in CASES])
def test_what_cannot_be_done_is_refused_before_anything_heavy_is_imported(refused: list[Any], number: int) -> None:
    said, heavy = refused[number]
    assert CASES[number][1] in said
    earlier = refused[number - 1][1] if number else []
    assert heavy == earlier, "this line imported it"


def test_nothing_heavy_was_imported_at_all(refused: list[Any]) -> None:
    assert refused[-1][1] == []
