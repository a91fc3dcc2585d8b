"""Weights in every precision: stored, converted, widened."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import ExportError
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.checkpoint.views import View
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.weights import write_converted
from kontext_trt.export.tiny import write_tiny_checkpoint


@pytest.fixture(scope="module")
def bf16_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bf16") / "checkpoint"
    write_tiny_checkpoint(path, dtype=torch.bfloat16)
    return path


class TestPrecisions:
    def test_stored_type_is_kept_and_nothing_converted(self, bf16_checkpoint: Path, tmp_path: Path):
        made = export_bundle(open_checkpoint(bf16_checkpoint), tmp_path / "bundle")
        assert {graph.precision for graph in made.manifest.graphs.values()} == {Precision.BF16}
        assert {record.origin for record in made.manifest.weights} == {"hardlink"}
        model = onnx.load(made.graph_path("denoiser"), load_external_data=False)
        types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert types["latents"] == types["next_latents"] == types["cos"] == onnx.TensorProto.FLOAT
        assert types["modulation"] == types["text_tokens"] == onnx.TensorProto.BFLOAT16

    def test_fp16_picture_is_near(self, kontext: Kontext, checkpoint_path: Path, picture, tmp_path: Path):
        options = ExportOptions(precision=Precision.FP16)
        made = export_bundle(open_checkpoint(checkpoint_path), tmp_path / "bundle", options)
        assert {record.origin for record in made.manifest.weights} == {"converted"}
        with Kontext.open(made) as other:
            one, two = (session.edit(picture(128, 128), "x", steps=3, seed=0) for session in (kontext, other))
        error = np.asarray(one.image, float) - np.asarray(two.image, float)
        assert 20 * np.log10(255 / np.sqrt(np.mean(error**2))) > 45

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

    @pytest.mark.parametrize("precision", list(Precision))
    def test_converted_file_is_safetensors_and_rounds_as_torch(
        self, precision: Precision, bundle: Bundle, tmp_path: Path
    ):
        views = open_checkpoint(Path(bundle.manifest.source)).clip.weights.views
        write_converted(views, precision, tmp_path / "out.safetensors")
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision.value]
        with safe_open(tmp_path / "out.safetensors", "pt") as file:
            assert set(file.keys()) == set(views)
            for name in file.keys():  # noqa: SIM118 (not a dict)
                assert torch.equal(file.get_tensor(name), views[name].read().to(dtype))

    def test_chunks_cover_a_tensor_of_any_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("kontext_trt.export.checkpoint.views.CHUNK_ITEMS", 7)
        values = np.arange(23, dtype=np.float32)
        values.tofile(tmp_path / "data")
        view = View(path=tmp_path / "data", dtype="F32", shape=(23,), offset=0)
        assert [len(chunk) for chunk in view.chunks()] == [7, 7, 7, 2]
        assert view.read().tolist() == values.tolist()

    def test_overflow_in_fp16_names_the_tensor(self, tmp_path: Path):
        np.array([1.0, 70_000.0], np.float32).tofile(tmp_path / "data")
        views = {"big.weight": View(path=tmp_path / "data", dtype="F32", shape=(2,), offset=0)}
        with pytest.raises(ExportError, match=r"tensor big\.weight has values beyond float16's 65504"):
            write_converted(views, Precision.FP16, tmp_path / "out.safetensors")
        assert [file.name for file in tmp_path.iterdir()] == ["data"]
