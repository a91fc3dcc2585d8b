"""What an NVFP4 file's own numbers tell of its layout, on the small trained network, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nvfp4_files import in_mlps, shuffled_transformer, small_transformer, write_nvfp4
from torch import Tensor

from kontext_trt.export.checkpoint.contents import open_contents
from kontext_trt.export.checkpoint.formats import read_formats
from kontext_trt.export.checkpoint.nvfp4 import LAYOUTS, Nvfp4View
from kontext_trt.export.checkpoint.nvfp4_evidence import (
    NibbleEvidence,
    ScaleEvidence,
    nibble_evidence,
    pair_evidence,
    scale_evidence,
)
from kontext_trt.export.checkpoint.views import TensorView

WHOLE_TILES = ("proj_mlp.weight", "ff.net.0.proj.weight", "ff_context.net.0.proj.weight")
"""Layers of the small network whose scales fill whole tiles, so that their shape does not tell the layout."""


@pytest.fixture(scope="module")
def trained() -> Mapping[str, Tensor]:
    return small_transformer()


@pytest.fixture(scope="module", params=LAYOUTS)
def file(request: pytest.FixtureRequest, trained: Mapping[str, Tensor], tmp_path_factory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("nvfp4") / "one.safetensors"
    write_nvfp4(path, trained, request.param, chosen=in_mlps)
    return request.param, path


def views_of(path: Path) -> dict[str, TensorView]:
    return read_formats(open_contents(path))


def ambiguous(views: Mapping[str, TensorView]) -> dict[str, TensorView]:
    return {name: view for name, view in views.items() if name.endswith(WHOLE_TILES)}


class TestTrainedNetwork:
    """Of every layout, each of the three others is caught: swizzle, nibbles, both."""

    def test_the_order_of_scales_is_found_where_shapes_do_not_tell_it(self, file: tuple[str, Path]) -> None:
        layout, path = file
        views = ambiguous(views_of(path))
        for view in views.values():
            assert isinstance(view, Nvfp4View)
            assert view.fits(swizzled=True)
            assert view.fits(swizzled=False)
        found = scale_evidence(views)
        right, wrong = (found.swizzled, found.linear)[:: 1 if LAYOUTS[layout].swizzled else -1]
        assert found.decided == LAYOUTS[layout].swizzled
        assert right < -0.6
        assert abs(wrong) < 0.03

    def test_one_layer_is_enough_for_it(self, file: tuple[str, Path]) -> None:
        layout, path = file
        for name, view in ambiguous(views_of(path)).items():
            assert scale_evidence({name: view}).decided == LAYOUTS[layout].swizzled, name

    def test_shapes_tell_it_where_they_can(self, file: tuple[str, Path]) -> None:
        layout, path = file
        found = scale_evidence(views_of(path))
        assert found.decided == LAYOUTS[layout].swizzled
        assert "not possible by their shapes" in str(found)

    def test_the_order_in_a_byte_is_found(self, file: tuple[str, Path]) -> None:
        layout, path = file
        found = nibble_evidence(views_of(path), swizzled=LAYOUTS[layout].swizzled)
        assert found.decided == LAYOUTS[layout].high_first
        assert abs(found.high_first) > 500
        assert found.num_layers == 12

    def test_it_is_found_from_the_single_blocks_alone(self, file: tuple[str, Path]) -> None:
        layout, path = file
        views = {name: view for name, view in views_of(path).items() if name.startswith("single_")}
        found = nibble_evidence(views, swizzled=LAYOUTS[layout].swizzled)
        assert found.decided == LAYOUTS[layout].high_first


def test_first_layers_that_are_not_quantized_serve_as_well(trained: Mapping[str, Tensor], tmp_path: Path) -> None:
    chosen = (".proj_out.weight", ".net.2.weight")
    write_nvfp4(tmp_path / "one.safetensors", trained, "swizzled-low", chosen=lambda name: name.endswith(chosen))
    found = nibble_evidence(views_of(tmp_path / "one.safetensors"), swizzled=True)
    assert found.decided is False
    assert found.num_layers == 12


class TestWhatCannotBeTold:
    def test_weights_that_are_not_trained_say_nothing_of_bytes(self, tmp_path: Path) -> None:
        write_nvfp4(tmp_path / "one.safetensors", shuffled_transformer(), chosen=in_mlps)
        views = views_of(tmp_path / "one.safetensors")
        assert scale_evidence(views).decided is True, "scales and codes belong together in any matrix"
        found = nibble_evidence(views, swizzled=True)
        assert found.decided is None
        assert abs(found.high_first) < 10

    def test_constant_weights_say_nothing_of_scales(self, tmp_path: Path) -> None:
        write_nvfp4(tmp_path / "one.safetensors", {"blocks.weight": torch.ones(1024, 1024)})
        assert scale_evidence(views_of(tmp_path / "one.safetensors")).decided is None

    def test_a_few_blocks_are_not_enough(self, tmp_path: Path) -> None:
        write_nvfp4(tmp_path / "one.safetensors", {"blocks.weight": torch.randn(128, 64)})
        assert scale_evidence(views_of(tmp_path / "one.safetensors")).decided is None

    def test_without_an_mlp_in_nvfp4(self, trained: Mapping[str, Tensor], tmp_path: Path) -> None:
        write_nvfp4(tmp_path / "one.safetensors", trained, chosen=lambda name: name.endswith("to_q.weight"))
        found = nibble_evidence(views_of(tmp_path / "one.safetensors"), swizzled=True)
        assert found.decided is None
        assert "no MLP whose second layer is NVFP4" in str(found)

    def test_scales_of_both_orders_that_agree_alike(self) -> None:
        assert ScaleEvidence(swizzled=-0.5, linear=-0.4, num_blocks=10_000).decided is None
        assert ScaleEvidence(swizzled=-0.5, linear=-0.1, num_blocks=10_000).decided is True
        assert ScaleEvidence(swizzled=-0.05, linear=0.0, num_blocks=10_000).decided is None

    def test_evidence_that_chance_may_give(self) -> None:
        assert NibbleEvidence(high_first=29.0, num_layers=4).decided is None
        assert NibbleEvidence(high_first=-31.0, num_layers=4).decided is False
        assert NibbleEvidence(high_first=35.0, num_layers=24).decided is None


class TestPairs:
    """The evidence on made-up hidden units, whose order means nothing."""

    @staticmethod
    def norms(correlation: float, units: int = 6144, seed: int = 0) -> tuple[Tensor, Tensor]:
        x, y = torch.randn(2, units, generator=torch.Generator().manual_seed(seed))
        return (0.1 * x).exp(), (0.1 * (correlation * x + (1 - correlation**2) ** 0.5 * y)).exp()

    @pytest.mark.parametrize("correlation", [0.3, -0.3])
    def test_the_sign_of_the_correlation_need_not_be_known(self, correlation: float) -> None:
        known, columns = self.norms(correlation)
        right, wrong = (pair_evidence(known, one) for one in (columns, columns.reshape(-1, 2).flip(1).reshape(-1)))
        assert right is not None
        assert right > 100
        assert wrong == pytest.approx(-right)

    def test_chance_gives_as_much_as_is_said(self) -> None:
        found = [pair_evidence(*self.norms(0.0, seed=seed)) or 0.0 for seed in range(200)]
        assert float(torch.tensor(found).std()) == pytest.approx(1, abs=0.3)

    def test_units_that_are_dead_are_left_out(self) -> None:
        known, columns = self.norms(0.5)
        columns[::3] = 0
        assert (pair_evidence(known, columns) or 0) > 100
        assert pair_evidence(known, torch.zeros_like(columns)) is None

    def test_columns_that_are_all_alike_are_no_evidence(self) -> None:
        known, columns = self.norms(0.5)
        assert pair_evidence(known, torch.ones_like(columns)) == 0


def test_a_view_without_a_layout_is_what_is_looked_at(trained: Mapping[str, Tensor], tmp_path: Path) -> None:
    write_nvfp4(tmp_path / "one.safetensors", trained, chosen=in_mlps)
    views = views_of(tmp_path / "one.safetensors")
    assert {view.layout for view in views.values() if isinstance(view, Nvfp4View)} == {None}
    given = {
        name: replace(view, layout=LAYOUTS["linear-low"]) if isinstance(view, Nvfp4View) else view
        for name, view in views.items()
    }
    assert scale_evidence(given) == scale_evidence(views), "what it was thought to be changes nothing"
