"""The layout of NVFP4 weights is tested, or asked for: from the file, a reference, or by name."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_files import (
    SMALL,
    SMALL_TRANSFORMER,
    in_mlps,
    nvfp4_tensors,
    shuffled_transformer,
    small_bfl_transformer,
    small_transformer,
    write_nvfp4,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from kontext_trt.engine.errors import CheckpointError, OptionError
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.checkpoint.nvfp4 import LAYOUTS, Nvfp4View


def layout_of(file: Path, **files) -> str:
    opened = open_checkpoint(SMALL, CheckpointFiles(transformer=file, **files))
    found = {view.layout for view in opened.transformer.weights.views.values() if isinstance(view, Nvfp4View)}
    (layout,) = found
    assert layout is not None
    return layout.name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tensors", [small_bfl_transformer, small_transformer])
def test_it_is_found_from_the_file_alone(
    tmp_path: Path, layout: str, tensors: Callable[[], dict[str, Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    values = write_nvfp4(tmp_path / "one.safetensors", tensors(), layout, chosen=in_mlps)
    assert layout_of(tmp_path / "one.safetensors") == layout
    assert f"in the layout {layout}: correlation of block scales with codes: " in caplog.text
    opened = open_checkpoint(SMALL, CheckpointFiles(transformer=tmp_path / "one.safetensors"))
    view = opened.transformer.weights.views["single_transformer_blocks.3.proj_mlp.weight"]
    rows = values.get("single_transformer_blocks.3.proj_mlp.weight", values.get("single_blocks.3.linear1.weight"))
    assert rows is not None
    assert torch.equal(view.read(), rows[-768:]), "rows of fused layers have their own block scales"


def test_a_marker_is_not_believed(tmp_path: Path) -> None:
    """A file that says comfy-kitchen's format, with ModelOpt's bytes."""
    stored, _ = nvfp4_tensors(small_bfl_transformer(), "linear-low", chosen=in_mlps)
    layers = {name.removesuffix(".weight_scale_2"): {"format": "nvfp4"} for name in stored if name.endswith("_scale_2")}
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file(stored, tmp_path / "one.safetensors", metadata)
    assert layout_of(tmp_path / "one.safetensors") == "linear-low"


class TestUndecided:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        write_nvfp4(tmp_path / "one.safetensors", shuffled_transformer(), "swizzled-low", chosen=in_mlps)
        save_file(shuffled_transformer(), tmp_path / "reference.safetensors")
        return tmp_path / "one.safetensors"

    def test_it_is_asked_for(self, file: Path) -> None:
        with pytest.raises(
            CheckpointError,
            match=r"cannot be told from the file alone \(correlation of block scales .* order in a byte: the high half "
            r"first is likelier by e\^.*\); give the same weights unquantized with --reference-weights FILE, or name "
            r"the layout with --trust-layout \(swizzled-high",
        ):
            layout_of(file)

    def test_a_reference_tells_it(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        assert layout_of(file, reference_weights=file.with_name("reference.safetensors")) == "swizzled-low"
        assert "in the layout swizzled-low: cosine 0.99" in caplog.text

    def test_a_trusted_one_is_taken(self, file: Path) -> None:
        assert layout_of(file, trust_layout="swizzled-high") == "swizzled-high"

    def test_a_reference_of_other_weights(self, file: Path) -> None:
        with pytest.raises(CheckpointError, match=r"have other weights, whatever the layout \(cosines: swizzled-high "):
            layout_of(file, reference_weights=SMALL_TRANSFORMER)

    def test_a_reference_that_is_nvfp4_itself(self, file: Path) -> None:
        with pytest.raises(CheckpointError, match=r"the reference of .* has no unquantized weight"):
            layout_of(file, reference_weights=file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_reference_tells_all_four_apart(tmp_path: Path, layout: str) -> None:
    """Only layers whose shapes do not tell the order of their scales."""
    chosen = ("proj_mlp.weight", "net.0.proj.weight")
    write_nvfp4(tmp_path / "one.safetensors", small_transformer(), layout, chosen=lambda name: name.endswith(chosen))
    assert layout_of(tmp_path / "one.safetensors", reference_weights=SMALL_TRANSFORMER) == layout


class TestOptions:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        write_nvfp4(tmp_path / "one.safetensors", small_transformer(), chosen=in_mlps)
        return tmp_path / "one.safetensors"

    def test_a_layout_that_there_is_not(self, file: Path) -> None:
        with pytest.raises(CheckpointError, match=r"is one of swizzled-high, linear-low, .*, not 'comfy'"):
            layout_of(file, trust_layout="comfy")

    def test_a_layout_that_shapes_rule_out(self, file: Path) -> None:
        with pytest.raises(
            CheckpointError, match=r"cannot be linear-low: the block scales of .* are too many or too few"
        ):
            layout_of(file, trust_layout="linear-low")

    def test_both(self, file: Path) -> None:
        with pytest.raises(OptionError, match="--trust-layout or --reference-weights, not both"):
            layout_of(file, trust_layout="swizzled-high", reference_weights=SMALL_TRANSFORMER)

    def test_nothing_to_trust(self) -> None:
        with pytest.raises(OptionError, match="has no NVFP4 weights, whose layout --trust-layout would name"):
            open_checkpoint(SMALL, CheckpointFiles(trust_layout="linear-low"))

    def test_nothing_to_refer_to(self) -> None:
        with pytest.raises(OptionError, match="has no NVFP4 weights, whose layout --reference-weights would tell"):
            open_checkpoint(SMALL, CheckpointFiles(reference_weights=SMALL_TRANSFORMER))


def test_t5_may_be_nvfp4(tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(SMALL / "text_encoder_2", folder)
    tensors = load_file(folder / "model.safetensors")
    chosen = ("DenseReluDense.wi_0.weight", "DenseReluDense.wi_1.weight", "DenseReluDense.wo.weight")
    write_nvfp4(folder / "model.safetensors", tensors, "linear-low", chosen=lambda name: name.endswith(chosen))
    opened = open_checkpoint(SMALL, CheckpointFiles(t5=folder))
    found = {view.layout for view in opened.t5.weights.views.values() if isinstance(view, Nvfp4View)}
    assert found == {LAYOUTS["linear-low"]}
