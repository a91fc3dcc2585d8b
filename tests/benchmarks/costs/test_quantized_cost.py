"""What quantizing costs, drawn out from a few blocks to all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kontext_trt.benchmarks.costs.quantized_cost import fill_with_random_bytes, fit
from kontext_trt.export.graphs.weights import FileTensor, write_tensors


def test_costs_are_drawn_out_to_the_whole():
    """By a line over bytes: of twice the bytes, twice the weights, whatever the start."""
    rows = [{"bf16_gb": size, "weight_gb": 0.5 * size, "build_seconds": 1 + 2 * size} for size in (1.0, 2.0)]
    whole = 17.218224256
    assert fit(rows) == pytest.approx({"weight_gb": 0.5 * whole, "build_seconds": 1 + 2 * whole})


def test_random_codes_leave_scales_usable(tmp_path: Path):
    specs = {
        "a.weight": FileTensor(dtype="F4", shape=(4, 32)),
        "a.weight_scale": FileTensor(dtype="F8_E4M3", shape=(4, 2)),
    }
    specs["a.weight_scale_2"] = FileTensor(dtype="F32", shape=())
    zeros = ((name, torch.zeros(spec.size_bytes, dtype=torch.uint8)) for name, spec in specs.items())
    write_tensors(tmp_path / "w.safetensors", specs, zeros)
    fill_with_random_bytes(tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    assert np.frombuffer(data[-4:], np.float32) == np.float32(1e-3)
    scales = torch.tensor(list(data[-12:-4]), dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    assert (scales > 0.05).all()
    assert (scales < 4).all()
