"""The layout of NVFP4 weights is tested, or asked for: from the file, a reference, or by name."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_files import write_nvfp4
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer
from torch import Tensor

from kontext_trt.engine.errors import CheckpointError, OptionError
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.checkpoint.nvfp4 import LAYOUTS, Nvfp4View

SMALL = Path(__file__).parents[3] / "examples/small_kontext/checkpoint"
ORIGINAL = SMALL / "transformer/diffusion_pytorch_model.safetensors"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def trained() -> Tensors:
    return load_file(ORIGINAL)


def shuffled(tensors: Tensors) -> Tensors:
    """The same numbers in an order that no training gave them."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        for name, tensor in tensors.items()
    }


def layout_of(file: Path, **files) -> str:
    opened = open_checkpoint(SMALL, CheckpointFiles(transformer=file, **files))
    found = {view.layout for view in opened.transformer.weights.views.values() if isinstance(view, Nvfp4View)}
    (layout,) = found
    assert layout is not None
    return layout.name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", [bfl_transformer, dict])
def test_it_is_found_from_the_file_alone(
    trained: Tensors, tmp_path: Path, layout: str, names: Callable[[Tensors], Tensors], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    values = write_nvfp4(tmp_path / "one.safetensors", names(trained), layout)
    assert layout_of(tmp_path / "one.safetensors") == layout
    assert f"in the layout {layout}: correlation of block scales with codes: " in caplog.text
    opened = open_checkpoint(SMALL, CheckpointFiles(transformer=tmp_path / "one.safetensors"))
    view = opened.transformer.weights.views["single_transformer_blocks.3.proj_mlp.weight"]
    rows = values.get("single_transformer_blocks.3.proj_mlp.weight", values.get("single_blocks.3.linear1.weight"))
    assert rows is not None
    assert torch.equal(view.read(), rows[-768:]), "rows of fused layers have their own block scales"


def test_a_marker_is_not_believed(trained: Tensors, tmp_path: Path) -> None:
    """A file that says comfy-kitchen's format, with ModelOpt's bytes."""
    from nvfp4_files import nvfp4_tensors

    stored, _ = nvfp4_tensors(bfl_transformer(trained), "linear-low")
    layers = {name.removesuffix(".weight_scale_2"): {"format": "nvfp4"} for name in stored if name.endswith("_scale_2")}
    import json

    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file(stored, tmp_path / "one.safetensors", metadata)
    assert layout_of(tmp_path / "one.safetensors") == "linear-low"


class TestUndecided:
    @pytest.fixture
    def file(self, trained: Tensors, tmp_path: Path) -> Path:
        write_nvfp4(tmp_path / "one.safetensors", shuffled(trained), "swizzled-low")
        save_file(shuffled(trained), tmp_path / "reference.safetensors")
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
            layout_of(file, reference_weights=ORIGINAL)

    def test_a_reference_that_is_nvfp4_itself(self, file: Path) -> None:
        with pytest.raises(CheckpointError, match=r"the reference of .* has no unquantized weight"):
            layout_of(file, reference_weights=file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_reference_tells_all_four_apart(trained: Tensors, tmp_path: Path, layout: str) -> None:
    """Only layers whose shapes do not tell the order of their scales; forgetting that order alone has a cosine of 0.9."""
    chosen = ("proj_mlp.weight", "net.0.proj.weight")
    write_nvfp4(tmp_path / "one.safetensors", trained, layout, chosen=lambda name: name.endswith(chosen))
    assert layout_of(tmp_path / "one.safetensors", reference_weights=ORIGINAL) == layout


class TestOptions:
    @pytest.fixture
    def file(self, trained: Tensors, tmp_path: Path) -> Path:
        write_nvfp4(tmp_path / "one.safetensors", trained)
        return tmp_path / "one.safetensors"

    def test_a_layout_that_there_is_not(self, file: Path) -> None:
        with pytest.raises(CheckpointError, match=r"is one of swizzled-high, linear-low, .*, not 'comfy'"):
            layout_of(file, trust_layout="comfy")

    def test_a_layout_that_shapes_rule_out(self, file: Path) -> None:
        with pytest.raises(CheckpointError, match="cannot be linear-low: the block scales of .* are too many or too few"):
            layout_of(file, trust_layout="linear-low")

    def test_both(self, file: Path) -> None:
        with pytest.raises(OptionError, match="--trust-layout or --reference-weights, not both"):
            layout_of(file, trust_layout="swizzled-high", reference_weights=ORIGINAL)

    def test_nothing_to_trust(self) -> None:
        with pytest.raises(OptionError, match="has no NVFP4 weights, whose layout --trust-layout would name"):
            open_checkpoint(SMALL, CheckpointFiles(trust_layout="linear-low"))

    def test_nothing_to_refer_to(self) -> None:
        with pytest.raises(OptionError, match="has no NVFP4 weights, whose layout --reference-weights would tell"):
            open_checkpoint(SMALL, CheckpointFiles(reference_weights=ORIGINAL))


def test_t5_may_be_nvfp4(tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(SMALL / "text_encoder_2", folder)
    tensors = load_file(folder / "model.safetensors")
    chosen = ("DenseReluDense.wi_0.weight", "DenseReluDense.wi_1.weight", "DenseReluDense.wo.weight")
    write_nvfp4(folder / "model.safetensors", tensors, "linear-low", chosen=lambda name: name.endswith(chosen))
    opened = open_checkpoint(SMALL, CheckpointFiles(t5=folder))
    found = {view.layout for view in opened.t5.weights.views.values() if isinstance(view, Nvfp4View)}
    assert found == {LAYOUTS["linear-low"]}
