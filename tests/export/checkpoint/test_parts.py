"""Checkpoints that are damaged, incomplete or of something else, and what is said of them."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from checking import TRANSFORMER, check, rewrite
from safetensors.torch import save_file
from single_files import bfl_transformer

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import open_checkpoint


class TestRefusals:
    def test_missing_tensor(self, checkpoint_copy: Path):
        rewrite(checkpoint_copy / TRANSFORMER, lambda tensors: tensors.pop("transformer_blocks.1.attn.to_q.bias"))
        with pytest.raises(
            CheckpointError, match=r"lacks transformer_blocks\.1\.attn\.to_q\.bias \(1 of \d+ tensors\)"
        ):
            check(checkpoint_copy)

    def test_extra_tensor(self, checkpoint_copy: Path):
        rewrite(checkpoint_copy / TRANSFORMER, lambda tensors: tensors.update({"surprise.weight": torch.zeros(2)}))
        with pytest.raises(CheckpointError, match=r"do not belong there: surprise\.weight"):
            check(checkpoint_copy)

    def test_misshapen_tensor(self, checkpoint_copy: Path):
        rewrite(checkpoint_copy / TRANSFORMER, lambda tensors: tensors.update({"proj_out.bias": torch.zeros(3)}))
        with pytest.raises(CheckpointError, match=r"tensor proj_out\.bias is \[3\], this network has \[64\]"):
            check(checkpoint_copy)

    def test_fused_tensor_with_too_few_rows(self, checkpoint_copy: Path):
        def change(tensors):
            fused = bfl_transformer(dict(tensors))
            fused["double_blocks.0.img_attn.qkv.weight"] = fused["double_blocks.0.img_attn.qkv.weight"][:100].clone()
            tensors.clear()
            tensors.update(fused)

        rewrite(checkpoint_copy / TRANSFORMER, change)
        with pytest.raises(CheckpointError, match=r"double_blocks\.0\.img_attn\.qkv\.weight has 100 rows, at least"):
            check(checkpoint_copy)

    def test_truncated_file(self, checkpoint_copy: Path):
        file = checkpoint_copy / TRANSFORMER
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 1000)
        with pytest.raises(
            CheckpointError, match=r"diffusion_pytorch_model\.safetensors is cut short: tensor .* ends at"
        ):
            check(checkpoint_copy)

    def test_truncated_header(self, checkpoint_copy: Path):
        with (checkpoint_copy / TRANSFORMER).open("r+b") as opened:
            opened.truncate(200)
        with pytest.raises(CheckpointError, match="is cut short: its header needs"):
            check(checkpoint_copy)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"is empty \(0 bytes\)"),
            (b"<html>404 Not Found</html>", "first 8 bytes are not a header length"),
            (struct.pack("<Q", 4) + b"oops", "its header is not JSON"),
            (struct.pack("<Q", 2) + b"[]", "its header is not a JSON object"),
            (struct.pack("<Q", 2) + b"{}", "holds no tensors"),
            (struct.pack("<Q", 11) + b'{"a": {"b"}', "its header is not JSON"),
            (struct.pack("<Q", 8) + b'{"a": 3}', "entry of tensor a is malformed"),
        ],
    )
    def test_not_a_safetensors_file(self, checkpoint_copy: Path, content: bytes, message: str):
        (checkpoint_copy / TRANSFORMER).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            check(checkpoint_copy)

    def test_unknown_type_and_unfilled_bytes(self, checkpoint_copy: Path):
        for fields, message in (
            ({"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}, "tensor a has the unknown type F3"),
            ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, r"tensor a F32 \[2\] does not fill its 4 bytes"),
        ):
            header = json.dumps({"a": fields}).encode()
            (checkpoint_copy / TRANSFORMER).write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
            with pytest.raises(CheckpointError, match=message):
                check(checkpoint_copy)

    def test_no_guidance_embedding(self, checkpoint_copy: Path):
        def change(tensors):
            for name in [name for name in tensors if "guidance_embedder" in name]:
                del tensors[name]

        rewrite(checkpoint_copy / TRANSFORMER, change)
        with pytest.raises(CheckpointError, match=r"no guidance embedding .*guidance_in.* such as schnell"):
            check(checkpoint_copy)

    def test_config_without_guidance(self, checkpoint_copy: Path):
        file = checkpoint_copy / "transformer/config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "guidance_embeds": False}))
        with pytest.raises(CheckpointError, match=r"no guidance embedding \(guidance_embeds is false in its config\)"):
            check(checkpoint_copy)

    def test_lora(self, checkpoint_path: Path, tmp_path: Path):
        name = "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"
        save_file({name: torch.zeros(4, 4)}, tmp_path / "style.safetensors")
        with pytest.raises(CheckpointError, match=r"style\.safetensors is a LoRA, not a checkpoint .*lora_A"):
            check(checkpoint_path, transformer=tmp_path / "style.safetensors")

    @pytest.mark.parametrize(
        ("part", "message"),
        [
            ("transformer", "is not a FLUX transformer: it has neither"),
            ("clip", "is not a CLIP text encoder"),
            ("t5", "is not a T5 encoder"),
        ],
    )
    def test_another_part_by_mistake(self, checkpoint_path: Path, models_path: Path, part: str, message: str):
        with pytest.raises(CheckpointError, match=rf"ae\.safetensors {message}"):
            check(checkpoint_path, **{part: models_path / "vae/ae.safetensors"})

    def test_vae_by_mistake(self, checkpoint_path: Path, models_path: Path):
        with pytest.raises(CheckpointError, match=r"clip_l\.safetensors is not a FLUX autoencoder"):
            check(checkpoint_path, vae=models_path / "text_encoders/clip_l.safetensors")

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

    def test_damaged_config(self, checkpoint_copy: Path):
        file = checkpoint_copy / "text_encoder_2/config.json"
        file.write_text("{")
        with pytest.raises(CheckpointError, match=r"text_encoder_2/config\.json is not JSON"):
            check(checkpoint_copy)
        file.write_text("{}")
        with pytest.raises(CheckpointError, match=r"config\.json has no entry 'vocab_size'"):
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
