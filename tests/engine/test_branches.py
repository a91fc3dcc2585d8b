"""Matrices of swapped LoRAs are packed in few inputs, and found in them."""

from __future__ import annotations

import pytest

from kontext_trt.engine.branches import WIDEST, BranchedLayer, Branches
from kontext_trt.engine.components import COMPONENTS


def layers(*extents: tuple[int, int]) -> tuple[BranchedLayer, ...]:
    return tuple(BranchedLayer(name=f"l{i}", inputs=one, outputs=two) for i, (one, two) in enumerate(extents))


def test_there_is_one_input_per_width():
    branches = Branches(rank=4, layers={"denoiser": layers((8, 32), (8, 16), (16, 32))})
    assert {one.name: (one.layers, one.shape) for one in branches.packed("denoiser")} == {
        "lora_down_8": (("l0", "l1"), (16, 4)),
        "lora_down_16": (("l2",), (16, 4)),
        "lora_up_32": (("l0", "l2"), (8, 32)),
        "lora_up_16": (("l1",), (4, 16)),
    }
    assert branches.values("denoiser") == 2 * 4 * 8 + 4 * 16 + 64 * 4 + 16 * 4
    assert branches.packed("conditioner") == ()


def test_a_component_has_them_as_inputs_that_stay():
    branches = Branches(rank=4, layers={"denoiser": layers((8, 32))})
    plain = COMPONENTS["denoiser"]
    made = plain.with_kept(one.port for one in branches.packed("denoiser"))
    assert made.given_inputs == plain.inputs
    assert [(port.name, port.dims) for port in made.kept_inputs] == [
        ("lora_down_8", ("8", "4")),
        ("lora_up_32", ("4", "32")),
    ]


@pytest.mark.parametrize("count", [1, 2, WIDEST, WIDEST + 1, 304, 500])
def test_no_split_has_too_many_pieces_and_all_are_equal(count: int):
    branches = Branches(rank=2, layers={"denoiser": layers(*[(8, 8)] * count)})
    down, up = branches.packed("denoiser")
    assert down.pieces % down.groups == 0
    assert down.pieces // down.groups <= WIDEST
    assert count <= down.pieces < count + down.groups
    assert up.shape == (2 * down.pieces, 8)
