"""LoRAs that are swapped in: whole pictures, by every road that a bundle with branches runs on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from simulated_tensorrt import add_plans
from simulation import COVERAGE

from kontext_trt import Bundle, BundleError, ExecutorError, GpuMemoryError, Kontext, LoraError, OptionError, Session
from kontext_trt.benchmarks.quality.metrics import sqnr_db
from kontext_trt.engine.components import Operators, Precision
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.fuse_lora import fuse_lora
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle
from kontext_trt.runtime.flow import kept
from kontext_trt.runtime.flow.kept import kept_bytes
from kontext_trt.runtime.operators.catalogue import DOMAIN
from kontext_trt.runtime.operators.functions import foreign_functions

MakePicture = Callable[..., Image.Image]
Branched = Callable[..., Bundle]
LoraFile = Callable[[int], Path]
FORMS = (Operators.SINGLE, Operators.FUSED)


def latents(kontext: Kontext, picture: MakePicture | None = None, **request) -> np.ndarray:
    """Of an edit, or a small picture from text."""
    if picture is not None:
        asked = {"steps": 2, "seed": 1, "size": (144, 112)} | request
        return kontext.edit(picture(128, 128), "make it blue", **asked).outputs[0].latents
    return kontext.generate("x", **({"steps": 2, "seed": 1, "size": (48, 80)} | request)).outputs[0].latents


@pytest.mark.parametrize("form", FORMS)
def test_with_none_set_the_pictures_are_the_bases(
    branched_bundle: Branched, bundle_path: Path, fused_path: Path, form: Operators
):
    plain = fused_path if form is Operators.FUSED else bundle_path
    with Kontext.open(plain) as base, Kontext.open(branched_bundle(form)) as kontext:
        assert kontext.loras == ()
        np.testing.assert_allclose(latents(kontext), latents(base), atol=1e-6)


@pytest.mark.parametrize("form", [Operators.SINGLE, pytest.param(Operators.FUSED, marks=pytest.mark.check)])
def test_one_after_the_other_is_that_one_again(branched_bundle: Branched, lora_file: LoraFile, form: Operators):
    with Kontext.open(branched_bundle(form)) as kontext:
        none = latents(kontext)
        made = []
        for seed in (1, 2, 1):
            kontext.set_lora([lora_file(seed)])
            made.append(latents(kontext))
        kontext.set_lora([])
        assert np.array_equal(made[0], made[2])
        assert np.abs(made[0] - made[1]).max() > 1e-2
        assert np.abs(made[0] - none).max() > 1e-2
        assert np.array_equal(latents(kontext), none)


@pytest.mark.parametrize("form", FORMS)
def test_swapped_is_what_fused_weights_give(
    branched_bundle: Branched, lora_file: LoraFile, fused_by_hand: Bundle, picture: MakePicture, form: Operators
):
    """Two files with scales, on an independent sum in float64."""
    with Kontext.open(fused_by_hand) as other, Kontext.open(branched_bundle(form)) as kontext:
        kontext.set_lora([(lora_file(1), 0.5), (lora_file(2), -1.5)])
        made = picture if form is Operators.SINGLE else None
        np.testing.assert_allclose(latents(kontext, made), latents(other, made), atol=1e-4)


@pytest.fixture(scope="module")
def swapped(branched_bundle: Branched) -> Iterator[Kontext]:
    with Kontext.open(branched_bundle()) as opened:
        yield opened


def test_a_request_brings_its_own(swapped: Kontext, lora_file: LoraFile):
    """And the next one that names none has what is set: texts that were encoded before serve both."""
    swapped.set_lora([(lora_file(1), 0.5)])
    first = latents(swapped)
    other = latents(swapped, loras=[lora_file(2)])
    none = latents(swapped, loras=[])
    assert np.array_equal(latents(swapped), first)
    swapped.forget()
    assert np.array_equal(latents(swapped, loras=[lora_file(2)]), other)
    swapped.set_lora([])
    assert np.array_equal(latents(swapped), none)
    assert not np.array_equal(other, none)


def test_without_the_hosts_memory_for_them_the_error_says_so(
    branched_bundle: Branched, monkeypatch: pytest.MonkeyPatch
):
    def full(spec: object) -> None:
        raise MemoryError

    monkeypatch.setattr(kept, "_zeros", full)
    with pytest.raises(ExecutorError, match=r"matrices of the LoRAs of .* take .*B, .* with a lower --lora-rank"):
        Kontext.open(branched_bundle())


def test_what_cannot_be_set_leaves_what_was(swapped: Kontext, lora_file: LoraFile, tmp_path: Path):
    swapped.set_lora([(lora_file(1), 0.5)])
    before = swapped.loras
    with pytest.raises(LoraError, match="cannot be read"):
        swapped.set_lora([lora_file(2), tmp_path / "none.safetensors"])
    with pytest.raises(OptionError, match="LoRAs are given as a list"):
        swapped.set_lora(str(lora_file(2)))
    assert [(one.name, one.scale) for one in swapped.loras] == [(lora_file(1).name, 0.5)]
    assert swapped.loras is before
    swapped.set_lora([])


def test_a_batch_is_as_one_by_one(swapped: Kontext, lora_file: LoraFile):
    asked = {"steps": 1, "size": (48, 80), "loras": [(lora_file(1), 0.8)]}
    together = swapped.generate(["x", "a fox"], seed=[1, 2], **asked)
    for output in together.outputs:
        alone = swapped.generate(output.prompt, seed=output.seed, **asked)
        np.testing.assert_allclose(alone.outputs[0].latents, output.latents, atol=1e-5)


def test_metadata_names_files_and_scales(swapped: Kontext, lora_file: LoraFile, tmp_path: Path):
    digest = hashlib.sha256(lora_file(1).read_bytes()).hexdigest()
    expected = [{"name": lora_file(1).name, "sha256": digest, "scale": 0.8}]
    result = swapped.generate("x", steps=1, seed=1, size=(48, 80), loras=[(lora_file(1), 0.8)])
    (file,) = result.save(tmp_path / "out.png")
    assert json.loads(Image.open(file).text["kontext-trt"])["loras"] == expected
    plain = swapped.generate("x", steps=1, seed=1, size=(48, 80))
    assert "loras" not in plain.request(plain.outputs[0])


def test_a_sessions_turns_say_what_was_set(swapped: Kontext, lora_file: LoraFile, picture: MakePicture, tmp_path: Path):
    """Each turn by itself; what was saved comes back bit for bit."""
    asked = {"steps": 1, "seed": 1}
    with Session(swapped, picture(128, 128)) as session:
        session.edit("a", loras=[(lora_file(1), 0.8)], **asked)
        session.edit("b", **asked)
        session.edit("c", loras=[lora_file(2)], **asked)
        saved = session.save(tmp_path / "edits.session")
        with Session.open(swapped, saved) as again:
            for one, other in zip(session.history, again.history, strict=True):
                assert dict(one.request) == dict(other.request)
                assert np.array_equal(np.asarray(one.picture()), np.asarray(other.picture()))
                assert np.array_equal(one.latents, other.latents)
            scales = [[lora["scale"] for lora in turn.request.get("loras", [])] for turn in again.history]
            assert scales == [[0.8], [], [1.0]]


def test_requests_under_way_keep_what_they_began_with(swapped: Kontext, lora_file: LoraFile):
    """One is swapped in between two steps of another thread's request, which does not wait for it."""
    swapped.set_lora([lora_file(1)])
    first = latents(swapped, steps=3)
    second = latents(swapped, steps=3, loras=[lora_file(2)])

    def swap(done: int, of: int) -> None:
        thread = threading.Thread(target=swapped.set_lora, args=([lora_file(2)],))
        thread.start()
        thread.join(timeout=30)
        assert not thread.is_alive()

    assert np.array_equal(latents(swapped, steps=3, on_step=swap), first)
    assert np.array_equal(latents(swapped, steps=3), second)
    swapped.set_lora([])


def test_many_threads_get_each_its_own(swapped: Kontext, lora_file: LoraFile):
    wanted = {seed: latents(swapped, loras=[lora_file(seed)]) for seed in (1, 2)}
    found: list[tuple[int, np.ndarray]] = []

    def ask(seed: int) -> None:
        found.append((seed, latents(swapped, loras=[lora_file(seed)])))

    threads = [threading.Thread(target=ask, args=(1 + number % 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(made, wanted[seed]) for seed, made in found)


def test_graphs_stay_on_a_device(simulate, branched_bundle: Branched, lora_file: LoraFile, tmp_path: Path):
    """A swap copies the matrices, and nothing more: recorded graphs are launched, and give the other picture."""
    bundle = Bundle.open(shutil.copytree(branched_bundle().path, tmp_path / "planned"))
    add_plans(bundle, COVERAGE)
    simulation = simulate(bundle=Bundle.open(bundle.path))
    kontext, cuda = simulation.kontext, simulation.cuda
    none = [simulation.latents() for _ in range(3)][-1]
    assert simulation.executor.held_bytes["buffers"] > kept_bytes(bundle)
    recorded, opened = cuda.calls["end_capture"], list(simulation.library.opened)
    made = []
    for seed in (1, 2, 1):
        before = cuda.calls["copy"]
        kontext.set_lora([lora_file(seed)])
        assert cuda.calls["copy"] == before, "what is running is left alone"
        made.append(simulation.latents())
    assert made[0] == made[2] != made[1]
    assert made[0] != none
    kontext.set_lora([])
    assert simulation.latents() == none
    assert cuda.calls["end_capture"] == recorded > 0
    assert simulation.library.opened == opened
    with Kontext.open(branched_bundle()) as host:
        asked = {"seed": 1, "steps": 3, "size": (48, 80), "loras": [lora_file(1)]}
        np.testing.assert_allclose(host.generate("x", **asked).outputs[0].latents, made[0][0], atol=1e-5)


def test_without_memory_for_them_the_error_says_so(
    simulate, branched_bundle: Branched, lora_file: LoraFile, tmp_path: Path
):
    """And the next request has what it asked for."""
    bundle = Bundle.open(shutil.copytree(branched_bundle().path, tmp_path / "planned"))
    add_plans(bundle, COVERAGE)
    simulation = simulate(bundle=Bundle.open(bundle.path))
    simulation.kontext.set_lora([lora_file(1)])
    simulation.cuda.fail("malloc")
    with pytest.raises(GpuMemoryError):
        simulation.latents()
    again = simulation.latents()
    assert again == simulation.latents()
    simulation.kontext.set_lora([])
    assert simulation.latents() != again


@pytest.mark.check  # of fused operators in FP8 there is one below
@pytest.mark.parametrize("recipe", ["fp8", "nvfp4-svd"])
def test_quantized_it_is_emulated(
    branched_bundle: Branched,
    calibration,
    lora_file: LoraFile,
    fused_by_hand: Bundle,
    tmp_path: Path,
    recipe: str,
):
    """The branch is not quantized: what the LoRAs change is as near to the truth as the base's picture is."""
    quantized = quantize_bundle(branched_bundle(), tmp_path / "quantized", make_recipe(recipe), calibration)
    assert quantized.manifest.branches == branched_bundle().manifest.branches
    pairs = [(lora_file(1), 0.5), (lora_file(2), -1.5)]
    with Kontext(quantized, TorchExecutor(quantized, TorchDevice.CPU)) as kontext:
        found = latents(kontext, loras=pairs)
        base = latents(kontext)
    with Kontext.open(fused_by_hand) as other, Kontext.open(branched_bundle()) as plain:
        near = sqnr_db(latents(plain), base)
        assert sqnr_db(latents(other), found) > near - 6
        assert sqnr_db(latents(other), base) < near - 6


def test_fused_operators_in_fp8_compute_what_is_emulated(
    branched_bundle: Branched, calibration, lora_file: LoraFile, tmp_path: Path
):
    """The branch reads what is rounded to FP8 for its layer, on both roads; the rest is rounding."""
    bundle = quantize_bundle(branched_bundle(Operators.FUSED), tmp_path / "fp8", make_recipe("fp8"), calibration)
    file = bundle.file(bundle.graph("denoiser").path)
    names = {node.op_type for node in onnx.load(file, load_external_data=False).graph.node if node.domain == DOMAIN}
    assert {name for name in names if "Gelu" in name} == {
        "LinearGelu_branched_fp8_to_fp8", "AttendBesideGelu_branched_fp8_to_fp8"
    }  # fmt: skip
    assert foreign_functions(file.read_bytes(), Precision.FP32) == []
    with Kontext.open(bundle) as kontext, Kontext(bundle, TorchExecutor(bundle, TorchDevice.CPU)) as torch:
        found, wanted = (latents(one, loras=[lora_file(1)]) for one in (torch, kontext))
        assert sqnr_db(wanted, found) > 30
        assert sqnr_db(wanted, latents(torch)) < 20


@pytest.mark.check  # two bundles are written for this alone
def test_a_fused_file_and_a_swapped_one_go_together(
    branched_bundle: Branched, lora_file: LoraFile, fused_by_hand: Bundle, tmp_path: Path
):
    fused = fuse_lora(branched_bundle(), tmp_path / "fused", [(lora_file(1), 0.5)])
    assert fused.manifest.branches == branched_bundle().manifest.branches
    with Kontext.open(fused) as kontext, Kontext.open(fused_by_hand) as other:
        kontext.set_lora([(lora_file(2), -1.5)])
        np.testing.assert_allclose(latents(kontext), latents(other), atol=1e-4)
        result = kontext.generate("x", steps=1, size=(48, 80))
        said = result.request(result.outputs[0])
        assert [one["name"] for one in said["fused_loras"]] == [lora_file(1).name]
        assert [one["name"] for one in said["loras"]] == [lora_file(2).name]


def test_what_is_emulated_is_what_the_graph_computes(branched_bundle: Branched, lora_file: LoraFile):
    bundle = branched_bundle()
    with Kontext.open(bundle) as kontext, Kontext(bundle, TorchExecutor(bundle, TorchDevice.CPU)) as torch:
        for loras in ([], [(lora_file(1), 0.7)]):
            found, wanted = (latents(one, loras=loras) for one in (torch, kontext))
            np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("forged", [{"rank": 8, "layers": None}, None], ids=["another rank", "none at all"])
def test_branches_that_the_graphs_do_not_have(branched_bundle: Branched, forged: dict | None, tmp_path: Path):
    path = Path(shutil.copytree(branched_bundle().path, tmp_path / "forged", copy_function=os.link)) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["branches"] = None if forged is None else {**forged, "layers": manifest["branches"]["layers"]}
    path.unlink()
    path.write_text(json.dumps(manifest))
    with (
        Kontext.open(path.parent) as kontext,
        pytest.raises(BundleError, match=r"is not as its manifest says: .*lora_(down|up)_.*do not use this bundle"),
    ):
        kontext.load()
