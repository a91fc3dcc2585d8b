"""What FP8 bodies do to queries and keys is what emulation and calibration say it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from fused_models import Sizes, arrays, attributes, model

from kontext_trt.engine.components import Precision
from kontext_trt.export.graphs.formats import fake_fp8, hadamard, smoothed
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.definition import Definition, Format

SIZES = [Sizes(), Sizes(text=40, image=230, heads=3, width=16), Sizes(text=24, image=40, heads=1, width=256)]


def results(definition: Definition, sizes: Sizes) -> dict[str, np.ndarray]:
    given = attributes(definition, sizes)
    session = onnxruntime.InferenceSession(model(definition, Precision.FP32, given), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays(definition, sizes)), strict=True))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["Heads", "JointHeads"])
def test_queries_and_keys_are_turned_and_then_rounded(name: str, sizes: Sizes) -> None:
    plain = DEFINITIONS[name]
    fp8 = replace(plain, format=Format(result=True))
    wide, codes, scales = results(plain, sizes), results(fp8, sizes), attributes(fp8, sizes)
    for part, values in wide.items():
        b, tokens, _ = values.shape
        heads = torch.from_numpy(values.copy()).view(b, tokens, sizes.heads, sizes.width).transpose(1, 2)
        if part == "k":
            heads = smoothed(heads)
        turned = heads if part == "v" else hadamard(heads)
        wanted = fake_fp8(turned, scales[f"{part}_scale"]).transpose(1, 2).reshape(values.shape).numpy()
        found = codes[part] * scales[f"{part}_scale"]
        off = np.abs(found - wanted)
        assert (off > 0).mean() < 0.01, "a value between two falls the other way"
        assert (off <= np.abs(wanted) / 8 + 1e-3).all()
