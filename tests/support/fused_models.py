"""Makes graphs of one fused operator each, whose inputs and outputs are float32 whatever the operator's are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from kontext_trt.engine.components import Precision
from kontext_trt.runtime.operators.body import OPSET
from kontext_trt.runtime.operators.catalogue import DOMAIN, VERSION
from kontext_trt.runtime.operators.definition import Definition, Kind, scale_of
from kontext_trt.runtime.operators.functions import function_bytes
from kontext_trt.runtime.operators.picture_operators import PICTURE_OPERATORS

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Holds the extents of an operator's inputs."""

    pictures: int = 2
    text: int = 24
    image: int = 40
    heads: int = 2
    width: int = 64
    wide: int = 256
    rows: int = 6
    columns: int = 10
    channels: int = 64
    filters: int = 40
    rank: int = 12

    @property
    def hidden(self) -> int:
        return self.heads * self.width


def model(definition: Definition, precision: Precision, attributes: dict[str, float | int]) -> bytes:
    """Return a graph of one node that computes in `precision`; its inputs and outputs are cast to and from it."""
    types = {
        Kind.OWN: precision.number.onnx_number,
        Kind.FLOAT32: TensorProto.FLOAT,
        Kind.FP8: TensorProto.FLOAT8E4M3FN,
    }
    rank = len(next(iter(shapes(definition, Sizes()).values())))  # outputs have that of the first input
    nodes: list[Any] = []
    infos: list[Any] = []
    for name, kind in zip(definition.inputs, definition.input_kinds, strict=True):
        nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=types[kind]))
    outputs = definition.operator.outputs
    nodes.append(
        helper.make_node(
            definition.name, [f"{name}_cast" for name in definition.inputs], [f"{name}_own" for name in outputs],
            domain=DOMAIN, **attributes,
        )
    )  # fmt: skip
    for name, kind in zip(outputs, definition.output_kinds, strict=True):
        nodes.append(helper.make_node("Cast", [f"{name}_own"], [name], to=TensorProto.FLOAT))
        infos.append(helper.make_tensor_value_info(f"{name}_own", types[kind], [None] * rank))
    graph = helper.make_graph(
        nodes,
        definition.name,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape))
            for name, shape in shapes(definition, Sizes()).items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in outputs],
        value_info=infos,
    )
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[onnx.FunctionProto.FromString(function_bytes(definition, precision))],
        ir_version=10,
    )
    return made.SerializeToString()


def shapes(definition: Definition, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an operator's inputs."""
    if definition.operator in PICTURE_OPERATORS:
        return picture_shapes(definition.operator.name, sizes)
    b, hidden, joint = sizes.pictures, sizes.hidden, sizes.text + sizes.image
    lengths = {"text": sizes.text, "image": sizes.image, "joint": joint, "k": joint, "v": joint, "queried": sizes.text}
    operator = definition.operator
    found: dict[str, tuple[int, ...]] = {}
    for name in operator.values:
        if name in ("shift", "scale", "gate"):
            found[name] = (b, 1, hidden)
        elif name.endswith("_norm"):
            found[name] = (sizes.width,)
        elif name.endswith(("cos", "sin")):
            tokens = joint if operator.name == "JointHeads" else lengths.get(name.rpartition("_")[0], sizes.image)
            found[name] = (tokens, sizes.width // 2)
        elif name.startswith("weight"):
            found[name] = (hidden,) if name.endswith("scale") else (hidden, hidden)
        else:
            found[name] = (b, lengths.get(name, sizes.image), hidden)
    for product in operator.products:
        outputs = sizes.wide if "Gelu" in operator.name else hidden
        found |= {product.weight: (outputs, hidden), product.bias: (outputs,)}
        found |= {product.down: (hidden, sizes.rank), product.up: (sizes.rank, outputs)}
        if definition.format.operands:
            found[scale_of(product.weight)] = ()
    return {name: found[name] for name in definition.inputs}


def picture_shapes(name: str, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs of an operator of pictures."""
    pixels = (sizes.pictures, sizes.rows, sizes.columns)
    found: dict[str, tuple[int, ...]] = {"x": (*pixels, sizes.channels)}
    if "Convolution" in name:
        side = 1 if name.startswith("Point") else 3
        found |= {"weight": (sizes.filters, sizes.channels, side, side), "bias": (sizes.filters,)}
    elif not name.startswith("Upsample"):
        found |= {"weight": (sizes.channels,), "bias": (sizes.channels,)}
    return {**found, "residual": (*pixels, sizes.filters)} if name == "ConvolutionAdd" else found


def attributes(definition: Definition, sizes: Sizes) -> dict[str, float | int]:
    """Return attributes that fit `arrays`."""
    found: dict[str, float | int] = dict.fromkeys(definition.scales, 0.02)
    if definition.format.attention:
        found["q_scale"] = 0.02 * sizes.width**-0.5  # queries come scaled
    found |= {
        name: {"num_heads": sizes.heads, "text_length": sizes.text, "num_groups": 32}[name]
        for name in definition.operator.attributes
    }
    return found


def arrays(definition: Definition, sizes: Sizes, seed: int = 0) -> Arrays:
    """Return random inputs that bfloat16 holds exactly; those that are FP8 are codes."""
    rng = np.random.default_rng(seed)
    found: Arrays = {}
    kinds = dict(zip(definition.inputs, definition.input_kinds, strict=True))
    for name, shape in shapes(definition, sizes).items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("_norm"):
            values = 1 + 0.1 * values
        elif name.endswith(("weight", "down", "up")):
            values *= 50 if kinds[name] is Kind.FP8 else float(np.prod(shape[1:])) ** -0.5
        elif kinds[name] is Kind.FP8:
            values *= 50
        elif name.endswith("weight_scale"):
            values = np.asarray(0.02 / sizes.hidden**0.5 * 2.0 ** np.round(values if shape else 0), np.float32)
        elif name.endswith(("cos", "sin")):
            angles = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            values = np.cos(angles) if name.endswith("cos") else np.sin(angles)
        elif name == "q" and not definition.format.attention:
            values *= sizes.width**-0.5
        found[name] = values if kinds[name] is Kind.FLOAT32 else _bf16(values)
    return found


def _bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut values to those of bfloat16."""
    return (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF0000).view(np.float32)
