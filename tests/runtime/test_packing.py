"""What LoRA files change becomes matrices of branches, or is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from kontext_trt import LoraError
from kontext_trt.engine.branches import BranchedLayer, Branches
from kontext_trt.engine.components import Precision
from kontext_trt.engine.lora.changes import Change, Difference, LoraFile, LowRank, Magnitude, Place, Replacement
from kontext_trt.runtime.packing import pack

RNG = np.random.default_rng(0)
BRANCHES = Branches(
    rank=4,
    layers={
        "conditioner": (BranchedLayer(name="x_embedder", inputs=6, outputs=8),),
        "denoiser": (
            BranchedLayer(name="x_embedder", inputs=6, outputs=8),
            BranchedLayer(name="blocks.0.q", inputs=8, outputs=8),
            BranchedLayer(name="blocks.0.ff", inputs=8, outputs=16),
        ),
    },
)


def low(tensor: str, rank: int = 2, extents: tuple[int, int] = (8, 8), scale: float = 1.0, part: str = "transformer"):
    outputs, inputs = extents
    down, up = (RNG.standard_normal(shape, dtype=np.float32) for shape in ((rank, inputs), (outputs, rank)))
    return LowRank(place=Place(part=part, tensor=tensor), down=down, up=up, scale=scale)


def file(*changes: Change, name: str = "style.safetensors") -> LoraFile:
    return LoraFile(name=name, sha256="0" * 64, family="PEFT", changes=changes)


def added(packed, component: str, layer: str) -> np.ndarray:
    """What a branch adds to its layer's weight."""
    found = [(one, packed[component][one.name]) for one in BRANCHES.packed(component) if layer in one.layers]
    (down, up) = (array[one.row(layer) : one.row(layer) + one.rows] for one, array in found)
    return (down.astype(np.float64) @ up.astype(np.float64)).T


def delta(change: LowRank, scale: float = 1.0) -> np.ndarray:
    return scale * change.scale * (change.up.astype(np.float64) @ change.down.astype(np.float64))


def test_files_lie_one_after_another_along_the_rank():
    first, second = low("blocks.0.q.weight", scale=0.5), low("blocks.0.q.weight", scale=3.0)
    other = low("blocks.0.ff.weight", 1, (16, 8))
    packed = pack([(file(first, other), 0.7), (file(second), -1.0)], BRANCHES, Precision.FP32)
    np.testing.assert_allclose(
        added(packed, "denoiser", "blocks.0.q"), delta(first, 0.7) + delta(second, -1.0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(added(packed, "denoiser", "blocks.0.ff"), delta(other, 0.7), rtol=1e-5, atol=1e-6)
    assert not added(packed, "denoiser", "x_embedder").any()
    assert not any(array.any() for array in packed["conditioner"].values())


def test_a_layer_that_two_components_have_changes_in_both():
    change = low("x_embedder.weight", 4, (8, 6))
    packed = pack([(file(change), 1.0)], BRANCHES, Precision.FP32)
    for component in ("conditioner", "denoiser"):
        np.testing.assert_allclose(added(packed, component, "x_embedder"), delta(change), rtol=1e-5, atol=1e-6)


def test_bf16_comes_as_its_bits_rounded_to_the_nearest():
    change = low("blocks.0.q.weight")
    packed = pack([(file(change), 1.0)], BRANCHES, Precision.BF16)
    bits = packed["denoiser"]["lora_down_8"]
    assert bits.dtype == np.uint16
    found = (bits.astype(np.uint32) << 16).view(np.float32)[:8, :2].T
    np.testing.assert_allclose(found, change.down, rtol=2**-8)
    assert np.abs(found - change.down).max() > 0
    assert pack([(file(change), 1.0)], BRANCHES, Precision.FP16)["denoiser"]["lora_down_8"].dtype == np.float16


WHOLE = np.zeros((8, 8), np.float32)
PLACE = Place(part="transformer", tensor="blocks.0.q.weight")
REFUSED: list[tuple[list[LoraFile], str]] = [
    (
        [file(Difference(place=PLACE, values=WHOLE, scale=1.0, kind="LoKr"))],
        r"style.safetensors changes blocks.0.q.weight of the transformer by LoKr, which is no pair of low-rank matrices"
        r" and cannot be swapped in; fuse it: kontext-trt lora fuse BUNDLE style.safetensors OUT",
    ),
    (
        [
            file(
                Difference(
                    place=Place(part="transformer", tensor="blocks.0.q.bias"), values=WHOLE[0], scale=1, kind="bias"
                )
            )
        ],
        "changes blocks.0.q.bias of the transformer by bias, .* fuse it",
    ),
    ([file(low("blocks.0.q.weight"), Magnitude(place=PLACE, values=WHOLE[:, :1]))], "by DoRA, .* fuse it"),
    ([file(Replacement(place=PLACE, values=WHOLE))], "by .set_weight, .* fuse it"),
    (
        [file(low("text_model.q.weight", part="clip"))],
        "changes text_model.q.weight of CLIP, and only the transformer's layers have branches; fuse it",
    ),
    ([file(low("encoder.q.weight", part="t5"))], "of T5, .* fuse it"),
    ([file(low("blocks.7.q.weight"))], "blocks.7.q.weight of the transformer, which is no linear layer of this bundle"),
    (
        [file(low("blocks.0.q.weight", 2, (8, 6)))],
        r"by \[8, 6\], and this bundle's is \[8, 8\]: it is for a model of another width",
    ),
    ([file(low("blocks.0.q.weight", 5))], r"style.safetensors needs a rank of 5 \(of blocks.0.q\), and .* have 4"),
    ([file(low("blocks.0.q.weight", 1025))], "needs a rank of 1025 .* branches have 4; fuse: kontext-trt lora fuse"),
    (
        [file(low("blocks.0.q.weight", 3), name="a"), file(low("blocks.0.q.weight", 2), name="b")],
        "a and b need a rank of 5 .* export it with --lora-rank 5, or fuse",
    ),
]


@pytest.mark.parametrize(("files", "words"), REFUSED)
def test_what_no_branch_can_add_is_refused(files: list[LoraFile], words: str):
    with pytest.raises(LoraError, match=words):
        pack([(one, 1.0) for one in files], BRANCHES, Precision.FP32)


def test_values_that_no_type_holds_are_refused():
    with pytest.raises(LoraError, match="values beyond what fp32 holds, or that are no numbers"):
        pack([(file(low("blocks.0.q.weight", scale=1e38)), 100.0)], BRANCHES, Precision.FP32)


def test_values_that_the_type_cannot_hold_are_refused():
    change = low("blocks.0.q.weight", scale=1e6)
    pack([(file(change), 1.0)], BRANCHES, Precision.BF16)
    with pytest.raises(LoraError, match=r"values beyond what fp16 holds, .* give a smaller scale"):
        pack([(file(change), 1.0)], BRANCHES, Precision.FP16)
