"""NVFP4 as files have it: tiles and nibbles, against comfy-kitchen's and ModelOpt's bytes and themselves."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_files import nvfp4_parts, tiled
from safetensors.torch import save_file
from torch import Tensor

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.contents import open_contents
from kontext_trt.export.checkpoint.formats import read_formats
from kontext_trt.export.checkpoint.nvfp4 import LAYOUTS, Nvfp4View, padded, swap_nibbles, swizzle, unswizzle
from kontext_trt.export.fp4 import pack, unpack
from kontext_trt.export.graphs.formats import Nvfp4Tensor

COMFY_KITCHEN = (
    # what comfy_kitchen 0.2.40's backends.eager.quantization.quantize_nvfp4(made(rows, columns), amax / 2688) returns,
    # high half first, and its dequantize_nvfp4(..., output_type=torch.float32) of that: SHA-256, first 16 digits
    (130, 80, (256, 8), "06f59cf455e5e83e", "21c7bf0409028f13", "7fa9b2b016bf58d7"),
    (128, 64, (128, 4), "7a459e940d37c9a6", "1009e078b4a1ae2c", "e4564a9a0ee22cc0"),
    (257, 192, (384, 12), "e233b3a0383c0ab7", "465b0f3c05ce5874", "a12dd49617d6cb6d"),
)
SHAPES = ((1, 1), (5, 3), (127, 4), (128, 4), (129, 5), (300, 17), (384, 192))


def made(rows: int, columns: int) -> Tensor:
    """A matrix of exact numbers whose rows differ in size."""
    whole = (torch.arange(rows * columns) * 7919) % 2017 - 1008
    return (whole.float() / 1024).reshape(rows, columns) * torch.exp2((torch.arange(rows) * 5 % 7 - 3).float())[:, None]


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def opened(folder: Path, tensors: dict[str, Tensor], layout: str | None = None, name: str = "layer") -> Nvfp4View:
    file = folder / "one.safetensors"
    save_file({f"{name}.{end}": tensor.contiguous() for end, tensor in tensors.items()}, file)
    view = read_formats(open_contents(file))[f"{name}.weight"]
    assert isinstance(view, Nvfp4View)
    return view if layout is None else relaid(view, layout)


def relaid(view: Nvfp4View, layout: str) -> Nvfp4View:
    return replace(view, layout=LAYOUTS[layout])


class TestTiles:
    @pytest.mark.parametrize(("rows", "blocks"), SHAPES)
    def test_unswizzling_undoes_swizzling(self, rows: int, blocks: int) -> None:
        scales = torch.randint(0, 256, (rows, blocks), dtype=torch.uint8)
        swizzled = swizzle(scales)
        assert swizzled.shape == padded(rows, blocks)
        assert torch.equal(unswizzle(swizzled, rows, blocks), scales)
        assert torch.equal(unswizzle(swizzled.reshape(-1), rows, blocks), scales)

    @pytest.mark.parametrize(("rows", "blocks"), SHAPES)
    def test_swizzling_undoes_unswizzling_of_whole_tiles(self, rows: int, blocks: int) -> None:
        stored = torch.randint(0, 256, padded(rows, blocks), dtype=torch.uint8)
        assert torch.equal(swizzle(unswizzle(stored, *stored.shape)), stored)

    @pytest.mark.parametrize(("rows", "blocks"), SHAPES)
    def test_every_byte_is_where_cublas_wants_it(self, rows: int, blocks: int) -> None:
        scales = torch.randint(0, 256, (rows, blocks), dtype=torch.uint8)
        assert torch.equal(swizzle(scales), tiled(scales).view(torch.uint8))

    def test_the_type_is_kept(self) -> None:
        scales = torch.ones(3, 2).to(torch.float8_e4m3fn)
        assert unswizzle(swizzle(scales), 3, 2).dtype == torch.float8_e4m3fn


def test_nibbles_are_exchanged() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(swap_nibbles(swap_nibbles(every)), every)
    assert torch.equal(unpack(swap_nibbles(every)), unpack(every).reshape(-1, 2).flip(1).reshape(-1))
    assert swap_nibbles(torch.tensor([0x1E], dtype=torch.uint8)).item() == 0xE1


class TestLibraries:
    @pytest.mark.parametrize(("rows", "columns", "shape", "codes", "scales", "values"), COMFY_KITCHEN)
    def test_comfy_kitchens_bytes_are_read_bit_for_bit(
        self, tmp_path: Path, rows: int, columns: int, shape: tuple[int, int], codes: str, scales: str, values: str
    ) -> None:
        parts, _ = nvfp4_parts(made(rows, columns), "swizzled-high")
        assert parts["weight_scale"].shape == shape
        assert (digest(parts["weight"]), digest(parts["weight_scale"])) == (codes, scales), "the file is as theirs"
        view = opened(tmp_path, parts, "swizzled-high")
        assert view.shape == (rows, columns)
        assert digest(view.read()) == values

    def test_modelopts_bytes_are_read_bit_for_bit(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from modelopt.torch.quantization.qtensor import NVFP4QTensor
        library: Any = NVFP4QTensor  # whose types say less than it takes
        quantized, scales, scale = library.quantize(made(256, 192), 16)
        parts = {"weight": quantized._quantized_data, "weight_scale": scales, "weight_scale_2": scale}
        view = opened(tmp_path, parts, "linear-low")
        theirs = quantized.dequantize(dtype=torch.float32, scale=scales, double_scale=scale, block_sizes={-1: 16})
        assert torch.equal(view.read(), theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
class TestLayouts:
    def test_values_are_those_that_were_quantized(self, tmp_path: Path, layout: str) -> None:
        parts, values = nvfp4_parts(made(130, 80), layout)
        assert torch.equal(opened(tmp_path, parts, layout).read(), values)

    def test_rows_are_read_alone(self, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kontext_trt.export.checkpoint.views.CHUNK_ITEMS", 3 * 80)
        parts, values = nvfp4_parts(made(130, 80), layout)
        view = opened(tmp_path, parts, layout).rows(20, 120).rows(3, 100)
        assert view.shape == (97, 80)
        assert [len(chunk) for chunk in view.chunks()] == [240] * 32 + [80]
        assert torch.equal(view.read(), values[23:120])

    def test_what_tensorrt_reads_has_the_same_values(self, tmp_path: Path, layout: str) -> None:
        parts, values = nvfp4_parts(made(130, 80), layout)
        view = opened(tmp_path, parts, layout).rows(1, 129)
        codes, scales = unpack(torch.cat(list(view.packed()))), view.block_scales()
        assert torch.equal(
            Nvfp4Tensor(codes=codes, scales=scales, scale=parts["weight_scale_2"]).values(), values[1:129]
        )


def test_codes_declared_as_fp4_are_read(tmp_path: Path) -> None:
    parts, values = nvfp4_parts(made(128, 64), "linear-low", None)
    data, header, end = b"", {}, 0
    for name, tensor in parts.items():
        shape = [128, 64] if name == "weight" else list(tensor.shape)
        dtype = {"weight": "F4", "weight_scale": "F8_E4M3", "weight_scale_2": "F32"}[name]
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[f"layer.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(raw)]}
        data, end = data + raw, end + len(raw)
    text = json.dumps(header).encode()
    (tmp_path / "f4.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    view = read_formats(open_contents(tmp_path / "f4.safetensors"))["layer.weight"]
    assert isinstance(view, Nvfp4View)
    assert torch.equal(relaid(view, "linear-low").read(), values)
    assert pack(unpack(parts["weight"])).equal(parts["weight"])


class TestInputScale:
    def test_it_is_kept(self, tmp_path: Path) -> None:
        assert opened(tmp_path, nvfp4_parts(made(128, 64), input_scale=0.25)[0]).input_scale == 0.25

    def test_mixed_files_have_none(self, tmp_path: Path) -> None:
        assert opened(tmp_path, nvfp4_parts(made(128, 64), input_scale=None)[0]).input_scale is None

    def test_it_is_not_used_where_the_product_is_to_be_exact(self, tmp_path: Path) -> None:
        text = torch.frombuffer(
            bytearray(b'{"format": "nvfp4", "full_precision_matrix_mult": true}'), dtype=torch.uint8
        )
        parts = {**nvfp4_parts(made(128, 64), input_scale=0.25)[0], "comfy_quant": text}
        assert opened(tmp_path, parts).input_scale is None


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weight_scale_2": None}, r"layer lacks weight_scale_2; NVFP4 is read with weight"),
            ({"pre_quant_scale": torch.ones(64)}, r"layer has pre_quant_scale; NVFP4 is read with"),
            (
                {"weight_scale": torch.ones(3, 4).to(torch.float8_e4m3fn)},
                r"layer is not NVFP4: its weight is U8 \[128, 32\]",
            ),
            ({"weight": torch.zeros(128, 36, dtype=torch.uint8)}, r"inputs in blocks of 16"),
            ({"weight": torch.zeros(4096, dtype=torch.uint8)}, r"is not NVFP4: its weight is U8 \[4096\]"),
            ({"weight_scale_2": torch.tensor(0.0)}, r"weight_scale_2 of layer is 0\.0, not a positive number"),
            ({"weight_scale_2": torch.ones(2)}, r"weight_scale_2 of layer is F32 \[2\], not one floating-point number"),
            ({"input_scale": torch.tensor(float("nan"))}, r"input_scale of layer is nan, not a positive number"),
        ],
    )
    def test_what_no_such_layer_has(self, tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
        parts = {**nvfp4_parts(made(128, 64))[0], **change}
        with pytest.raises(CheckpointError, match=message):
            opened(tmp_path, {name: part for name, part in parts.items() if part is not None})

    def test_scales_that_are_nan(self, tmp_path: Path) -> None:
        parts, _ = nvfp4_parts(made(128, 64), "linear-low")
        parts["weight_scale"].view(torch.uint8)[100, 2] = 0xFF
        view = opened(tmp_path, parts, "linear-low")
        assert torch.isfinite(view.rows(0, 100).read()).all()
        with pytest.raises(CheckpointError, match="block scales of NVFP4 that are NaN"):
            view.read()

    def test_a_file_that_became_shorter(self, tmp_path: Path) -> None:
        view = opened(tmp_path, nvfp4_parts(made(128, 64), "linear-low")[0], "linear-low")
        view.path.write_bytes(b"")
        with pytest.raises(CheckpointError, match="became shorter while it was read"):
            view.read()
