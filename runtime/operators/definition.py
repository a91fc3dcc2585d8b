"""Defines what a fused operator is: its inputs, outputs and attributes, in each format that it comes in.

What is FP8 of an operator's operands and its result, by calibrated scales, is in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import product

from ...engine.components import Precision
from .body import Body


class Kind(str, Enum):
    """Names the element types of a value: the graph's own, float32, or FP8."""

    OWN = "own"
    FLOAT32 = "float32"
    FP8 = "fp8"


@dataclass(frozen=True, slots=True)
class Format:
    """Says what of an operator is FP8, and whether its linear layers have low-rank branches.

    FP8 are its products' operands, attention's operands, and its result. Branches compute in the operator's own type;
    what they add is added before an activation function.
    """

    operands: bool = False
    attention: bool = False
    result: bool = False
    branches: bool = False

    @property
    def suffix(self) -> str:
        parts = (
            (self.branches, "_branched"),
            (self.operands, "_fp8"),
            (self.attention, "_fp8_attention"),
            (self.result, "_to_fp8"),
        )
        return "".join(words for there, words in parts if there)

    @property
    def has_fp8(self) -> bool:
        return self.operands or self.attention or self.result


@dataclass(frozen=True, slots=True)
class Product:
    """Names the inputs of one linear layer of an operator; `weight` and `bias` are inputs of it, as is `x`.

    So are `down` (inputs, rank) and `up` (rank, outputs), where it has a low-rank branch.
    """

    x: str
    weight: str
    bias: str

    @property
    def down(self) -> str:
        return self.weight.removesuffix("weight") + "down"

    @property
    def up(self) -> str:
        return self.weight.removesuffix("weight") + "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Describes a fused operator in all its formats.

    Attributes:
        name: What it is called where nothing is FP8.
        values: The inputs that are not its linear layers' weights and biases.
        products: Its linear layers; their weights and biases are its last inputs.
        outputs: Its outputs; those in `results` are FP8 where the format says so.
        tables: The inputs that are float32.
        narrow: The inputs that are FP8 in every format.
        attributes: The whole numbers that each call gives.
        attention: The inputs that are attention's operands.
        results: The outputs that a format may make FP8.
        separate_results: True if each result has a scale of its own, named after it; else all have `result_scale`.
        fp8_alone: True if its results are FP8 in every format.
        body: Adds the body's nodes.
    """

    name: str
    values: tuple[str, ...]
    outputs: tuple[str, ...]
    body: Callable[[Body, Definition], None]
    products: tuple[Product, ...] = ()
    tables: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    separate_results: bool = False
    fp8_alone: bool = False

    def formats(self) -> Iterator[Format]:
        """Yield the formats that there are; attention in FP8 gives FP8, as kernels of it do."""
        parts = (self.products, self.attention, self.results, self.products)
        choices = ((False, True) if there else (False,) for there in parts)
        for one in product(*choices):
            form = Format(*one)
            if form.result or not (form.attention or self.fp8_alone):
                yield form


@dataclass(frozen=True, slots=True)
class Definition:
    """Describes an operator in one format: what a node of it looks like."""

    operator: Operator
    format: Format

    @property
    def name(self) -> str:
        return self.operator.name + self.format.suffix

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its inputs; an FP8 weight is followed by its scale, a bias by the branch's matrices."""
        form, weights = self.format, list[str]()
        for one in self.operator.products:
            scale = (scale_of(one.weight),) if form.operands else ()
            weights += (one.weight, *scale, one.bias, *((one.down, one.up) if form.branches else ()))
        return (*self.operator.values, *weights)

    @property
    def input_kinds(self) -> tuple[Kind, ...]:
        return tuple(self._kind(name) for name in self.inputs)

    @property
    def output_kinds(self) -> tuple[Kind, ...]:
        fp8 = self.operator.results if self.format.result else ()
        return tuple(Kind.FP8 if name in fp8 else Kind.OWN for name in self.operator.outputs)

    def _kind(self, name: str) -> Kind:
        operator, form = self.operator, self.format
        if name in operator.tables or name.endswith("weight_scale"):
            return Kind.FLOAT32
        operands = {name for one in operator.products for name in (one.x, one.weight)}
        if (
            name in operator.narrow
            or (form.operands and name in operands)
            or (form.attention and name in operator.attention)
        ):
            return Kind.FP8
        return Kind.OWN

    @property
    def scales(self) -> tuple[str, ...]:
        """The names of the attributes that are scales of activations."""
        names: list[str] = []
        if self.format.operands:
            names += dict.fromkeys(scale_of(one.x) for one in self.operator.products)
        if self.format.attention:
            names += map(scale_of, self.operator.attention)
        if self.format.result:
            separate = self.operator.separate_results
            names += map(scale_of, self.operator.results) if separate else ["result_scale"]
        return tuple(names)

    @property
    def exchanges(self) -> bool:
        """True if a rank needs more than its own tokens: for attention, and for the mean that FP8 keys lose."""
        return bool(self.operator.attention) or (self.operator.separate_results and self.format.result)

    @property
    def result_scale(self) -> str | None:
        return "result_scale" if self.format.result else None

    @property
    def attributes(self) -> tuple[str, ...]:
        return (*self.operator.attributes, *self.scales)

    def body(self, precision: Precision) -> Body:
        """Return its body in a graph of this precision."""
        body = Body(precision)
        self.operator.body(body, self)
        return body


def scale_of(name: str) -> str:
    """Return the name of what an FP8 input or output is multiplied by: an input for weights, else an attribute."""
    return f"{name}_scale"
