"""All networks run where their inputs lie: what they make for themselves is made there, too."""

from __future__ import annotations

import pytest
import torch

from kontext_trt.engine.components import KNOWN_COMPONENTS, Precision
from kontext_trt.export.graphs.trace import model_dims
from kontext_trt.export.networks.build import build_module
from kontext_trt.export.tiny import tiny_config
from kontext_trt.export.torch_types import torch_dtype


@pytest.mark.parametrize("name", KNOWN_COMPONENTS)
def test_nothing_lies_on_another_device(name: str):
    """The device meta computes shapes alone, and refuses operands that lie elsewhere as a GPU does."""
    config, component = tiny_config(), KNOWN_COMPONENTS[name]
    dims, sizes = model_dims(config), {"b": 1, "h": 4, "w": 6, "n": 24, "m": 24, "N": 3}
    with torch.device("meta"):
        module = build_module(name, config)
    sizes["s"] = dims.text_length + 48
    given = [
        torch.empty(
            [int(extent) for extent in dims.resolve(port.dims, **sizes)],
            dtype=torch_dtype(port.element_type.resolve(Precision.FP32).number),
            device="meta",
        )
        for port in component.inputs
    ]
    made = module(*given)
    assert all(one.device.type == "meta" for one in ((made,) if isinstance(made, torch.Tensor) else made))
