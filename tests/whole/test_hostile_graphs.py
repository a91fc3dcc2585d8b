"""What reads a bundle's graphs by torch refuses hostile ones in words: quantizing, calibrating, comparing do."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hostile_cases import Case, dims, graph_bytes, graph_places, networks, weights_header

from kontext_trt import Bundle
from kontext_trt.engine.errors import KontextError
from kontext_trt.export.emulate.bundle_modules import BundleGraph, load_module, read_config
from kontext_trt.export.emulate.emulation import emulated_layers
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import check_recipe, quantize_bundle

KINDS = (graph_bytes, graph_bytes, graph_bytes, graph_places, networks, networks, weights_header, dims)


def _use(case: Case, calibration: Calibration, out: Path) -> None:
    """Everything that raises is raised, but for our own words."""
    with suppress(KontextError):
        opened = Bundle.open(case.bundle)
        for component in sorted(case.changed or {case.component()}):
            with suppress(KontextError):
                graph = BundleGraph.read(opened, component)
                load_module(graph, read_config(opened), emulated_layers(graph))
        with suppress(KontextError):
            check_recipe(opened, make_recipe("fp8"))
        if "denoiser" in case.changed:
            with suppress(KontextError):
                quantize_bundle(opened, out, make_recipe("fp8"), calibration)


def _run(seeds: range, base: Path, calibration: Calibration, tmp_path: Path) -> None:
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir()
    for seed in seeds:
        bundle = Path(shutil.copytree(base, tmp_path / "bundle", copy_function=os.link))
        case = Case(bundle=bundle, dice=random.Random(seed), forbidden=forbidden)
        KINDS[seed % len(KINDS)](case)
        _use(case, calibration, tmp_path / "out")
        shutil.rmtree(bundle)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_hostile_graphs_are_refused(bundle_path: Path, calibration: Calibration, tmp_path: Path) -> None:
    _run(range(24), bundle_path, calibration, tmp_path)


@pytest.mark.check
def test_many_hostile_graphs_are_refused(bundle_path: Path, calibration: Calibration, tmp_path: Path) -> None:
    _run(range(24, 424), bundle_path, calibration, tmp_path)
