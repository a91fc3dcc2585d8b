"""GGUF files are dequantized bit for bit as the gguf package does, some rows at a time, under the network's names."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import MODEL_ARCH, get_tensor_name_map
from gguf_files import K_QUANTS, READ, random_blocks, write_gguf
from safetensors.torch import load_file
from single_files import bfl_transformer
from torch import Tensor

from kontext_trt.engine.errors import CheckpointError, MissingDependencyError
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.checkpoint.gguf import open_gguf, t5_name
from kontext_trt.export.checkpoint.gguf_file import GgufFile

SMALL = Path(__file__).parents[3] / "examples/small_kontext/checkpoint"


def in_blocks(kind: str):
    """city96's choice: matrices of blocks are quantized, norms and biases never."""
    return lambda name, tensor: kind if tensor.ndim == 2 and "blocks." in name else "F32"


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    return bfl_transformer(load_file(SMALL / "transformer/diffusion_pytorch_model.safetensors"))


class TestValues:
    @pytest.mark.parametrize("kind", READ)
    def test_they_are_the_packages_bit_for_bit(self, tmp_path: Path, kind: str) -> None:
        matrix = torch.randn(37, 512, generator=torch.Generator().manual_seed(0))
        values = write_gguf(tmp_path / "a.gguf", {"w": matrix}, lambda *_: kind)["w"]
        view = open_gguf(tmp_path / "a.gguf").tensors["w"]
        assert view.shape == (37, 512)
        assert view.dtype == (kind if kind in ("F32", "F16", "BF16") else "BF16")
        assert torch.equal(view.read(), values)

    @pytest.mark.parametrize("kind", READ)
    def test_they_are_read_some_rows_at_a_time(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kontext_trt.export.checkpoint.views.CHUNK_ITEMS", 5 * 512)
        matrix = torch.randn(37, 512, generator=torch.Generator().manual_seed(0))
        values = write_gguf(tmp_path / "a.gguf", {"first": matrix, "w": matrix + 1}, lambda *_: kind)["w"]
        view = open_gguf(tmp_path / "a.gguf").tensors["w"]
        assert [len(chunk) for chunk in view.chunks()] == [5 * 512] * 7 + [2 * 512]
        assert torch.equal(torch.cat(list(view.chunks())), values.flatten())
        assert torch.equal(view.rows(3, 30).rows(2, 9).read(), values[5:12])

    @pytest.mark.parametrize("kind", [*K_QUANTS, "Q8_0"])
    def test_rows_that_end_within_a_block(self, tmp_path: Path, kind: str) -> None:
        """city96's writer folds matrices whose rows are no whole blocks, and says their shape beside them."""
        folded = torch.randn(9, 512, generator=torch.Generator().manual_seed(0))
        values = write_gguf(tmp_path / "a.gguf", {"w": folded}, lambda *_: kind, shapes={"w": (48, 96)})["w"]
        view = open_gguf(tmp_path / "a.gguf").tensors["w"]
        assert view.shape == (48, 96)
        assert torch.equal(view.read(), values.reshape(48, 96))
        assert torch.equal(view.rows(5, 7).read(), values.reshape(48, 96)[5:7])

    @pytest.mark.parametrize("shape", [(), (5,), (3, 2, 4, 1), (0, 4)])
    def test_other_shapes(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        from gguf_files import header, tensor_info

        tensor = torch.arange(float(np.prod(shape))).reshape(shape) + 1
        data = header(tensors=1, rest=tensor_info("w", shape[::-1], 0))
        data += b"\0" * (-len(data) % 32) + tensor.numpy().tobytes()
        (tmp_path / "a.gguf").write_bytes(data)
        view = open_gguf(tmp_path / "a.gguf").tensors["w"]
        assert view.shape == shape
        assert torch.equal(view.read(), tensor)

    def test_q4_k_is_as_ggml_defines_it(self, tmp_path: Path) -> None:
        """By hand, value by value: d * scale * q - dmin * min, of 8 groups with 6 bits for each of both."""
        data = random_blocks((1, 256), "Q4_K", seed=3)[0]
        d, least = (float(half) for half in data[:4].view(np.float16))
        packed, codes = data[4:16].astype(int), data[16:].astype(int)
        expected = []
        for group in range(8):
            if group < 4:
                scale, minimum = packed[group] & 63, packed[group + 4] & 63
            else:
                scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4
                minimum = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4
            some = codes[group // 2 * 32 : group // 2 * 32 + 32]
            quants = some >> 4 if group % 2 else some & 15
            expected += [d * scale * q - least * minimum for q in quants]
        write_gguf(tmp_path / "a.gguf", {"w": torch.zeros(1, 256)}, lambda *_: "Q4_K")
        with (tmp_path / "a.gguf").open("r+b") as file:
            file.seek(GgufFile.open(tmp_path / "a.gguf").tensors["w"].offset)
            file.write(data.tobytes())
        read = open_gguf(tmp_path / "a.gguf").tensors["w"].read()
        torch.testing.assert_close(read[0].double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)

    def test_scales_that_are_no_numbers(self, tmp_path: Path) -> None:
        write_gguf(tmp_path / "a.gguf", {"w": torch.ones(4, 64)}, lambda *_: "Q8_0")
        view = open_gguf(tmp_path / "a.gguf").tensors["w"]
        with (tmp_path / "a.gguf").open("r+b") as file:
            file.seek(GgufFile.open(tmp_path / "a.gguf").tensors["w"].offset)
            file.write(b"\xff\xff")
        with pytest.raises(CheckpointError, match="has scales of Q8_0 blocks that are no numbers"):
            view.read()

    def test_a_file_that_became_shorter(self, tmp_path: Path) -> None:
        write_gguf(tmp_path / "a.gguf", {"w": torch.ones(4, 4)}, lambda *_: "F32")
        view = open_gguf(tmp_path / "a.gguf").tensors["w"]
        (tmp_path / "a.gguf").write_bytes(b"")
        with pytest.raises(CheckpointError, match="became shorter while it was read"):
            view.read()


class TestNetworks:
    @pytest.mark.parametrize(("kind", "architecture"), [("Q8_0", "flux"), ("BF16", None), ("F16", "flux")])
    def test_a_transformer_is_opened(
        self, trained: dict[str, Tensor], tmp_path: Path, kind: str, architecture: str | None
    ) -> None:
        file = tmp_path / "kontext.gguf"
        prefix = "" if architecture else "model.diffusion_model."
        named = {f"{prefix}{name}": tensor for name, tensor in trained.items()}
        values = write_gguf(file, named, in_blocks(kind), architecture=architecture)
        assert GgufFile.open(file).architecture == architecture
        opened = open_checkpoint(SMALL, CheckpointFiles(transformer=file)).transformer
        assert opened.config == open_checkpoint(SMALL).transformer.config
        fused = values[f"{prefix}single_blocks.3.linear1.weight"]
        views = opened.weights.views
        assert torch.equal(views["single_transformer_blocks.3.proj_mlp.weight"].read(), fused[3 * 192 :])
        assert torch.equal(views["single_transformer_blocks.3.attn.to_k.weight"].read(), fused[192 : 2 * 192])

    def test_t5_is_opened(self, tmp_path: Path) -> None:
        tensors = load_file(SMALL / "text_encoder_2/model.safetensors")
        theirs = {llama_name(name): tensor for name, tensor in tensors.items()}
        kinds = {"enc.blk.0.attn_q.weight": "Q8_0", "enc.blk.1.ffn_up.weight": "Q8_0"}
        extra = {"dec.blk.0.attn_q.weight": torch.zeros(2, 2), "output.weight": torch.zeros(2, 2)}
        file = tmp_path / "t5.gguf"
        values = write_gguf(file, theirs | extra, lambda name, _: kinds.get(name, "F32"), architecture="t5")
        opened = open_checkpoint(SMALL, CheckpointFiles(t5=file)).t5
        assert replace(opened.config, length=56) == open_checkpoint(SMALL).t5.config, "but for what no tensor says"
        assert opened.weights.views.keys() == tensors.keys() - {"encoder.embed_tokens.weight"}
        for name, view in opened.weights.views.items():
            assert torch.equal(view.read(), values[llama_name(name)]), name

    def test_names_of_t5_are_those_of_the_package(self) -> None:
        names = get_tensor_name_map(MODEL_ARCH.T5ENCODER, 24)
        for block in (0, 23):
            for theirs in (
                "attn_q",
                "attn_k",
                "attn_v",
                "attn_o",
                "attn_norm",
                "ffn_gate",
                "ffn_up",
                "ffn_down",
                "ffn_norm",
            ):
                name = f"enc.blk.{block}.{theirs}.weight"
                assert t5_name(name) != name
                assert names.get_name(t5_name(name), (".weight",)) == name
        for name in ("enc.blk.0.attn_rel_b.weight", "token_embd.weight", "enc.output_norm.weight"):
            assert names.get_name(t5_name(name), (".weight",)) == name
        assert t5_name("enc.blk.0.attn_q.weight.x") == "enc.blk.0.attn_q.weight.x"


def llama_name(name: str) -> str:
    found = get_tensor_name_map(MODEL_ARCH.T5ENCODER, 24).get_name(name, (".weight",))
    assert found is not None
    return found


class TestRefusals:
    def test_other_architectures(self, tmp_path: Path) -> None:
        write_gguf(tmp_path / "a.gguf", {"w": torch.ones(4, 4)}, lambda *_: "F32", architecture="sd3")
        with pytest.raises(CheckpointError, match=r"is a GGUF file of the architecture 'sd3'; FLUX\.1's and T5's"):
            open_gguf(tmp_path / "a.gguf")

    def test_the_package_is_asked_for_in_words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_gguf(tmp_path / "a.gguf", {"w": torch.ones(4, 64)}, lambda *_: "Q8_0")
        write_gguf(tmp_path / "plain.gguf", {"w": torch.ones(4, 64)}, lambda *_: "F16")
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
        with pytest.raises(
            MissingDependencyError, match=r"need the package gguf; .* pip install 'kontext-trt\[gguf\]'"
        ):
            open_gguf(tmp_path / "a.gguf")
        assert torch.equal(open_gguf(tmp_path / "plain.gguf").tensors["w"].read(), torch.ones(4, 64))

    def test_scales_beside_a_weight(self, trained: dict[str, Tensor], tmp_path: Path) -> None:
        odd = {**trained, "img_in.weight_scale": torch.ones(())}
        write_gguf(
            tmp_path / "a.gguf", {name: one.reshape(one.shape or (1,)) for name, one in odd.items()}, lambda *_: "F32"
        )
        with pytest.raises(CheckpointError, match="img_in has scales beside a weight that is not stored as FP8"):
            open_checkpoint(SMALL, CheckpointFiles(transformer=tmp_path / "a.gguf"))
