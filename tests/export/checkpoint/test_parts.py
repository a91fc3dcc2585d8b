"""Files and configurations that are damaged or of something else, and what is said of them."""

import json
import struct
from pathlib import Path

import pytest
import torch
from checking import TRANSFORMER, check
from safetensors.torch import save_file

from kontext_trt.engine.errors import CheckpointError


def _header(**fields: object) -> bytes:
    header = json.dumps({"a": fields}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


class TestRefusals:
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
            (b"<html>404 Not Found</html>", "is an HTML page, such as a login or an error"),
            (struct.pack("<Q", 4) + b"oops", r"its header is malformed \(JSON is malformed"),
            (struct.pack("<Q", 2) + b"[]", r"its header is malformed \(Expected `object`, got `array`\)"),
            (struct.pack("<Q", 2) + b"{}", "holds no tensors"),
            (struct.pack("<Q", 11) + b'{"a": {"b"}', "its header is malformed"),
            (struct.pack("<Q", 8) + b'{"a": 3}', "entry of tensor a is malformed"),
            (struct.pack("<Q", 9999) + b"[" * 9999, "its header is malformed"),
            (_header(dtype="F32", shape=[-1, -1], data_offsets=[0, 4]), "entry of tensor a is malformed"),
            (_header(dtype="F32", shape=[1.5], data_offsets=[0, 4]), "entry of tensor a is malformed"),
            (_header(dtype="F32", shape=[1], data_offsets=[-4, 0]), "entry of tensor a is malformed"),
            (_header(dtype="F32", shape=[1], data_offsets=[4, 0]), "does not fill its -4 bytes"),
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

    def test_damaged_config(self, checkpoint_copy: Path):
        file = checkpoint_copy / "text_encoder_2/config.json"
        file.write_text("{")
        with pytest.raises(
            CheckpointError, match=r"text_encoder_2/config\.json is not a configuration: Input data was"
        ):
            check(checkpoint_copy)
        file.write_text("{}")
        with pytest.raises(CheckpointError, match=r"config\.json has no entry 'vocab_size'"):
            check(checkpoint_copy)


class TestFolders:
    def test_hidden_files_are_not_weights(self, checkpoint_copy: Path):
        for file in checkpoint_copy.glob("*/*.safetensors"):
            (file.parent / f"._{file.name}").write_bytes(b"Mac OS X")
        check(checkpoint_copy)

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("model_index.json", "[]", "is not a diffusers index"),
            ("model_index.json", '{"_class_name": ' + "[" * 9999, "is not a diffusers index"),
            ("scheduler/scheduler_config.json", "7", "is not a scheduler's configuration"),
            ("kontext_sizes.json", "[[100, 100]]", "is not a list of .* in multiples of 16"),
            ("kontext_sizes.json", '{"a": 1}', "is not a list of"),
            ("kontext_sizes.json", "\ufffd", "is not a list of"),
        ],
    )
    def test_odd_json_is_said_with_its_file(self, checkpoint_copy: Path, name: str, text: str, words: str):
        (checkpoint_copy / name).write_text(text)
        with pytest.raises(CheckpointError, match=f"{name} ({words})"):
            check(checkpoint_copy)

    @pytest.mark.parametrize("value", ["much", 1e300, None, [1]])
    def test_an_odd_number_is_said_with_its_file(self, checkpoint_copy: Path, value: object):
        file = checkpoint_copy / "vae/config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": value}))
        with pytest.raises(CheckpointError, match=r"vae/config\.json has entries that no FLUX\.1 checkpoint has: "):
            check(checkpoint_copy)

    def test_shards_lie_beside_their_index(self, checkpoint_copy: Path):
        index = checkpoint_copy / "transformer/diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}))
        with pytest.raises(CheckpointError, match=r"names a shard \.\./vae/.*, which is not beside it"):
            check(checkpoint_copy)
        index.write_text('{"weight_map": []}')
        with pytest.raises(CheckpointError, match="is not an index of safetensors shards"):
            check(checkpoint_copy)
