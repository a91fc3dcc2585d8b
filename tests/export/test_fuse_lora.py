"""LoRA files in an export and in a bundle: what is written, what is named, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_files import DOUBLE, MLP, D, low_rank, number, pair, random, wide, write_file
from safetensors.torch import load_file

from kontext_trt import Bundle, ExportError, LoraError
from kontext_trt.engine.bundle.manifest import QuantizationRecord
from kontext_trt.engine.components import Operators, Precision
from kontext_trt.engine.lora.choice import LoraChoice
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.checkpoint.fused import fuse_checkpoint
from kontext_trt.export.emulate.bundle_modules import BundleGraph
from kontext_trt.export.emulate.emulation import QuantizedLinear, emulated_layers
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.fuse_lora import fuse_lora
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

Q, FF = f"{DOUBLE}.0.attn.to_q", f"{DOUBLE}.1.ff.net.0.proj"
TENSORS = {**pair(f"transformer.{Q}", D, 4), **pair(f"transformer.{FF}", MLP, 2), f"transformer.{Q}.alpha": number(8)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "style.safetensors", TENSORS)


def weights(bundle: Bundle, component: str) -> dict[str, torch.Tensor]:
    """Every weight that a graph reads, as its files have it."""
    found: dict[str, torch.Tensor] = {}
    for name in bundle.graph(component).weights:
        found |= load_file(bundle.path / name)
    return found


def test_touched_weights_alone_are_written(bundle: Bundle, file: Path, tmp_path: Path):
    fused = fuse_lora(bundle, tmp_path / "fused", [(file, 0.5)])
    new = [record for record in fused.manifest.weights if record.origin == "fused"]
    assert [record.path for record in new] == ["graphs/weights/transformer.lora.safetensors"]
    made, before = load_file(fused.path / new[0].path), weights(bundle, "denoiser")
    assert set(made) == {f"{Q}.weight", f"{FF}.weight"}
    for layer, scale in ((Q, 2.0), (FF, 1.0)):
        down, up = (TENSORS[f"transformer.{layer}.{one}.weight"] for one in ("lora_A", "lora_B"))
        wanted = low_rank(down, up, scale)(wide(before[f"{layer}.weight"].numpy()), 0.5)
        assert np.linalg.norm(made[f"{layer}.weight"].numpy() - wanted) < 1e-6 * np.linalg.norm(wanted)
    untouched = {record.path for record in bundle.manifest.weights}
    for path in untouched:
        assert (fused.path / path).stat().st_ino == (bundle.path / path).stat().st_ino, "shared, not copied"
    assert fused.verify(whole=True).problems == ()
    assert fused.fingerprint != bundle.fingerprint
    assert Bundle.open(bundle.path).verify().problems == (), "the old bundle stays"


def test_the_manifest_names_files_and_scales(bundle: Bundle, file: Path, tmp_path: Path):
    fused = fuse_lora(bundle, tmp_path / "one", [file])
    again = fuse_lora(fused, tmp_path / "two", [(file, -0.25)])
    assert [(record.name, record.scale) for record in again.manifest.loras] == [
        ("style.safetensors", 1.0),
        ("style.safetensors", -0.25),
    ]
    assert all(len(record.sha256) == 64 for record in again.manifest.loras)
    assert [record.path for record in again.manifest.weights if record.origin == "fused"] != []
    made = weights(again, "denoiser")[f"{Q}.weight"].numpy()
    down, up = (TENSORS[f"transformer.{Q}.{one}.weight"] for one in ("lora_A", "lora_B"))
    wanted = low_rank(down, up, 2.0)(wide(weights(bundle, "denoiser")[f"{Q}.weight"].numpy()), 0.75)
    assert np.linalg.norm(made - wanted) < 2e-6 * np.linalg.norm(wanted)


def test_an_export_gives_what_fusing_into_its_bundle_gives(
    checkpoint_path: Path, bundle: Bundle, file: Path, tmp_path: Path
):
    choice = LoraChoice(path=file, scale=0.5)
    exported = export_bundle(checkpoint_path, tmp_path / "exported", ExportOptions(loras=(choice,)))
    fused = fuse_lora(bundle, tmp_path / "fused", [choice])
    assert exported.manifest.loras == fused.manifest.loras
    ours, theirs = weights(exported, "denoiser"), weights(fused, "denoiser")
    for name in (f"{Q}.weight", f"{FF}.weight"):
        assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_fusing_in_16_bits_rounds_once(precision: Precision, checkpoint_path: Path, file: Path, tmp_path: Path):
    """Both files' changes are summed in float32 from the checkpoint's own weights."""
    choices = (LoraChoice(path=file, scale=0.5), LoraChoice(path=file, scale=0.01))
    checkpoint = fuse_checkpoint(open_checkpoint(checkpoint_path), choices, allow_unused=False)
    view = checkpoint.transformer.weights.views[f"{Q}.weight"]
    base = open_checkpoint(checkpoint_path).transformer.weights.views[f"{Q}.weight"].read().numpy()
    down, up = (TENSORS[f"transformer.{Q}.{one}.weight"] for one in ("lora_A", "lora_B"))
    wanted = low_rank(down, up, 2.0)(wide(base), 0.51)
    dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float16
    rounded = view.read().to(dtype)
    exact = torch.from_numpy(wanted).to(dtype)
    assert (rounded != exact).float().mean() < 0.002, "but for ties that float32 breaks otherwise"
    assert torch.allclose(rounded.double(), exact.double(), rtol=2**-7)


def test_rows_and_pieces_of_a_fused_tensor(checkpoint_path: Path, file: Path):
    checkpoint = fuse_checkpoint(open_checkpoint(checkpoint_path), [LoraChoice(path=file)], allow_unused=False)
    view = checkpoint.transformer.weights.views[f"{FF}.weight"]
    whole = view.read()
    assert (view.dtype, view.num_items, view.size_bytes) == ("F32", MLP * D, 4 * MLP * D)
    assert torch.equal(view.rows(10, 20).rows(2, 5).read(), whole[12:15])
    assert torch.equal(view.reshaped((MLP, 8, 8)).read(), whole.reshape(MLP, 8, 8))
    assert torch.equal(torch.cat(list(view.chunks())), whole.reshape(-1))
    with pytest.raises(LoraError, match="has LoRA files fused into it already"):
        fuse_checkpoint(checkpoint, [LoraChoice(path=file)], allow_unused=False)


def test_fp8_weights_become_bf16_where_they_are_changed(
    checkpoint_path: Path, file: Path, caplog: pytest.LogCaptureFixture
):
    opened = open_checkpoint(checkpoint_path)
    views = dict(opened.transformer.weights.views)
    views[f"{Q}.weight"] = replace(views[f"{Q}.weight"], scale=2.0)  # as ComfyUI's fp8_scaled have it
    weights = replace(opened.transformer.weights, views=views)
    scaled = replace(opened, transformer=replace(opened.transformer, weights=weights))
    fused = fuse_checkpoint(scaled, [LoraChoice(path=file)], allow_unused=False)
    made = fused.transformer.weights.views[f"{Q}.weight"]
    assert made.dtype == "BF16"
    down, up = (TENSORS[f"transformer.{Q}.{one}.weight"] for one in ("lora_A", "lora_B"))
    wanted = 2 * views[f"{Q}.weight"].reshaped((D, D)).read() / 2 + 2 * torch.from_numpy(up @ down)
    assert torch.allclose(made.read(), wanted, rtol=1e-5, atol=1e-5)
    assert "1 quantized tensors become bf16" in caplog.text


@pytest.mark.parametrize("operators", [Operators.FUSED, Operators.DECOMPOSED])
@pytest.mark.check
def test_bundles_of_every_form(operators: Operators, checkpoint_path: Path, file: Path, tmp_path: Path):
    plain = export_bundle(checkpoint_path, tmp_path / "plain", ExportOptions(operators=operators))
    fused = fuse_lora(plain, tmp_path / "fused", [file])
    made, before = weights(fused, "denoiser"), weights(plain, "denoiser")
    down, up = (TENSORS[f"transformer.{Q}.{one}.weight"] for one in ("lora_A", "lora_B"))
    wanted = low_rank(down, up, 2.0)(wide(before[f"{Q}.weight"].numpy()), 1.0)
    assert np.linalg.norm(made[f"{Q}.weight"].numpy() - wanted) < 1e-6 * np.linalg.norm(wanted)
    assert fused.verify().problems == ()


def test_a_quantized_bundle_is_refused(bundle: Bundle, file: Path, tmp_path: Path):
    record = QuantizationRecord(recipe="fp8", recipe_sha256="", calibration_sha256="", products={})
    graphs = {**bundle.manifest.graphs, "denoiser": replace(bundle.graph("denoiser"), quantization=record)}
    quantized = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
    with pytest.raises(LoraError, match=r"denoiser of .* is quantized \(fp8\).*fuse it into the bundle that this was"):
        fuse_lora(quantized, tmp_path / "fused", [file])
    assert not (tmp_path / "fused").exists()


def test_nothing_half_written_is_left(bundle: Bundle, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What fails late, while weights are written, leaves the place as it was."""
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("kontext_trt.export.fuse_lora.file_record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fuse_lora(bundle, out / "fused", [file])
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: write_file(path, pair("transformer.transformer_blocks.9.attn.to_q", D, 4)), "does not have"),
        (lambda path: write_file(path, pair(f"transformer.{Q}", 2 * D, 4)), "another width"),
        (lambda path: write_file(path, {**TENSORS, "x": random("x", 2)}), "change nothing here: x; --allow-unused"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    make: Callable[[Path], Path], said: str, bundle: Bundle, checkpoint_path: Path, tmp_path: Path
):
    path = make(tmp_path / "lora.safetensors")
    with pytest.raises(LoraError, match=said):
        fuse_lora(bundle, tmp_path / "fused", [path])
    with pytest.raises(LoraError, match=said):
        export_bundle(checkpoint_path, tmp_path / "exported", ExportOptions(loras=(LoraChoice(path=path),)))
    assert [one.name for one in tmp_path.iterdir()] == ["lora.safetensors"]


def test_places_that_are_taken(bundle: Bundle, file: Path, tmp_path: Path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(ExportError, match="exists; choose another name, or allow it with --overwrite"):
        fuse_lora(bundle, tmp_path / "taken", [file])
    with pytest.raises(ExportError, match="exists and is not a bundle; it will not be overwritten"):
        fuse_lora(bundle, tmp_path / "taken", [file], overwrite=True)
    with pytest.raises(LoraError, match="there is no LoRA to fuse"):
        fuse_lora(bundle, tmp_path / "fused", [])


def test_values_beyond_a_type(bundle: Bundle, tmp_path: Path):
    huge = {name: values * 1e30 for name, values in pair(f"transformer.{Q}", D, 4).items()}
    path = write_file(tmp_path / "lora.safetensors", huge)
    with pytest.raises(LoraError, match=rf"{Q}.weight of .* has values beyond float32 after LoRA files"):
        fuse_lora(bundle, tmp_path / "fused", [path])
    assert not (tmp_path / "fused").exists()


def test_an_export_writes_no_infinity(checkpoint_path: Path, tmp_path: Path):
    huge = {name: values * 1e30 for name, values in pair(f"transformer.{Q}", D, 4).items()}
    choice = LoraChoice(path=write_file(tmp_path / "lora.safetensors", huge))
    fused = fuse_checkpoint(open_checkpoint(checkpoint_path), [choice], allow_unused=False)
    with pytest.raises(LoraError, match=rf"{Q}.weight of .* has values beyond float32 .* take a smaller scale"):
        list(fused.transformer.weights.views[f"{Q}.weight"].chunks())


@pytest.mark.check
@pytest.mark.parametrize("recipe", ["fp8", "nvfp4"])
def test_what_is_fused_is_quantized(recipe: str, bundle: Bundle, calibration: Calibration, file: Path, tmp_path: Path):
    """The quantized weight is the sum's, and says which LoRA is in it; fusing into it is refused."""
    fused = fuse_lora(bundle, tmp_path / "fused", [file])
    made = quantize_bundle(fused, tmp_path / recipe, make_recipe(recipe), calibration)
    assert made.manifest.loras == fused.manifest.loras
    layer = emulated_layers(BundleGraph.read(made, "denoiser"))[Q]
    assert isinstance(layer, QuantizedLinear)
    found = layer.full_weight(torch.float32)
    errors = [float((found - weights(one, "denoiser")[f"{Q}.weight"]).norm() / found.norm()) for one in (fused, bundle)]
    assert errors[0] < 0.15 < 0.5 < errors[1]
    with pytest.raises(LoraError, match=rf"is quantized \({recipe}\), and a LoRA is fused before"):
        fuse_lora(made, tmp_path / "again", [file])
