"""Bundles appear whole or not at all, and keep what was built when they are exported again."""

import errno
import inspect
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from building import build_ahead
from traced_graphs import Trace, load_traced, save_traced

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.engine.errors import BuildError, ExportError, OptionError
from kontext_trt.export import export as export_module
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.trace import TraceOptions
from kontext_trt.export.tiny import tiny_config, write_tiny_checkpoint


class TestWriting:
    def test_failed_export_leaves_nothing(self, checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(*_: object) -> None:
            raise ExportError("tracing t5 failed: on purpose")

        monkeypatch.setattr(export_module, "trace", fail)
        with pytest.raises(ExportError, match="on purpose"):
            export_bundle(open_checkpoint(checkpoint_path), tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

    def test_failed_overwrite_leaves_the_old_bundle(
        self, checkpoint_path: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*_: object) -> None:
            raise ExportError("on purpose")

        monkeypatch.setattr(export_module, "trace", fail)
        before = Bundle.open(bundle_copy).fingerprint
        with pytest.raises(ExportError, match="on purpose"):
            export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
        assert Bundle.open(bundle_copy).fingerprint == before
        assert [path.name for path in bundle_copy.parent.iterdir()] == ["copy"]

    def test_overwriting_keeps_what_was_built(self, checkpoint_path: Path, bundle_copy: Path):
        plan = bundle_copy / "plans/clip/0123.plan"
        plan.parent.mkdir(parents=True)
        plan.write_text("hours of work")
        before = Bundle.open(bundle_copy).fingerprint
        again = export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
        assert plan.read_text() == "hours of work"
        assert again.fingerprint == before
        assert [path.name for path in bundle_copy.parent.iterdir()] == ["copy"]

    def test_what_was_built_is_copied_where_it_cannot_be_linked(
        self, checkpoint_path: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        plan = bundle_copy / "plans/clip/0123.plan"
        plan.parent.mkdir(parents=True)
        plan.write_text("hours of work")
        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr("kontext_trt.engine.system.files._reflink", lambda *_: False)
        export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
        assert plan.read_text() == "hours of work"

    def test_taken_name_is_refused(self, checkpoint_path: Path, tmp_path: Path):
        checkpoint = open_checkpoint(checkpoint_path)
        with pytest.raises(ExportError, match="exists; choose another name, or allow it with --overwrite"):
            export_bundle(checkpoint, tmp_path)
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(ExportError, match="is not a bundle; it will not be overwritten"):
            export_bundle(checkpoint, tmp_path, ExportOptions(overwrite=True))

    @pytest.mark.check
    def test_tracing_anew_gives_the_same_graph(self, traced: Trace, tmp_path: Path):
        """Of two components; `make check` exports all six anew."""
        for name in ("clip", "conditioner"):
            asked = (COMPONENTS[name], tiny_config(), TraceOptions(precision=Precision.FP32))
            save_traced(inspect.unwrap(traced)(*asked), tmp_path / f"{name}.onnx")
            anew = load_traced(tmp_path / f"{name}.onnx")
            assert [str(node) for node in traced(*asked).graph] == [str(node) for node in anew.graph]

    @pytest.mark.check
    @pytest.mark.usefixtures("traced_anew")
    def test_same_checkpoint_same_graphs(self, checkpoint_path: Path, bundle: Bundle, tmp_path: Path):
        again = export_bundle(open_checkpoint(checkpoint_path), tmp_path / "bundle")
        assert again.fingerprint == bundle.fingerprint


def test_a_checkpoint_is_exported_from_its_path(checkpoint_path: Path, tmp_path: Path):
    files = CheckpointFiles(vae=checkpoint_path / "vae")
    made = export_bundle(str(checkpoint_path), str(tmp_path / "bundle"), files=files)
    assert made.path == tmp_path / "bundle"
    assert made.manifest.source == str(checkpoint_path)
    with pytest.raises(OptionError, match="this one is open already; give its path"):
        export_bundle(open_checkpoint(checkpoint_path), tmp_path / "other", files=files)
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def bf16_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bf16") / "checkpoint"
    write_tiny_checkpoint(path, dtype=torch.bfloat16)
    return path


@pytest.fixture(scope="module", params=Operators)
def fp16_bundle(request: pytest.FixtureRequest, checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """In every form of operators."""
    options = ExportOptions(precision=Precision.FP16, operators=request.param)
    return export_bundle(open_checkpoint(checkpoint_path), tmp_path_factory.mktemp("fp16") / "bundle", options)


class TestPrecisions:
    @pytest.mark.check  # two graphs traced for this alone
    def test_stored_type_is_kept_and_nothing_converted(self, bf16_checkpoint: Path, tmp_path: Path):
        made = export_bundle(open_checkpoint(bf16_checkpoint), tmp_path / "bundle")
        assert {graph.precision for graph in made.manifest.graphs.values()} == {Precision.BF16}
        assert {record.origin for record in made.manifest.weights} == {"hardlink"}
        model = onnx.load(made.open_graph("denoiser").path, load_external_data=False)
        types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert types["latents"] == types["next_latents"] == types["cos"] == onnx.TensorProto.FLOAT
        assert types["modulation"] == types["text_tokens"] == onnx.TensorProto.BFLOAT16

    @pytest.mark.check  # six graphs traced for each form of operators
    def test_fp16_picture_is_near(self, kontext: Kontext, fp16_bundle: Bundle, picture):
        assert {record.origin for record in fp16_bundle.manifest.weights} == {"converted"}
        with Kontext.open(fp16_bundle) as other:
            one, two = (session.edit(picture(128, 128), "x", steps=3, seed=0) for session in (kontext, other))
        error = np.asarray(one.image, float) - np.asarray(two.image, float)
        assert 20 * np.log10(255 / np.sqrt(np.mean(error**2))) > 45

    @pytest.mark.check  # as many graphs compiled
    def test_a_compiler_takes_fp16(self, fp16_bundle: Bundle):
        if fp16_bundle.graph("denoiser").operators == Operators.ONNXRUNTIME.value:
            with pytest.raises(BuildError, match="operators of ONNX Runtime's own"):
                build_ahead(fp16_bundle, "denoiser")
            return
        for component in COMPONENTS:
            assert set(build_ahead(fp16_bundle, component).manifest.census.gemms) == {"fp16"}, component

    def test_bf16_widened_to_fp32_is_diffusers_in_fp32(self, bf16_checkpoint: Path, picture, tmp_path: Path):
        from diffusers import FluxKontextPipeline

        options = ExportOptions(precision=Precision.FP32)
        made = export_bundle(open_checkpoint(bf16_checkpoint), tmp_path / "bundle", options)
        pipeline = FluxKontextPipeline.from_pretrained(bf16_checkpoint, dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        noise = np.random.default_rng(0).standard_normal((1, 64, 64)).astype(np.float32)
        with Kontext.open(made) as kontext:
            ours = kontext.edit(picture(128, 128), "x", steps=2, seed=0, noise=noise).outputs[0].latents
        theirs = pipeline(
            image=picture(128, 128),
            prompt="x",
            latents=torch.from_numpy(noise),
            width=128,
            height=128,
            max_area=128 * 128,
            num_inference_steps=2,
            guidance_scale=2.5,
            output_type="latent",
            _auto_resize=False,
        ).images[0]
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


def test_options_take_names_and_refuse_others_with_the_list() -> None:
    options = ExportOptions(precision="bf16", operators="fused")  # pyright: ignore[reportArgumentType]
    assert (options.precision, options.operators) == (Precision.BF16, Operators.FUSED)
    with pytest.raises(OptionError, match="precision must be one of fp32, fp16, bf16, not 'fp8'"):
        ExportOptions(precision="fp8")  # pyright: ignore[reportArgumentType]
