"""Names are found both with full stops and joined, and no two layers have one name."""

from __future__ import annotations

import pytest
from lora_files import model_shapes

from kontext_trt.engine.lora.dialects import BFL, CLIP, DIFFUSERS, T5, XLABS, Names, Spelling, joined
from kontext_trt.engine.tensor_names import Target


@pytest.mark.parametrize("names", [BFL, CLIP, DIFFUSERS, T5, XLABS])
def test_joined_names_stay_different(names: Names):
    assert len(joined(names)) == len(names) > 3


@pytest.mark.parametrize("names", [BFL, DIFFUSERS])
def test_every_tensor_of_a_transformer_has_a_name(names: Names):
    layers = {target.layer.replace("{}", "1") for targets in names.values() for target in targets}
    wanted = {name.rpartition(".")[0].replace("s.0.", "s.1.") for part, name in model_shapes() if part == "transformer"}
    assert layers == wanted


def test_a_number_is_put_in():
    spelling = Spelling(prefix="lora_unet_", part="transformer", names=joined(BFL))
    assert spelling.find("lora_unet_double_blocks_17_img_mlp_2") == (Target(layer="transformer_blocks.17.ff.net.2"),)
    assert [one.start for one in spelling.find("lora_unet_single_blocks_3_linear1")] == [0, 1, 2, 3]
    for unknown in ("lora_unet_double_blocks_x_img_mlp_2", "double_blocks_1_img_mlp_2", f"lora_unet_{'0_' * 5000}"):
        assert spelling.find(unknown) == ()
