"""Looking into a denoiser: the outputs of its blocks, from ONNX Runtime and from torch, for the same step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from kontext_trt import Bundle
from kontext_trt.export.networks.operations import Stream

BLOCKS = ("transformer_blocks", "single_transformer_blocks")
LAST_LAYERS = {"ff.net.2": "image", "ff_context.net.2": "text", "proj_out": ""}
"""The linear layers whose results, gated and added to the residual, are the outputs of blocks."""

Outputs = dict[tuple[str, str], np.ndarray]


def torch_block_outputs(denoiser: nn.Module, inputs: Mapping[str, Tensor]) -> Outputs:
    """By block and stream."""
    found: Outputs = {}
    handles = []
    settle = denoiser.form.settled
    for stack in BLOCKS:
        for index, block in enumerate(denoiser.get_submodule(stack).children()):

            def keep(_, __, output, name=f"{stack}.{index}"):
                streams = (
                    {"": output} if isinstance(output, Stream) else dict(zip(("text", "image"), output, strict=True))
                )
                for stream, value in streams.items():
                    found[name, stream] = settle(value).float().numpy()

            handles.append(block.register_forward_hook(keep))
    with torch.no_grad():
        denoiser(*inputs.values())
    for handle in handles:
        handle.remove()
    return found


def ort_block_outputs(bundle: Bundle, inputs: Mapping[str, Tensor]) -> Outputs:
    """The same from the bundle's graph, with its blocks' outputs made outputs of the graph."""
    model = ir.load(bundle.open_graph("denoiser").path)
    values = dict(_block_values(model))
    for value in values.values():
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    path = Path(bundle.open_graph("denoiser").path).with_name("probed.onnx")
    ir.save(model, path)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    path.unlink()
    results = session.run([value.name for value in values.values()], {k: v.numpy() for k, v in inputs.items()})
    return dict(zip(values, map(np.asarray, results), strict=True))


def _block_values(model: ir.Model) -> Iterator[tuple[tuple[str, str], ir.Value]]:
    for node in model.graph:
        stack, _, rest = (node.name or "").partition(".")
        index, _, layer = rest.partition(".")
        if stack in BLOCKS and layer in LAST_LAYERS:
            yield (f"{stack}.{index}", LAST_LAYERS[layer]), _after_the_gate(node)


def _after_the_gate(product: ir.Node) -> ir.Value:
    """Past the bias and the gate's Mul to the residual's Add."""
    node = product
    while node.op_type != "Mul":
        ((node, _),) = node.outputs[0].uses()
    ((addition, _),) = node.outputs[0].uses()
    return addition.outputs[0]
