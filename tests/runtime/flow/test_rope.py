"""Positions and their rotary tables by hand, and against diffusers."""

import numpy as np
import torch
from diffusers.models.transformers.transformer_flux import FluxPosEmbed

from kontext_trt.runtime.flow.rope import position_ids, rope_tables


def test_position_ids_by_hand():
    ids = position_ids(2, (1, 2), ((2, 1),))
    assert ids.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]]


def test_rope_tables_are_diffusers():
    target, reference, axes = (4, 6), (5, 3), (16, 56, 56)
    cos, sin = rope_tables(8, target, (reference,), axes, 10_000.0)
    expected = FluxPosEmbed(10_000, list(axes))(torch.from_numpy(position_ids(8, target, (reference,))))
    for ours, theirs in zip((cos, sin), expected, strict=True):
        assert ours.shape == (8 + 24 + 15, 64)
        np.testing.assert_array_equal(np.repeat(ours, 2, axis=1), theirs.numpy())
