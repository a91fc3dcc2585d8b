"""The small Kontext in the repository: its files, the same picture from diffusers, the commands that use it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from diffusers import FluxKontextPipeline
from once_per_run import OncePerRun
from PIL import Image
from safetensors import safe_open

from kontext_trt import Bundle, Kontext
from kontext_trt.benchmarks.quality.editbench.cases import KINDS, cases
from kontext_trt.benchmarks.quality.editbench.drift import measure_drift
from kontext_trt.benchmarks.quality.editbench.evaluation import answer
from kontext_trt.benchmarks.quality.editbench.samples import EditSample, draw_sample
from kontext_trt.benchmarks.quality.editbench.scoring import decibels, score, squared_error
from kontext_trt.engine.components import Precision
from kontext_trt.export.emulate.torch_executor import TorchExecutor

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "examples/small_kontext/checkpoint"
BEFORE = ROOT / "docs/small-kontext/before.png"
PROMPT = "turn the orange hexagon black"
STEPS = 6
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def small(small_demo: Path) -> Iterator[Kontext]:
    with Kontext.open(small_demo / "bundle") as opened:
        yield opened


@pytest.fixture(scope="module")
def small_pipeline() -> FluxKontextPipeline:
    opened = FluxKontextPipeline.from_pretrained(CHECKPOINT, dtype=torch.float32)
    opened.set_progress_bar_config(disable=True)
    return opened


def diffusers_picture(pipeline: FluxKontextPipeline, reference: np.ndarray | None, prompt: str) -> np.ndarray:
    """(128, 128, 3) in 0..1, float32."""
    return pipeline(
        image=None if reference is None else Image.fromarray(reference),
        prompt=prompt,
        width=128,
        height=128,
        max_area=128 * 128,
        num_inference_steps=STEPS,
        guidance_scale=2.5,
        max_sequence_length=pipeline.tokenizer_2.model_max_length,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="np",
        _auto_resize=False,
    ).images[0]


def our_picture(kontext: Kontext, sample: EditSample) -> np.ndarray:
    """(128, 128, 3) in 0..255, float32, of the same request."""
    reference = sample.reference()
    options = {"seed": 3, "steps": STEPS, "guidance": 2.5, "size": (128, 128)}
    result = (
        kontext.generate(sample.instruction, **options)
        if reference is None
        else kontext.edit(reference, sample.instruction, **options)
    )
    return np.asarray(result.image, np.float32)


def test_files_are_small_and_bfloat16():
    sizes = {file: file.stat().st_size for file in CHECKPOINT.rglob("*") if file.is_file()}
    assert sum(sizes.values()) <= 24 * MEGABYTE
    assert max(sizes.values()) <= 16 * MEGABYTE
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        (file,) = (CHECKPOINT / part).glob("*.safetensors")
        with safe_open(file, "pt") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118


@pytest.mark.check  # tracing it takes a minute
@pytest.mark.parametrize("task", ["background", "recolour", "text to image"])
def test_diffusers_makes_the_same_picture(small: Kontext, small_pipeline: FluxKontextPipeline, task: str):
    """In float32, to 1e-4 of full scale before our picture is rounded to 8 bits."""
    sample = draw_sample(1, held_out=True, task=task, size=(128, 128))
    theirs = diffusers_picture(small_pipeline, sample.reference(), sample.instruction)
    assert theirs.std() > 0.02
    assert np.abs(our_picture(small, sample) - 255 * theirs).max() <= 0.5 + 255 * 1e-4


@pytest.fixture(scope="module")
def bfloat16(once_per_run: OncePerRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kontext]:
    """A bundle in the type that the checkpoint is stored in. ONNX Runtime has no bfloat16 on CPUs; torch has."""
    path = tmp_path_factory.mktemp("small") / "bfloat16"
    run("export", CHECKPOINT, path, graphs=once_per_run)
    bundle = Bundle.open(path)
    assert {graph.precision for graph in bundle.manifest.graphs.values()} == {Precision.BF16}
    with Kontext(bundle, TorchExecutor(bundle)) as opened:
        yield opened


@pytest.fixture(scope="module")
def half_pipeline() -> FluxKontextPipeline:
    opened = FluxKontextPipeline.from_pretrained(CHECKPOINT, dtype=torch.bfloat16)
    opened.set_progress_bar_config(disable=True)
    return opened


@pytest.mark.parametrize(
    ("seed", "task"),
    [
        (0, "background"),
        (1, "recolour"),
        (2, "move"),
        (3, "text to image"),
    ],
)
@pytest.mark.check  # tracing it takes a minute and a half, and a CPU without bfloat16 half a minute per picture
def test_bfloat16_makes_the_same_picture_to_45_db(
    bfloat16: Kontext, small_pipeline: FluxKontextPipeline, half_pipeline: FluxKontextPipeline, seed: int, task: str
):
    """Our bundle in bfloat16 beside diffusers in bfloat16, and beside diffusers in float32."""
    sample = draw_sample(seed, held_out=True, task=task, size=(128, 128))
    ours = our_picture(bfloat16, sample)
    for pipeline in (half_pipeline, small_pipeline):
        theirs = 255 * diffusers_picture(pipeline, sample.reference(), sample.instruction)
        assert decibels(float(np.square(ours - theirs).mean())) >= 45


@pytest.mark.check
def test_demo_edits_what_it_was_asked_to(small_demo: Path):
    """The hexagon, bottom right, is black; everything else is what it was."""
    with Image.open(BEFORE) as before, Image.open(small_demo / "edited.png") as after:
        old, new = np.asarray(before.convert("RGB")), np.asarray(after)
    stays = np.ones(old.shape[:2], bool)
    stays[85:128, 85:128] = False
    assert np.abs(new[99:115, 99:115].astype(int) - (24, 24, 24)).max() < 60
    assert decibels(squared_error(new, old, stays)) > 30


@pytest.mark.check  # twelve answers, and two pictures edited twice on both roads
def test_evaluate_a_dozen(small_demo: Path, tmp_path: Path):
    asked = ("--count", 12, "--steps", 8, "--sessions", 2, "--turns", 2)
    done = run("evaluate", small_demo / "bundle", "--out", tmp_path, *asked)
    assert all(f"{kind} " in done.stdout for kind in KINDS)
    assert "edits in a row" not in done.stdout, "they come with all the requests"
    report = json.loads((tmp_path / "editbench.json").read_text())
    assert [one["number"] for one in report["answers"]] == list(range(12))
    assert report["rows"][0]["number"] == 12
    assert report["rows"][0]["success"] == sum(one["score"]["success"] for one in report["answers"]) / 12
    assert report["rows"][0]["outside_db"] > 20
    assert report["turns"] == []
    assert report["drift"]["sessions"] == 2
    assert [len(road["turns"]) for road in report["drift"]["roads"]] == [2, 2]
    assert "carried as latents, untouched pixels lose" in done.stdout
    with Image.open(tmp_path / "editbench.png") as sheet:
        assert sheet.width > 1400
    assert (tmp_path / "failures.png").exists() is (report["rows"][0]["success"] < 1)
    with Image.open(tmp_path / "sessions.png") as sheet:
        assert sheet.width > 3 * 160


@pytest.mark.check
def test_emulation_gives_the_same_answers(small_demo: Path, tmp_path: Path):
    """Torch on a bundle that is not quantized: what `--emulate` adds is rounding alone."""
    bundle = small_demo / "bundle"
    options = ("--count", 2, "--steps", 1, "--json")
    one, other = (
        json.loads(run("evaluate", bundle, "--out", tmp_path, *options, *more).stdout) for more in ((), ("--emulate",))
    )
    assert (one["executor"], other["executor"]) == ("onnxruntime (cpu)", "torch (cpu)")
    for mine, yours in zip(one["answers"], other["answers"], strict=True):
        assert mine["score"]["inside"] == pytest.approx(yours["score"]["inside"], rel=0.01)
    refused = run("evaluate", bundle, "--emulate", "--executor", "cpu", code=1)
    assert "--emulate computes with torch; leave out --executor cpu" in refused.stderr


@pytest.mark.check
def test_backgrounds_are_changed(small: Kontext):
    """Most of the first eight; chance would give none."""
    chosen = [case.sample for case in cases() if case.sample.task == "background"][:8]
    right = [score(sample, answer(small, sample, sample.reference(), 0, 8)).success for sample in chosen]
    assert sum(right) >= 3


@pytest.mark.check
def test_latents_that_are_carried_do_not_wear_a_picture_out(small: Kontext):
    """Over twelve edits in a row, beside the same through pixels."""
    latents, pixels = measure_drift(small, sessions=4, turns=12, steps=12).roads
    assert latents.lost_db <= 1
    assert pixels.lost_db > 4
    assert latents.turns[-1].success >= pixels.turns[-1].success


def test_evaluate_refuses_other_models_and_counts(bundle_path: Path, tmp_path: Path):
    refused = run("evaluate", bundle_path, "--out", tmp_path / "out", code=1)
    assert "EditBench needs a bundle of the small Kontext, trained at 96x160" in refused.stderr
    assert "this bundle's model was trained at 96x192" in refused.stderr
    assert "kontext-trt export" in refused.stderr
    refused = run("evaluate", bundle_path, "--out", tmp_path / "out", "--count", 0, code=1)
    assert "error: --count must be 1 to 200, not 0" in refused.stderr
    refused = run("evaluate", bundle_path, "--out", tmp_path / "out", "--sessions", -1, code=1)
    assert "error: --sessions must be 0 to 1000 and --turns 1 to 100, not -1 and 6" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_evaluating_needs_no_torch():
    code = (
        "import sys\nfrom kontext_trt.benchmarks.quality.editbench import evaluation\n"
        "from kontext_trt.cli import evaluate\n"
        "assert not {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / ".links")})
