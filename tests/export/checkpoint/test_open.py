"""Checkpoints as users have them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checking import TRANSFORMER, check
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer, bfl_vae, dequantized, write_models_folder

from kontext_trt import Kontext
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.checkpoint.inference import transformer_from_tensors
from kontext_trt.export.configs import ModelConfig
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.trace import expected_tensors


class TestLayouts:
    def test_single_file_names_are_bfls(self):
        """The rewriting that the next tests rest on is what diffusers' own converter undoes.

        The converter has FLUX's width written into it, so each tensor has its real rows, of one number each.
        """
        with torch.device("meta"):
            shapes = FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True).state_dict()
        torch.manual_seed(0)
        original = {name: torch.rand(len(tensor), *[1] * (tensor.ndim - 1)) for name, tensor in shapes.items()}
        restored = convert_flux_transformer_checkpoint_to_diffusers(bfl_transformer(original))
        assert restored.keys() == original.keys()
        for name, tensor in original.items():
            assert torch.equal(restored[name], tensor), name

    def test_vae_names_are_bfls(self, checkpoint_path: Path):
        original = load_file(checkpoint_path / "vae/diffusion_pytorch_model.safetensors")
        config = json.loads((checkpoint_path / "vae/config.json").read_text())
        restored = convert_ldm_vae_checkpoint(bfl_vae(original), config)
        assert restored.keys() == original.keys()
        for name, tensor in original.items():
            assert torch.equal(restored[name].reshape(tensor.shape), tensor), name

    @pytest.mark.parametrize("part", ["transformer", "vae", "clip", "t5"])
    def test_every_tensor_reads_the_same_from_both(self, checkpoint_path: Path, models_path: Path, part: str):
        one, other = (open_checkpoint(path) for path in (checkpoint_path, models_path))
        assert (one.layout, other.layout) == ("diffusers", "single files")
        ours, theirs = one.weights(part).views, other.weights(part).views
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name].read(), theirs[name].read()), name

    def test_configs_are_inferred_right(self, checkpoint_path: Path, models_path: Path):
        one, other = (open_checkpoint(path) for path in (checkpoint_path, models_path))
        for part in ("transformer", "vae", "clip", "t5"):
            assert getattr(one, part).config == getattr(other, part).config
        assert one.sizes == other.sizes

    def test_single_files_give_the_identical_picture(
        self, kontext: Kontext, models_path: Path, picture, tmp_path: Path
    ):
        export_bundle(open_checkpoint(models_path), tmp_path / "bundle")
        with Kontext.open(tmp_path / "bundle") as other:
            one, two = (session.edit(picture(128, 128), "x", steps=2, seed=0) for session in (kontext, other))
        np.testing.assert_array_equal(one.outputs[0].latents, two.outputs[0].latents)
        assert np.asarray(one.image).tolist() == np.asarray(two.image).tolist()

    def test_transformer_file_finds_its_neighbours(self, models_path: Path):
        opened = open_checkpoint(models_path / "diffusion_models/flux1-dev-kontext.safetensors")
        assert opened.vae.weights.source.endswith("vae/ae.safetensors")

    def test_parts_can_be_named(self, checkpoint_path: Path, models_path: Path):
        check(checkpoint_path, transformer=models_path / "diffusion_models/flux1-dev-kontext.safetensors")

    def test_prefixed_names(self, checkpoint_copy: Path):
        file = checkpoint_copy / TRANSFORMER
        tensors = bfl_transformer(load_file(file))
        save_file({f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}, file)
        check(checkpoint_copy)

    def test_shards(self, checkpoint_copy: Path):
        folder = checkpoint_copy / "transformer"
        tensors = load_file(checkpoint_copy / TRANSFORMER)
        (checkpoint_copy / TRANSFORMER).unlink()
        names = sorted(tensors)
        index = {}
        for i, shard in enumerate((names[:30], names[30:])):
            file = f"diffusion_pytorch_model-{i + 1:05}-of-00002.safetensors"
            save_file({name: tensors[name] for name in shard}, folder / file)
            index |= dict.fromkeys(shard, file)
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        check(checkpoint_copy)
        (folder / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"cannot read .*00002-of-00002\.safetensors: No such file"):
            check(checkpoint_copy)


class TestFp8Scaled:
    def test_weights_are_scaled_back(self, checkpoint_path: Path, tmp_path: Path):
        write_models_folder(checkpoint_path, tmp_path / "models", fp8=True)
        checkpoint = open_checkpoint(tmp_path / "models")
        stored = load_file(tmp_path / "models/diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors")
        assert stored["single_blocks.0.linear1.weight"].dtype == torch.float8_e4m3fn
        expected = dequantized(stored, torch.float32)["single_blocks.0.linear1.weight"]
        hidden = checkpoint.transformer.config.hidden
        view = checkpoint.transformer.weights.views["single_transformer_blocks.0.attn.to_k.weight"]
        assert torch.equal(view.read(), expected[hidden : 2 * hidden])
        original = load_file(checkpoint_path / TRANSFORMER)["single_transformer_blocks.0.attn.to_k.weight"]
        assert 0 < (view.read() - original).abs().max() < 0.05 * original.abs().max()

    def test_picture_is_that_of_the_weights_scaled_back(self, checkpoint_path: Path, picture, tmp_path: Path):
        """Exported as it lies, scaled back in the graph; and with the same values in float32."""
        write_models_folder(checkpoint_path, tmp_path / "fp8", fp8=True)
        shutil.copytree(tmp_path / "fp8", tmp_path / "plain")
        for file in (tmp_path / "plain").rglob("*fp8*_scaled.safetensors"):
            save_file(dequantized(load_file(file), torch.float32), file)
        results = []
        for name in ("fp8", "plain"):
            options = ExportOptions(precision=Precision.FP32)
            export_bundle(open_checkpoint(tmp_path / name), tmp_path / f"{name}-bundle", options)
            with Kontext.open(tmp_path / f"{name}-bundle") as kontext:
                results.append(kontext.edit(picture(128, 128), "x", steps=2, seed=0).outputs[0].latents)
        np.testing.assert_allclose(*results, atol=1e-5)


def test_full_size_config_is_inferred():
    """FLUX.1's shapes give FLUX.1's configuration."""
    from kontext_trt.export.checkpoint.views import View
    from kontext_trt.export.configs import TransformerConfig

    flux = ModelConfig(transformer=TransformerConfig())
    shapes = expected_tensors("conditioner", flux) | expected_tensors("denoiser", flux)
    views = {name: View(path=Path("x"), dtype="BF16", shape=shape, offset=0) for name, shape in shapes.items()}
    assert transformer_from_tensors(views, "x") == TransformerConfig()
    assert sum(view.num_items for view in views.values()) == 11_901_408_320


class TestRefusals:
    def test_missing_part(self, checkpoint_copy: Path):
        shutil.rmtree(checkpoint_copy / "vae")
        with pytest.raises(CheckpointError, match=r"has no vae; name what is elsewhere: --vae FILE"):
            check(checkpoint_copy)

    def test_missing_checkpoint(self, tmp_path: Path):
        with pytest.raises(CheckpointError, match="gone does not exist"):
            check(tmp_path / "gone")

    def test_missing_tokenizers(self, checkpoint_copy: Path):
        shutil.rmtree(checkpoint_copy / "tokenizer_2")
        with pytest.raises(CheckpointError, match="say where they are with --tokenizers FOLDER"):
            check(checkpoint_copy)

    def test_several_candidates(self, models_path: Path, tmp_path: Path):
        models = Path(shutil.copytree(models_path, tmp_path / "models"))
        file = models / "diffusion_models/flux1-dev-kontext.safetensors"
        shutil.copy(file, file.with_stem("flux1-kontext-dev"))
        with pytest.raises(CheckpointError, match=r"several files for one part: .*; name the one to use with"):
            check(models)

    def test_another_pipeline(self, checkpoint_copy: Path):
        (checkpoint_copy / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
        with pytest.raises(CheckpointError, match="is a StableDiffusionPipeline, not a FLUX pipeline"):
            check(checkpoint_copy)

    def test_parts_that_do_not_fit_together(self, checkpoint_copy: Path):
        file = checkpoint_copy / "transformer/config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "joint_attention_dim": 96}))
        with pytest.raises(CheckpointError, match=r"takes text of width 96, .*text_encoder_2 gives 64"):
            check(checkpoint_copy)

    def test_another_schedule(self, checkpoint_copy: Path):
        file = checkpoint_copy / "scheduler/scheduler_config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "max_shift": 1.5}))
        assert open_checkpoint(checkpoint_copy).flow.max_shift == 1.5
        file.write_text(json.dumps({**config, "use_dynamic_shifting": False}))
        with pytest.raises(CheckpointError, match=r"this one has use_dynamic_shifting False"):
            check(checkpoint_copy)
        file.write_text("[]")
        with pytest.raises(CheckpointError, match="is not a scheduler's configuration"):
            check(checkpoint_copy)

    @pytest.mark.parametrize("content", ["[[100, 100]]", "[]", "[[1]]", "nonsense"])
    def test_bad_sizes(self, checkpoint_copy: Path, content: str):
        (checkpoint_copy / "kontext_sizes.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"kontext_sizes\.json"):
            check(checkpoint_copy)
