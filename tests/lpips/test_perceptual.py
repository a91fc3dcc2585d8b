"""LPIPS beside the library itself, with random weights: AlexNet's own are a download."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench_folders import QuickKontext, kontext_bench

from kontext_trt import MissingDependencyError
from kontext_trt.benchmarks.quality.public.against import compare_answers
from kontext_trt.benchmarks.quality.public.layouts import read_bench
from kontext_trt.benchmarks.quality.public.perceptual import Lpips
from kontext_trt.benchmarks.quality.public.running import run_bench

pytestmark = pytest.mark.check

OPERATORS = ("nms", "qnms")
"""What torchvision registers shapes for when it is imported; beside torch's CPU build nothing defines them."""


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    try:
        import lpips
    except RuntimeError:
        defined = torch.library.Library("torchvision", "DEF")
        for name in OPERATORS:
            defined.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import lpips

        yield lpips
        del defined
    else:
        yield lpips


@pytest.fixture
def network(library: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The network that the library makes, with its own last layers over a random AlexNet."""
    made: list[Any] = []
    original = library.LPIPS

    @functools.wraps(original)
    def random_backbone(**options: Any) -> Any:
        torch.manual_seed(0)
        made.append(original(**options, pnet_rand=True))
        return made[-1]

    monkeypatch.setattr(library, "LPIPS", random_backbone)
    return made


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_the_distance_is_the_librarys(library: Any, network: Any):
    """Channels, ranges and order of axes as the library's own reader of pictures has them."""
    lpips = Lpips()
    for seed in range(3):
        one, other = noise(seed), noise(seed + 10)
        with torch.inference_mode():
            wanted = float(network[0](library.im2tensor(one), library.im2tensor(other)))
        assert lpips.distance(one, other) == pytest.approx(wanted, rel=1e-5)
        assert wanted > 0
        assert lpips.distance(one, other[..., ::-1].copy()) != pytest.approx(wanted, rel=1e-3), "channels differ"
    assert lpips.distance(one, one) == 0


def test_answers_are_compared(network: Any, tmp_path: Path):
    items = read_bench(kontext_bench(tmp_path / "bench", 2)).items
    runs = [
        run_bench(QuickKontext(fingerprint=name * 32, offset=offset, size=(64, 64)).opened, items, tmp_path / name)
        for name, offset in (("ab", 0), ("cd", 30))
    ]
    pairs = compare_answers(runs[0].folder, runs[0].answers, runs[1].folder, runs[1].answers, lpips=Lpips())
    assert all(pair.lpips is not None and pair.lpips > 0 for pair in pairs.values())


def test_a_torchvision_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("kontext_trt.benchmarks.quality.public.perceptual.importlib.import_module", broken)
    with pytest.raises(MissingDependencyError, match=r"lpips cannot be imported: operator .*nms .* one index"):
        Lpips()
