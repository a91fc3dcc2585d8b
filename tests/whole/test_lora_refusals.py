"""Files that are no LoRA of this model are refused by name, whatever is wrong with them; nothing else is raised."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_files import Array, D, model_shapes, number, pair, peft_metadata, random, write_file

from kontext_trt.engine.errors import CheckpointError, LoraError
from kontext_trt.engine.lora import read
from kontext_trt.engine.lora.changes import LowRank, Place
from kontext_trt.engine.lora.fit import change_shape, check_fit
from kontext_trt.engine.lora.read import read_lora

SHAPES = {Place(part=part, tensor=name): shape for (part, name), shape in model_shapes().items()}
LAYER = "transformer.transformer_blocks.0.attn.to_q"
GOOD = pair(LAYER, D, 4)
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
KOHYA = {"a": "lora_down", "b": "lora_up"}
LYCORIS = "lycoris_transformer_blocks_0_attn_to_q"


def filled(value: float) -> Array:
    values = GOOD[DOWN].copy()
    values[1, 3] = value
    return values


def of(stem: str, **slots: Array) -> dict[str, Array]:
    return {f"{stem}.{slot}": values for slot, values in slots.items()}


NAMES = {
    "SD 1.5": "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k",
    "SDXL": "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    "SD3": "transformer.joint_blocks.0.x_block.attn.qkv",
    "FLUX.2": "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj",
    "Qwen-Image": "transformer.transformer_blocks.0.img_mlp.net.0.proj",
    "Wan": "diffusion_model.blocks.0.cross_attn.k",
    "HunyuanVideo": "diffusion_model.double_blocks.0.img_attn_qkv",
    "Z-Image": "diffusion_model.layers.0.attention.qkv",
    "a language model": "base_model.model.model.layers.0.self_attn.q_proj",
}
FILES: dict[str, tuple[Mapping[str, Any], Mapping[str, str] | None, str]] = {
    # tensors, metadata, what is said
    **{
        name: (pair(layer, D, 4), None, f"is a LoRA for {name}.*, not for FLUX.1 Kontext")
        for name, layer in NAMES.items()
        if name not in ("SD 1.5", "SD3")
    },
    "SD 1.5": (pair(NAMES["SD 1.5"], D, 4), None, r"is a LoRA for Stable Diffusion 1, 2 or XL \(a U-Net\)"),
    "SD3": (pair(NAMES["SD3"], D, 4), None, "is a LoRA for Stable Diffusion 3"),
    "unknown": (pair("model.net.3", D, 4), None, "has no layer of FLUX.1 Kontext: its tensors have names like model"),
    "control": (
        {**pair("img_in", D, 4, 128), "double_blocks.0.img_attn.norm.query_norm.scale": random("n", 32)},
        None,
        "img_in has an input width of 128, FLUX.1 Kontext's is 64: it is a control LoRA",
    ),
    "widening": (
        pair("transformer.x_embedder", D, 4, 128),
        None,
        "x_embedder has an input width of 128, FLUX.1 Kontext's is 64",
    ),
    "a checkpoint": ({"img_in.weight": random("w", D, 64)}, None, "is a checkpoint, not a LoRA.*export it"),
    "a diffusers checkpoint": (
        {"transformer_blocks.0.attn.to_q.weight": random("w", D, D), "proj_out.bias": random("b", D)},
        None,
        "is a checkpoint, not a LoRA",
    ),
    "BFL's checkpoint": (
        {"double_blocks.0.img_attn.norm.query_norm.scale": random("w", 32), "img_in.weight": random("i", D, 64)},
        None,
        "is a checkpoint, not a LoRA",
    ),
    "no tensors": ({}, None, "holds no tensors"),
    "something else": ({"a.weight": random("a", 3)}, None, "is no LoRA that is read: its tensors have names like a"),
    "OFT": ({f"{LAYER}.oft_R.weight": random("o", 3, 3)}, None, r"is no LoRA that is read \(OFT\)"),
    "an embedding beside": (
        {**GOOD, "bundle_emb.style": random("e", 4)},
        None,
        r"1 of 3 tensors .* nothing here: bundle_emb.style \(a learned embedding\); --allow-unused .* when it is fused",
    ),
    "a layer that is not known": (
        {**GOOD, **pair("transformer.transformer_blocks.0.attn.to_z", D, 4)},
        None,
        "has 2 of 4 tensors that change nothing here: transformer.transformer_blocks.0.attn.to_z.lora_A.weight, ",
    ),
    "a block's number in two spellings": (
        {**GOOD, **pair("transformer.transformer_blocks.00.attn.to_q", D, 4)},
        None,
        "has 2 of 4 tensors that change nothing here: transformer.transformer_blocks.00.attn.to_q.lora_A.weight, ",
    ),
    "of two families": (
        {**GOOD, **pair("lora_unet_double_blocks_0_img_attn_proj", D, 4, **KOHYA)},
        None,
        "2 of 4 tensors that change nothing here: lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",
    ),
    "alpha alone": (
        {**GOOD, "transformer.proj_out.alpha": number(1)},
        None,
        "1 of 3 tensors that change nothing here: transformer.proj_out.alpha",
    ),
    "two spellings": (
        {**GOOD, f"{LAYER}.lora_down.weight": GOOD[DOWN]},
        None,
        "lora_A.weight and .*lora_down.weight, which are the same in two spellings",
    ),
    "no up": ({DOWN: GOOD[DOWN]}, None, "has down, and no up; the file is incomplete"),
    "ranks": ({DOWN: GOOD[DOWN], UP: random("up", D, 5)}, None, "has a down of rank 4 and an up of rank 5"),
    "NaN": ({**GOOD, DOWN: filled(np.nan)}, None, "lora_A.weight holds NaN or infinity in float32"),
    "infinity": ({**GOOD, DOWN: filled(np.inf)}, None, "lora_A.weight holds NaN or infinity"),
    "beyond float32": ({**GOOD, DOWN: filled(0).astype(np.float64) + 1e300}, None, "holds NaN or infinity in float32"),
    "BF16 NaN": ({**GOOD, DOWN: ("BF16", np.full((4, D), 0xFFC1, np.uint16))}, None, "holds NaN or infinity"),
    "FP8 NaN": ({**GOOD, DOWN: ("F8_E4M3", np.full((4, D), 0x7F, np.uint8))}, None, "holds NaN or infinity"),
    "int8": ({**GOOD, DOWN: ("I8", np.ones((4, D), np.int8))}, None, "has the type I8; a LoRA is read in F64, F32"),
    "one dimension": ({**GOOD, UP: random("up", D)}, None, r"has up \[64\], which should be a matrix"),
    "a number": (of(LAYER, diff=number(1)), None, "has one number where a tensor should be"),
    "empty": ({DOWN: random("d", 0, D), UP: random("u", D, 0)}, None, r"has down \[0, 64\], which should be a matrix"),
    **{
        f"alpha {value}": ({**GOOD, f"{LAYER}.alpha": number(value)}, None, said)
        for value, said in (
            (-1, "has alpha -1.0; it must be a positive"),
            (0, "has alpha 0.0; it must be"),
            (np.nan, "holds NaN"),
        )
    },
    "alpha of two": ({**GOOD, f"{LAYER}.alpha": random("a", 2)}, None, r"has alpha \[2\], which should be one number"),
    "alpha against metadata": (
        {**GOOD, f"{LAYER}.alpha": number(1)},
        peft_metadata(r=4, lora_alpha=8),
        "has alpha 1.0 and rank 4, and the file's configuration says a scale of 2.0",
    ),
    "metadata of another rank": (GOOD, peft_metadata(r=8, lora_alpha=8), "says rank 8 for .*whose tensors have rank 4"),
    "metadata's alpha": (GOOD, peft_metadata(r=4, lora_alpha=-8), "is -8.0; it must be a positive number"),
    "metadata without alpha": (GOOD, peft_metadata(r=4), "lora_adapter_metadata is malformed"),
    "metadata that is no JSON": (GOOD, {"lora_adapter_metadata": "{"}, "lora_adapter_metadata is malformed"),
    "a pattern that is none": (GOOD, peft_metadata(r=4, lora_alpha=8, rank_pattern={"to_[": 4}), "is no pattern"),
    **{
        f"an endless pattern {pattern}": (GOOD, peft_metadata(r=4, lora_alpha=8, rank_pattern={pattern: 4}), said)
        for pattern, said in (
            ("(a+)+$", "is not read"),
            (".*" * 40 + "z", "is not read"),
            (".?" * 40 + "z", "is not read"),
            ("(.|.)" * 40 + "z", "is not read"),
            ("a{99999999999}", "is no pattern"),
        )
    },
    "too many patterns": (
        GOOD,
        peft_metadata(r=4, lora_alpha=8, rank_pattern={f"x{i}": 4 for i in range(5000)}),
        "lora_adapter_metadata is malformed",
    ),
    "metadata of other names": (
        pair("transformer_blocks.0.attn.to_q", D, 4),
        peft_metadata(r=4, lora_alpha=16),
        'configuration is of tensors that begin with "transformer.", and the file\'s begin with ""; their scale',
    ),
    "set_weight beside": (
        {**GOOD, f"{LAYER}.set_weight": random("s", D, D)},
        None,
        "has set_weight, which takes the place of the weight, beside down, up, set_weight",
    ),
    "rows": (
        pair("lora_unet_double_blocks_0_img_attn_qkv", 2 * D, 4, **KOHYA),
        None,
        "changes 128 rows; it is 3 layers in one, whose rows are 3 times its inputs, 64",
    ),
    "rows of linear1": (
        pair("lora_unet_single_blocks_0_linear1", 3 * D, 4, **KOHYA),
        None,
        "changes 192 rows; it is 4 layers in one, whose rows are more than 3 times its inputs, 64",
    ),
    "LoKr whole and decomposed": (
        of(LYCORIS, lokr_w1=random("a", 4, 4), lokr_w1_a=random("b", 4, 2), lokr_w2=random("c", 16, 16)),
        None,
        "has lokr_w1 whole and decomposed",
    ),
    "LoKr of ranks": (
        of(LYCORIS, lokr_w1=random("a", 4, 4), lokr_w2_a=random("b", 16, 2), lokr_w2_b=random("c", 3, 16)),
        None,
        "has lokr_w2 of ranks 2 and 3",
    ),
    "LoKr of two ranks": (
        of(
            LYCORIS,
            lokr_w1_a=random("a", 4, 1),
            lokr_w1_b=random("b", 1, 4),
            lokr_w2_a=random("c", 16, 2),
            lokr_w2_b=random("d", 2, 16),
        ),
        None,
        "has LoKr factors of ranks 1 and 2, which must be one",
    ),
    "a LoKr that explodes": (
        of(
            LYCORIS,
            lokr_w1=random("a", 1, 1),
            lokr_w2_a=random("c", 20_000, 1),
            lokr_w2_b=random("d", 1, 20_000),
        ),
        None,
        "has lokr_w2 of 20,000 x 20,000, which is larger than any layer",
    ),
    "LoHa": (
        of(
            LYCORIS,
            hada_w1_a=random("a", D, 4),
            hada_w1_b=random("b", 4, D),
            hada_w2_a=random("c", D, 4),
            hada_w2_b=random("d", 3, D),
        ),
        None,
        "has LoHa factors whose shapes do not fit: ",
    ),
    "Tucker": (
        {**of(LYCORIS, hada_w1_a=random("a", D, 4)), f"{LYCORIS}.hada_t1": random("t", 4, 4, 3, 3)},
        None,
        "hada_t1 .a Tucker form",
    ),
    "DoRA of fused inputs": (
        {
            **pair("lora_unet_double_blocks_0_img_attn_qkv", 3 * D, 4, **KOHYA),
            "lora_unet_double_blocks_0_img_attn_qkv.dora_scale": random("m", 1, D),
        },
        None,
        "norms of the inputs of several layers that are one in the file",
    ),
    "DoRA of any shape": ({**GOOD, f"{LAYER}.dora_scale": random("m", 3, 3)}, None, "should be one norm per output"),
    "reshape_weight": (
        {**pair("diffusion_model.img_in", D, 4, 64), "diffusion_model.img_in.reshape_weight": np.array([D, 128])},
        None,
        r"has reshape_weight \[64, 128\], which is not the shape of what it adds",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused_in_words(name: str, tmp_path: Path):
    tensors, metadata, said = FILES[name]
    path = write_file(tmp_path / "lora.safetensors", tensors, metadata)
    with pytest.raises(LoraError, match=said) as refused:
        read_lora(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-100], "is cut short: tensor .* download it again"),
        (lambda data: data[:50], "is cut short: its header needs"),
        (lambda data: b"", "is empty"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (lambda data: b"<!DOCTYPE html><html>", "is an HTML page"),
        (lambda data: b"PK\x03\x04" + b"archive/data.pkl", "is a PyTorch pickle"),
        (lambda data: data[:8] + b"x" * (len(data) - 8), "header is malformed"),
    ],
    ids=["data", "header", "empty", "LFS", "HTML", "pickle", "no JSON"],
)
def test_a_damaged_file_is_refused(change: Callable[[bytes], bytes], said: str, tmp_path: Path):
    path = write_file(tmp_path / "lora.safetensors", GOOD)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=said):
        read_lora(path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file"):
        read_lora(tmp_path / "none.safetensors")


def test_too_many_tensors(tmp_path: Path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{i}": entry for i in range(20_001)}).encode()
    (tmp_path / "lora.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(LoraError, match="has 20,001 tensors, more than 20,000: it is no LoRA"):
        read_lora(tmp_path / "lora.safetensors")


def test_tensors_that_overlap(tmp_path: Path):
    """A small file that would take much memory."""
    entry = {"dtype": "F8_E4M3", "shape": [64, 64], "data_offsets": [0, 4096]}
    names = (f"transformer.transformer_blocks.{i}.attn.to_q.lora_{one}.weight" for i in range(50) for one in "AB")
    header = json.dumps(dict.fromkeys(names, entry)).encode()
    (tmp_path / "lora.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4096))
    with pytest.raises(LoraError, match=r"tensors overlap at byte [0-9,]+; its header is damaged"):
        read_lora(tmp_path / "lora.safetensors")


def test_factors_stay_factors(tmp_path: Path):
    """A small file whose factors multiplied out, of each layer, would not fit into memory."""
    tensors: dict[str, Array] = {}
    for i in range(8):
        tensors |= of(
            f"lycoris_transformer_blocks_{i}_attn_to_q",
            lokr_w1=random("a", 1, 1),
            lokr_w2_a=random("b", 8000, 1),
            lokr_w2_b=random("c", 1, 8000),
        )
    path = write_file(tmp_path / "lora.safetensors", tensors)
    tracemalloc.start()
    try:
        opened = read_lora(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [change_shape(change) for change in opened.changes] == [(8000, 8000)] * 8
    assert peak < 64 << 20, "bytes; one product alone takes 256 MB"


@pytest.mark.parametrize("shape", [[1 << 40, 1 << 40, 0], [0, 1 << 62]])
def test_shapes_that_no_array_has(shape: list[int], tmp_path: Path):
    header = json.dumps({f"{LAYER}.diff": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (tmp_path / "lora.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(LoraError, match=r"attn.to_q.diff cannot be read as \[.*0.*\]"):
        read_lora(tmp_path / "lora.safetensors")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_bytes_of_no_tensor(place: int, tmp_path: Path):
    """A tensor that the header does not list, or lists twice by one name, would be lost."""
    listed = list(GOOD.items())
    listed.insert(place, ("more", random("more", 4, D)))
    path = write_file(tmp_path / "lora.safetensors", dict(listed))
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    kept = json.loads(data[8 : 8 + length])
    kept.pop("more")
    header = json.dumps(kept).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    with pytest.raises(LoraError, match=r"the bytes from [0-9,]+ to [0-9,]+ are of no tensor; its header is damaged"):
        read_lora(path)


def test_an_endless_name_is_cut(tmp_path: Path):
    header = json.dumps({"x" * 100_000: {"dtype": "F3", "shape": [], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "lora.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match=r"tensor xxx.* has the unknown type F3") as refused:
        read_lora(tmp_path / "lora.safetensors")
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changes_while_it_is_read(replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or the hash that a picture names would be of other bytes than those that made it."""
    path = write_file(tmp_path / "lora.safetensors", GOOD)
    hashed = read.sha256_file

    def change_first(file: Path) -> str:
        if replaced:
            write_file(tmp_path / "other.safetensors", GOOD).replace(path)
        else:
            with path.open("ab") as writer:
                writer.write(b"more")
        return hashed(file)

    monkeypatch.setattr(read, "sha256_file", change_first)
    with pytest.raises(LoraError, match=r"lora.safetensors changed while it was read; try again"):
        read_lora(path)


def test_a_name_that_cannot_be_written_down_is_escaped(tmp_path: Path):
    path = write_file(tmp_path / "caf\udce9\n.safetensors", GOOD)  # Latin-1, and two lines
    assert read_lora(path).name == r"caf\udce9\n.safetensors"


def test_many_patterns_of_many_layers_are_matched_in_time(tmp_path: Path):
    """More patterns than `re` keeps compiled: diffusers writes one per layer where ranks differ."""
    layers = [f"transformer_blocks.{i}.{one}" for i in range(19) for one in ("attn.to_q", "attn.to_k", "ff.net.2")]
    patterns = {f"single_transformer_blocks.{i}.x{j}": 8 for i in range(38) for j in range(16)} | dict.fromkeys(
        layers, 4
    )
    tensors = {name: values for layer in layers for name, values in pair(f"transformer.{layer}", D, 4).items()}
    path = write_file(tmp_path / "lora.safetensors", tensors, peft_metadata(r=16, lora_alpha=4, rank_pattern=patterns))
    started = time.process_time()
    assert {change.scale for change in read_lora(path).changes if isinstance(change, LowRank)} == {1.0}
    assert time.process_time() - started < 1.5, "seconds; compiling each pattern for each layer takes 3"


def test_unused_tensors_are_left_out_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tensors = {**GOOD, "bundle_emb.style": random("e", 4), "transformer.proj_out.alpha": number(1)}
    opened = read_lora(write_file(tmp_path / "lora.safetensors", tensors), allow_unused=True)
    assert opened.unused == ("bundle_emb.style", "transformer.proj_out.alpha")
    assert [change.place.tensor for change in opened.changes] == ["transformer_blocks.0.attn.to_q.weight"]
    assert "2 tensors change nothing here and are left out: bundle_emb.style" in caplog.text


def test_a_file_without_any_change_is_refused_all_the_same(tmp_path: Path):
    path = write_file(tmp_path / "lora.safetensors", {"transformer.proj_out.alpha": number(1)})
    with pytest.raises(LoraError, match="changes nothing"):
        read_lora(path, allow_unused=True)


def test_a_configuration_beside_a_peft_adapter_counts(tmp_path: Path):
    path = write_file(
        tmp_path / "adapter_model.safetensors", pair("base_model.model.transformer_blocks.0.attn.to_q", D, 4)
    )
    alone = read_lora(path)
    assert ([change.scale for change in alone.changes], alone.adapter_config) == ([1.0], None)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 12}))
    beside = read_lora(path)
    assert [change.scale for change in beside.changes] == [3.0]
    assert beside.adapter_config == hashlib.sha256(config.read_bytes()).hexdigest()
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(LoraError, match=r"adapter_config.json is malformed"):
        read_lora(path)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            pair("transformer.transformer_blocks.7.attn.to_q", D, 4),
            "of the transformer, which this model does not have",
        ),
        (pair(LAYER, 2 * D, 4, 2 * D), r"by \[128, 128\], and this model's is \[64, 64\]: .* another width"),
        (pair("text_encoder.text_model.encoder.layers.9.mlp.fc1", 128, 4), "of CLIP, which this model does not have"),
    ],
)
def test_another_models_shapes_are_refused(tensors: dict[str, Array], said: str, tmp_path: Path):
    opened = read_lora(write_file(tmp_path / "lora.safetensors", tensors))
    with pytest.raises(LoraError, match=said):
        check_fit(opened, SHAPES)
