"""Gives a kernel the tensors of a call by name, each checked against the operator's definition before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....engine.errors import ExecutorError
from ..definition import Definition, Kind, Product, scale_of
from ..kernels import Call
from .products import Matrix

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Holds the addresses of a linear layer: (outputs, inputs) weights, a bias, and the scale of FP8 weights or 0."""

    weight: Matrix
    bias: int
    weight_scale: int


class Tensors:
    """Finds the tensors of a call by the names that the definition has for them.

    Graphs can come from strangers: whatever a kernel computes addresses by is checked here. `outputs` are the addresses
    of those that were allocated, by number and shape.
    """

    def __init__(self, definition: Definition, call: Call, attributes: Mapping[str, float | int | str]) -> None:
        self._definition, self._call, self._attributes = definition, call, attributes
        self._inputs = dict(zip(definition.inputs, call.inputs, strict=True))
        self.outputs: dict[tuple[int, Shape], int] = {}

    def refusal(self, words: str) -> ExecutorError:
        """Return the error of a call that does not fit the definition."""
        shapes = ", ".join(f"{name} {list(one.shape)}" for name, one in self._inputs.items())
        return ExecutorError(f"{self._definition.name}: {words}; its inputs are {shapes}")

    def tokens(self, name: str, like: Shape | None = None) -> Shape:
        """Return the shape (b, s, c) of an input; with `like`, it must be that."""
        shape = self._inputs[name].shape
        if len(shape) != 3 or min(shape) < 1 or shape[2] % 16 or (like is not None and shape != like):
            wanted = "(b, s, c), c a multiple of 16" if like is None else str(like)
            raise self.refusal(f"{name} must be {wanted}")
        return shape

    def pixels(self, name: str) -> tuple[int, int, int, int]:
        """Return the shape (b, h, w, c) of an input."""
        shape = self._inputs[name].shape
        if len(shape) != 4 or min(shape) < 1:
            raise self.refusal(f"{name} must be (b, h, w, c)")
        return shape[0], shape[1], shape[2], shape[3]

    def num_filters(self, channels: int, side: int) -> int:
        """Return the number of filters of a convolution of `channels`."""
        shape = self._inputs["weight"].shape
        if len(shape) != 4 or not shape[0] or shape[1:] != (channels, side, side):
            raise self.refusal(f"weight must be (n, {channels}, {side}, {side})")
        return shape[0]

    def address(self, name: str, shape: Shape) -> int:
        """Return the address of an input that must have this shape."""
        if self._inputs[name].shape != shape:
            raise self.refusal(f"{name} must be {shape}")
        return self._inputs[name].address

    def width(self, name: str, of: int) -> int:
        """Return the extent of a vector, of which `of` is a multiple, and for which there are kernels."""
        shape = self._inputs[name].shape
        if len(shape) != 1 or shape[0] not in (16, 32, 64, 128, 256) or of % shape[0]:
            raise self.refusal(f"{name} must be (d,), d a power of two from 16 to 256 that divides {of}")
        return shape[0]

    def matrix(self, name: str, shape: Shape) -> Matrix:
        """Return (b, s, c) as a matrix of all tokens."""
        rows, columns = shape[0] * shape[1], shape[2]
        return Matrix(
            address=self.address(name, shape), rows=rows, columns=columns, stride=columns, fp8=self._fp8(name)
        )

    def _fp8(self, name: str) -> bool:
        return self._definition.input_kinds[self._definition.inputs.index(name)] is Kind.FP8

    def outputs_of(self, weight: str) -> int:
        """Return the number of outputs of a linear layer, by the name of its weight."""
        shape = self._inputs[weight].shape
        if len(shape) != 2 or not shape[0] or shape[0] % 16:
            raise self.refusal(f"{weight} must be (n, c), n a multiple of 16")
        return shape[0]

    def row_scales(self, name: str, rows: int) -> tuple[int, int]:
        """Return the address of the scales of rows, and the step from one to the next: 0 where there is one for all."""
        if not self._inputs[name].shape:
            return self.address(name, ()), 0
        return self.address(name, (rows,)), 1

    def layer(self, product: Product, inputs: int, outputs: int) -> Layer:
        """Return a linear layer of these extents."""
        name, fp8 = product.weight, self._fp8(product.weight)
        weight = Matrix(
            address=self.address(name, (outputs, inputs)), rows=outputs, columns=inputs, stride=inputs, fp8=fp8
        )
        return Layer(
            weight=weight,
            bias=self.address(product.bias, (outputs,)),
            weight_scale=self.address(scale_of(name), ()) if fp8 else 0,
        )

    def branch(self, product: Product, inputs: int, outputs: int) -> tuple[Matrix, Matrix]:
        """Return the matrices of a linear layer's branch: (inputs, rank) and (rank, outputs)."""
        shape = self._inputs[product.down].shape
        if len(shape) != 2 or not shape[1]:
            raise self.refusal(f"{product.down} must be ({inputs}, rank)")
        rank = shape[1]
        down, up = self.address(product.down, (inputs, rank)), self.address(product.up, (rank, outputs))
        return (
            Matrix(address=down, rows=inputs, columns=rank, stride=rank),
            Matrix(address=up, rows=rank, columns=outputs, stride=outputs),
        )

    def scale(self, name: str) -> float:
        """Return an attribute that is the scale of an activation."""
        value = self._attributes[name]
        if not (isinstance(value, float) and 0 < value < float("inf")):
            raise self.refusal(f"{name} is {value}, and must be a positive number")
        return value

    def count(self, name: str, *, at_most: int) -> int:
        """Return an attribute that is a whole number from 1."""
        value = self._attributes[name]
        if not (isinstance(value, int) and 1 <= value <= at_most):
            raise self.refusal(f"{name} is {value}, and must be from 1 to {at_most}")
        return value

    def output(self, name: str, shape: Shape) -> int:
        """Allocate an output, and return its address; `outputs` has it by its number and shape."""
        index = self._definition.operator.outputs.index(name)
        self.outputs[index, shape] = self._call.output(index, shape)
        return self.outputs[index, shape]
