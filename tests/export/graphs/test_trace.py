"""Graphs: sound for every tool, views of the checkpoint, exact, in both forms of operators."""

import errno
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from polygraphy.backend.onnx import OnnxFromPath
from safetensors.torch import load_file, save_file

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.configs import ModelConfig, TransformerConfig
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.trace import TraceOptions, trace
from kontext_trt.export.networks.layers import WIDEST


def structure(bundle: Bundle, component: str) -> onnx.ModelProto:
    return onnx.load(bundle.open_graph(component).path, load_external_data=False)


@pytest.fixture(scope="module")
def copied_bundle(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle on what might be another file system: nothing can be linked, so weights are copied."""
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        patch.setattr("kontext_trt.engine.system.files.os.link", refuse)
        patch.setattr("kontext_trt.engine.system.files._reflink", lambda *_: False)
        return export_bundle(open_checkpoint(checkpoint_path), tmp_path_factory.mktemp("copied") / "bundle")


@pytest.fixture(scope="module")
def decomposed_bundle(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    options = ExportOptions(operators=Operators.DECOMPOSED)
    return export_bundle(open_checkpoint(checkpoint_path), tmp_path_factory.mktemp("decomposed") / "bundle", options)


class TestSoundness:
    @pytest.mark.parametrize("component", COMPONENTS)
    def test_checker_inference_and_polygraphy_load_it(self, copied_bundle: Bundle, component: str, tmp_path: Path):
        path = str(copied_bundle.open_graph(component).path)
        onnx.checker.check_model(path, full_check=True)
        onnx.shape_inference.infer_shapes_path(path, str(tmp_path / "inferred.onnx"), strict_mode=True, data_prop=True)
        assert OnnxFromPath(path)().graph.node

    @pytest.mark.parametrize("component", COMPONENTS)
    def test_linked_weights_load_where_hard_links_are_allowed(self, bundle: Bundle, component: str, tmp_path: Path):
        """onnx >= 1.21 refuses to read data from a file with several names; structure and inference work as ever."""
        path = str(bundle.open_graph(component).path)
        onnx.shape_inference.infer_shapes_path(path, str(tmp_path / "inferred.onnx"), strict_mode=True, data_prop=True)
        assert OnnxFromPath(path, ignore_external_data=True)().graph.node
        with pytest.raises(onnx.checker.ValidationError, match="multiple hard links"):
            onnx.load(path)

    @pytest.mark.parametrize("component", COMPONENTS.values(), ids=COMPONENTS)
    def test_borders_are_the_tables(self, bundle: Bundle, component):
        session = onnxruntime.InferenceSession(bundle.open_graph(component).path)
        dims = bundle.manifest.model.dims
        for ports, values in (
            (component.inputs, session.get_inputs()),
            (component.outputs, session.get_outputs()),
        ):
            assert [(port.name, list(dims.resolve(port.dims))) for port in ports] == [(v.name, v.shape) for v in values]

    @pytest.mark.check  # six graphs traced for these three tests
    def test_decomposed_graphs_are_sound(self, decomposed_bundle: Bundle, tmp_path: Path):
        for component in COMPONENTS:
            path = str(decomposed_bundle.open_graph(component).path)
            onnx.shape_inference.infer_shapes_path(path, str(tmp_path / "inferred.onnx"), strict_mode=True)


class TestOperators:
    EXPECTED: ClassVar = {
        "clip": {"Attention": 2},
        "t5": {"Attention": 2, "RMSNormalization": 5},
        "denoiser": {"Attention": 4, "RMSNormalization": 12, "RotaryEmbedding": 8, "Split": 1},
        "vae_encoder": {"Attention": 1, "GroupNormalization": 14},
        "vae_decoder": {"Attention": 1},
        "conditioner": {},
    }

    @pytest.mark.parametrize("component", COMPONENTS)
    def test_single(self, bundle: Bundle, component: str):
        counts = Counter(node.op_type for node in structure(bundle, component).graph.node)
        for operator, count in self.EXPECTED[component].items():
            assert counts[operator] == count, counts
        assert not counts["Softmax"]

    @pytest.mark.check  # six graphs traced for these three tests
    @pytest.mark.parametrize("component", COMPONENTS)
    def test_decomposed(self, decomposed_bundle: Bundle, component: str):
        model = structure(decomposed_bundle, component)
        counts = Counter(node.op_type for node in model.graph.node)
        assert model.opset_import[0].version == decomposed_bundle.graph(component).opset == 20
        for operator in ("Attention", "RMSNormalization", "RotaryEmbedding"):
            assert not counts[operator]
        assert counts["Softmax"] == self.EXPECTED[component].get("Attention", 0)

    @pytest.mark.check  # six graphs traced for these three tests
    def test_both_give_the_same_picture(self, kontext: Kontext, decomposed_bundle: Bundle, picture):
        with Kontext.open(decomposed_bundle) as other:
            one, two = (session.edit(picture(96, 192), "x", steps=3, seed=0) for session in (kontext, other))
        np.testing.assert_allclose(one.outputs[0].latents, two.outputs[0].latents, atol=2e-5)

    def test_last_block_computes_target_tokens_only(self, bundle: Bundle):
        """The output projection of the last block sees n tokens, that of the block before all of them."""
        model = onnx.shape_inference.infer_shapes(structure(bundle, "denoiser"))
        shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
        lengths = []
        for block in (0, 1):
            weight = f"single_transformer_blocks.{block}.proj_out.weight"
            (transpose,) = [node for node in model.graph.node if weight in node.input]
            (product,) = [node for node in model.graph.node if transpose.output[0] in node.input]
            lengths.append(shapes[product.output[0]][1])
        assert lengths[1].dim_param == "n"
        assert lengths[0].dim_param != "n"


class TestViews:
    def test_weights_are_the_checkpoints_own_bytes(self, checkpoint_path: Path, bundle: Bundle):
        inodes = {file.stat().st_ino for file in checkpoint_path.rglob("*.safetensors")}
        for record in bundle.manifest.weights:
            assert record.origin == "hardlink"
            assert (bundle.path / record.path).stat().st_ino in inodes

    def test_split_halves_and_shared_weights_are_stored_once(self, bundle: Bundle):
        """One file serves conditioner and denoiser, x_embedder included; norm_out's halves are rows of one tensor."""
        places = {}
        for component in ("conditioner", "denoiser"):
            for tensor in structure(bundle, component).graph.initializer:
                if tensor.external_data:
                    fields = {entry.key: entry.value for entry in tensor.external_data}
                    places[component, tensor.name] = (fields["location"], int(fields["offset"]), int(fields["length"]))
        assert places["conditioner", "x_embedder.weight"] == places["denoiser", "x_embedder.weight"]
        scale, shift = (places["conditioner", f"norm_out.{name}.weight"] for name in ("scale", "shift"))
        assert scale[1] + scale[2] == shift[1]

    def test_nothing_but_structure_is_written(self, bundle: Bundle):
        """T5's graph has two constant tables of relative positions, 512 x 512, whatever its size; the rest is small."""
        sizes = {record.path: record.size_bytes for record in bundle.manifest.files}
        assert sizes.pop("graphs/t5.onnx") < 4_500_000
        assert sum(sizes.values()) < 400_000
        assert bundle.graph("denoiser").weight_bytes == 4 * bundle.graph("denoiser").num_parameters

    def test_hub_caches_symbolic_links_are_followed(self, checkpoint_copy: Path, tmp_path: Path):
        """A hub cache is a tree of symbolic links into a folder of blobs."""
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        for i, file in enumerate(checkpoint_copy.rglob("*.safetensors")):
            file.rename(blobs / str(i))
            file.symlink_to(blobs / str(i))
        made = export_bundle(open_checkpoint(checkpoint_copy), tmp_path / "bundle")
        for record in made.manifest.weights:
            assert not (made.path / record.path).is_symlink()
        onnxruntime.InferenceSession(made.open_graph("clip").path)

    def test_bundle_outlives_the_checkpoints_names(self, checkpoint_copy: Path, tmp_path: Path):
        made = export_bundle(open_checkpoint(checkpoint_copy), tmp_path / "bundle")
        for file in checkpoint_copy.rglob("*.safetensors"):
            file.unlink()
        assert Bundle.open(made.path).verify().problems == ()

    def test_a_source_named_like_a_converted_file_is_left_as_it_is(self, checkpoint_copy: Path, tmp_path: Path):
        """One tensor of another type is converted, and the name its file would get is the source's."""
        folder = checkpoint_copy / "transformer"
        tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
        tensors["proj_out.bias"] = tensors["proj_out.bias"].to(torch.bfloat16)
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        save_file(tensors, folder / "fp32.safetensors")
        before = (folder / "fp32.safetensors").read_bytes()
        made = export_bundle(open_checkpoint(checkpoint_copy), tmp_path / "bundle")
        origins = {record.path: record.origin for record in made.manifest.weights}
        assert origins["graphs/weights/transformer.fp32.safetensors"] != "converted"
        assert origins["graphs/weights/transformer.fp32-2.safetensors"] == "converted"
        assert (folder / "fp32.safetensors").read_bytes() == before
        assert made.verify().problems == ()
        onnxruntime.InferenceSession(made.open_graph("denoiser").path)


@pytest.mark.check  # eight blocks, traced for this alone
def test_no_operator_takes_a_list_longer_than_a_kernel_does() -> None:
    """Of 62 vectors, ONNX Runtime's CUDA kernels would read more addresses than fit in a kernel's arguments."""
    small = TransformerConfig(
        num_double_blocks=4, num_single_blocks=4, num_heads=2, head_width=16, text_width=32, pooled_width=32,
        rope_axes=(4, 6, 6),
    )  # fmt: skip
    config = ModelConfig(transformer=small)
    for component in ("conditioner", "denoiser"):
        model = trace(COMPONENTS[component], config, TraceOptions(precision=Precision.FP32))
        lists = [node for node in model.graph if node.op_type in ("Split", "Concat")]
        assert lists
        assert max(max(len(node.inputs), len(node.outputs)) for node in lists) <= WIDEST
