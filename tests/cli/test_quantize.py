"""The commands, as a person types them. One subprocess goes the whole road; the others look into its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from once_per_run import OncePerRun
from typer.testing import CliRunner

from kontext_trt.cli.app import app
from kontext_trt.engine.errors import KontextError
from kontext_trt.export.quantize.calibration import Calibration


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def road(
    checkpoint_path: Path, samples: Path, once_per_run: OncePerRun, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    """`export --precision fp8`, of a checkpoint, with samples."""
    folder = tmp_path_factory.mktemp("road")
    command = ("export", checkpoint_path, folder / "fp8", "--precision", "fp8", "--calibration", samples, "--json")
    keep = ("--keep", "single_transformer_blocks.1.*", "--steps", "1", "--device", "cpu")
    return folder, json.loads(run(*command, *keep, graphs=once_per_run).stdout)


@pytest.mark.check  # everything is traced for it
def test_export_goes_the_whole_road(road: tuple[Path, dict]) -> None:
    folder, report = road
    quantization = report["graphs"]["denoiser"]["quantization"]
    assert quantization["recipe"] == "fp8"
    assert quantization["products"] == {"fp8": 34 - 5}
    assert sorted(path.name for path in folder.iterdir()) == ["fp8", "fp8.calibration.json"], "no traces"
    assert len(Calibration.open(folder / "fp8.calibration.json").samples) == 2


def test_calibrations_are_shown_and_compared(road: tuple[Path, dict], calibration: Calibration, tmp_path: Path) -> None:
    file = road[0] / "fp8.calibration.json"
    shown = json.loads(invoke("calibration", "show", file, "--json"))
    assert shown["complete"]
    one = shown["activations"]["transformer_blocks.0.attn.to_q"]
    assert 0 < one["p99"] <= one["p99.9"] <= one["amax"]
    assert "2 samples of 1 step, 0 skipped" in invoke("calibration", "show", file)
    calibration.save(tmp_path / "other.json")
    assert "times" in invoke("calibration", "diff", file, tmp_path / "other.json")
    assert "no range differs" in invoke("calibration", "diff", file, file)


def test_quantize_and_compare(bundle_path: Path, road: tuple[Path, dict], tmp_path: Path) -> None:
    file = road[0] / "fp8.calibration.json"
    text = invoke("quantize", bundle_path, tmp_path / "q", "--recipe", "nvfp4", "--calibration", file, "--t5-fp8")
    assert "denoiser" in text
    assert "34 in nvfp4" in text
    assert "14 in fp8_weights" in text
    arguments = ("--steps", 1, "--size", "48x32", "--no-layers", "--device", "cpu", "-p", "a red fox", "-s", 3)
    shown = invoke("compare", bundle_path, tmp_path / "q", *arguments)
    assert "a red fox (seed 3)" in shown
    assert "single_transformer_blocks.1" in shown
    assert "comparison.json, errors.png and 1 picture side by side" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantize", "BUNDLE", "OUT"], "the recipe fp8 needs the ranges of activations: --calibration FOLDER"),
        (["export", "CHECKPOINT", "OUT", "--precision", "nvfp4"], "the recipe nvfp4 needs the ranges of activations"),
        (["quantize", "BUNDLE", "BUNDLE"], "bundle exists; choose another name, or allow it with --overwrite"),
        (
            ["quantize", "BUNDLE", "OUT", "--calibration", "SAMPLES", "--keep", "x"],
            "--keep denoiser.x matches no layer",
        ),
        (["quantize", "BUNDLE", "OUT", "--calibration", "gone"], "calibration folder gone does not exist"),
        (["export", "CHECKPOINT", "OUT", "--keep", "x"], "go with a --precision that quantizes, such as fp8"),
        (
            ["compare", "BUNDLE", "BUNDLE", "-p", "a", "-p", "b", "-i", "1", "-i", "2", "-i", "3"],
            "3 pictures and 2 prompts",
        ),
        (["compare", "BUNDLE", "BUNDLE", "--executor", "tensorrt"], "--executor is cpu or cuda, not tensorrt"),
        (["compare", "BUNDLE", "BUNDLE", "--executor", "cpu"], "has no fused operators in FP8, so it is only emulated"),
        (["calibration", "show", "gone.json"], "calibration gone.json cannot be read: No such file"),
    ],
)
def test_refusals(bundle_path: Path, checkpoint_path: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (samples := tmp_path / "samples").mkdir()
    (samples / "lines.txt").write_text("make it blue\n")
    places = {"BUNDLE": bundle_path, "CHECKPOINT": checkpoint_path, "OUT": tmp_path / "out", "SAMPLES": samples}
    with pytest.raises(KontextError, match=message):
        invoke(*(places.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "out").exists()
