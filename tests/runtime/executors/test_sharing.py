"""How many devices can share a bundle's requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kontext_trt import Bundle, BundleError, Kontext, OptionError
from kontext_trt.engine.components import Precision
from kontext_trt.runtime.executors.sharing import MOST_DEVICES, check_sharing, fitting, heads_of


def with_heads(bundle: Bundle, heads: int) -> Bundle:
    """A bundle that says so, and is not to be run."""
    model = bundle.manifest.model
    dims = replace(model.dims, hidden=heads * 2 * model.dims.rope_width)
    return replace(bundle, manifest=replace(bundle.manifest, model=replace(model, dims=dims)))


def test_heads_are_divided_evenly(bundle: Bundle):
    assert heads_of(bundle.manifest.model.dims) == 2
    assert fitting(24) == (2, 3, 4, 6, 8)
    assert fitting(2) == (2,)
    assert fitting(7) == (7,)
    assert fitting(11) == (), f"{MOST_DEVICES} at most"


@pytest.mark.parametrize(
    ("heads", "devices", "words"),
    [
        (24, 5, "24 heads cannot be shared by 5 devices; 4 or 6 can, or 1"),
        (24, 16, "24 heads cannot be shared by 16 devices; 6 or 8 can, or 1"),
        (2, 3, "2 heads cannot be shared by 3 devices; 2 can, or 1"),
        (11, 2, "11 heads cannot be shared by 2 devices; open 1"),
    ],
)
def test_the_nearest_numbers_are_told(fused_path: Path, heads: int, devices: int, words: str):
    with pytest.raises(OptionError, match=words):
        check_sharing(with_heads(Bundle.open(fused_path), heads), devices)


def test_fused_operators_are_needed(fused_path: Path, bundle: Bundle):
    check_sharing(Bundle.open(fused_path), 2)
    for devices in fitting(24):
        check_sharing(with_heads(Bundle.open(fused_path), 24), devices)
    with pytest.raises(BundleError, match="its denoiser has no fused operators; export the checkpoint again with --op"):
        check_sharing(bundle, 2)


def test_fp16_is_refused_when_it_is_opened(fused_path: Path):
    """No operator that exchanges takes it, on GPUs or the CPU."""
    bundle = Bundle.open(fused_path)
    graphs = {**bundle.manifest.graphs, "denoiser": replace(bundle.graph("denoiser"), precision=Precision.FP16)}
    with pytest.raises(
        BundleError, match=r"its denoiser is in fp16, .* --precision bf16 for GPUs, or fp32 for the CPU"
    ):
        Kontext.open(replace(bundle, manifest=replace(bundle.manifest, graphs=graphs)), executor="cpu", devices=2)
