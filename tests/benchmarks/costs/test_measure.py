"""The benchmarks' own parts, on small things."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kontext_trt import Bundle, Kontext
from kontext_trt.benchmarks.costs.measure import disk_bytes, measure_module
from kontext_trt.benchmarks.costs.quantized_cost import fill_with_random_bytes, fit
from kontext_trt.benchmarks.fixtures.bare_bundle import fill, strip
from kontext_trt.benchmarks.fixtures.sparse_checkpoint import write_sparse_checkpoint
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.configs import TransformerConfig
from kontext_trt.export.graphs.weights import FileTensor, write_tensors


def test_sparse_checkpoint_is_full_size_and_takes_no_disk(tmp_path: Path):
    apparent = write_sparse_checkpoint(tmp_path / "checkpoint")
    assert apparent > 33e9
    assert disk_bytes(tmp_path) < 5e6
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    assert checkpoint.transformer.config == TransformerConfig()
    assert sum(view.num_items for view in checkpoint.transformer.weights.views.values()) == 11_901_408_320
    assert sum(view.size_bytes for view in checkpoint.transformer.weights.views.values()) == 23_802_816_640


def test_bare_bundle_is_small_and_runs_when_filled(bundle: Bundle, tmp_path: Path):
    strip(bundle, tmp_path / "bare")
    assert disk_bytes(tmp_path / "bare") < 5.5e6  # most of it T5's constant tables
    assert not list((tmp_path / "bare").rglob("*.safetensors"))
    fill(tmp_path / "bare")
    filled = Bundle.open(tmp_path / "bare")
    assert filled.verify() == []
    assert filled.fingerprint != bundle.fingerprint
    with Kontext.open(filled) as kontext:
        image = kontext.generate("x", steps=2, seed=0, size=(64, 64)).image
    assert np.asarray(image).std() > 1


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


def test_hard_links_count_once(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/file").write_bytes(bytes(100_000))
    (tmp_path / "b/link").hardlink_to(tmp_path / "a/file")
    (tmp_path / "b/own").write_bytes(bytes(50_000))
    assert 50_000 <= disk_bytes(tmp_path / "b", besides=tmp_path / "a") < 100_000


def test_a_childs_memory_and_report_are_seen(tmp_path: Path, monkeypatch):
    (tmp_path / "child.py").write_text(
        "import json, time\nheld = bytearray(b'x') * 200_000_000\ntime.sleep(2)\nprint(json.dumps({'held': len(held)}))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cost = measure_module("child")
    assert cost.report == {"held": 200_000_000}
    assert 200e6 < cost.peak_anonymous_bytes < 300e6
    assert cost.seconds > 2
