"""Counts what a compiler made of a graph: matrix products and attention by type, elementwise steps, copies, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..documents import TEXT_LENGTH, Count, Text
from ..printable import printable_line
from .kernels import Kernel, rounded_functions
from .layers import FORMAT_BITS, Layer

UNTOLD = "untold"
"""The number format, in a census, of kernels of which the compiler does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Counts kernels by what they multiply in, and bytes.

    Attributes:
        layers: The number of the engine's layers.
        gemms: The number of matrix products per number format.
        convolutions: The number of convolutions per number format.
        attention: The number of dedicated attention kernels per number format.
        attention_asked: The number of attention layers in the graph.
        copies: The number of layers that only move or convert data.
        weight_bytes: The memory of the weights.
        activation_bytes: The memory that an execution context needs.
        io_bytes: The size of all inputs and outputs at the profile's largest shapes.
        products_asked: The number of the graph's products that are to multiply in fp8 or nvfp4, per format.
        strays: What is said of each such product that does not, and of each kernel that does unasked: what it is.
        untold: The products asked for of which the compiler does not say what they multiply in.
        opaque: The number of layers that stand for a whole part of the graph, of which the compiler says no more.
        attention_scales: The number of generated attention kernels per factor that they multiply scores by.
        elementwise: The number of elementwise steps of generated kernels per number format. Both are empty where a plan
            does not hold the text of its kernels.
        rounded: What is said of each generated kernel that computes functions such as tanh in 16 bits.
    """

    layers: Count
    gemms: Mapping[Text, Count]
    convolutions: Mapping[Text, Count]
    attention: Mapping[Text, Count]
    attention_asked: Count
    copies: Count
    weight_bytes: Count
    activation_bytes: Count
    io_bytes: Count
    products_asked: Mapping[Text, Count] = field(default_factory=dict)
    strays: tuple[Text, ...] = ()
    untold: tuple[Text, ...] = ()
    opaque: Count = 0
    attention_scales: Mapping[Text, Count] = field(default_factory=dict)
    elementwise: Mapping[Text, Count] = field(default_factory=dict)
    rounded: tuple[Text, ...] = ()

    def describe(self) -> str:
        """Say it in one line: "23 GEMMs bf16, 4 of 4 attention fused, 2 copies"."""
        kinds = (("GEMMs", self.gemms), ("convolutions", self.convolutions))
        parts = [f"{count} {what} {name}" for what, counts in kinds for name, count in sorted(counts.items())]
        if self.products_asked:
            asked = " and ".join(f"{count} products in {name}" for name, count in sorted(self.products_asked.items()))
            untold = f", {len(self.untold)} untold" if self.untold else ""
            parts.append(f"{asked} asked, {len(self.strays)} astray{untold}")
        if self.attention_asked:
            parts.append(f"{sum(self.attention.values())} of {self.attention_asked} attention fused")
        return ", ".join([*parts, f"{self.copies} copies"])


def take_census(
    layers: Sequence[Layer],
    *,
    attention_asked: int,
    weight_bytes: int,
    activation_bytes: int,
    io_bytes: int,
    quantized_products: Mapping[str, str] | None = None,
    kernels: Sequence[Kernel] = (),
) -> Census:
    """Count what a compiler made of a graph.

    `quantized_products` says which nodes are to multiply in which narrow format, as `GraphFile.quantized_products`
    does; `kernels` are those whose text the plan holds. The numbers are as `Census` holds them.
    """
    asked = quantized_products or {}
    steps = Counter[str]()
    for kernel in kernels:
        steps.update(kernel.steps_by_format)

    def count(chosen: Iterable[Layer]) -> dict[str, int]:
        return dict(sorted(Counter(layer.number_format or UNTOLD for layer in chosen).items()))

    return Census(
        layers=len(layers),
        gemms=count(layer for layer in layers if layer.is_gemm),
        convolutions=count(layer for layer in layers if layer.is_convolution),
        attention=count(layer for layer in layers if layer.is_attention),
        attention_asked=attention_asked,
        copies=sum(layer.is_copy for layer in layers),
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        io_bytes=io_bytes,
        products_asked=dict(sorted(Counter(asked.values()).items())),
        strays=_printable(_strays(layers, asked)),
        untold=_printable(_untold(layers, asked)),
        opaque=sum(layer.is_opaque for layer in layers),
        attention_scales=dict(
            sorted(Counter(scale for kernel in kernels for scale in kernel.attention_scales).items())
        ),
        elementwise=dict(sorted(steps.items())),
        rounded=_printable(rounded_functions(kernels, layers)),
    )


def _printable(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(printable_line(words)[:TEXT_LENGTH] for words in lines)


def _found(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the formats of products by the node that they come from; "" where one is listed and not told."""
    return {node: one.number_format for one in layers if one.is_gemm or one.is_attention for node in one.nodes}


def _hides(layers: Sequence[Layer]) -> bool:
    """Return whether a node that no kernel names may be in one all the same."""
    return any(layer.is_opaque for layer in layers) or not any(layer.nodes for layer in layers)


def _strays(layers: Sequence[Layer], asked: Mapping[str, str]) -> Iterator[str]:
    found, hidden = _found(layers), _hides(layers)
    for node, wanted in asked.items():
        if node not in found and not hidden:
            yield f"{node} is in no kernel that is listed, not in {wanted}"
        elif found.get(node, "") not in ("", wanted):
            yield f"{node} is in {found[node]}, not in {wanted}"
    for layer in (layer for layer in layers if layer.is_gemm or layer.is_attention):
        if FORMAT_BITS.get(layer.number_format, 64) <= 8 and not asked.keys() & set(layer.nodes):
            yield f"{layer.name} is in {layer.number_format}, which nothing asked for"


def _untold(layers: Sequence[Layer], asked: Mapping[str, str]) -> Iterator[str]:
    found, hidden = _found(layers), _hides(layers)
    for node, wanted in asked.items():
        if found.get(node) == "" or (node not in found and hidden):
            yield f"whether {node} is in {wanted}"


def remarks(census: Census) -> Iterator[str]:
    """Say in words what costs exactness, or could not be checked, though the engine may be as asked."""
    kinds = (("matrix products", census.gemms), ("convolutions", census.convolutions))
    untold = [f"the type of {counts[UNTOLD]} {what}" for what, counts in kinds if UNTOLD in counts]
    untold += [f"what {census.opaque} parts of the graph consist of"] if census.opaque else []
    if untold or census.untold:
        yield f"the compiler does not tell {_first((*untold, *census.untold))}"
    if census.rounded:
        yield f"functions are computed in 16 bits: {_first(census.rounded)}"
    scaled = {scale: count for scale, count in census.attention_scales.items() if scale != "1"}
    if scaled:
        listed = ", ".join(f"{count} by {scale}" for scale, count in scaled.items())
        yield f"attention kernels scale by factors that may be rounded, queries should come scaled: {listed}"


def _first(words: Sequence[str]) -> str:
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return f"{', '.join(words[:3])}{more}"


def shortfalls(census: Census, *, precision: str, fused_attention: bool) -> Iterator[str]:
    """Say in words what the engine does not do as it was asked to.

    No matrix product may be wider than `precision`, and each must be in the narrow format that the graph asks for. With
    `fused_attention` every attention layer must have a dedicated kernel. What the compiler does not tell is no
    shortfall, but a remark.
    """
    for what, counts in (("matrix products", census.gemms), ("convolutions", census.convolutions)):
        told = {name: count for name, count in counts.items() if name != UNTOLD}
        wide = {name: count for name, count in told.items() if FORMAT_BITS.get(name, 64) > FORMAT_BITS[precision]}
        if wide:
            listed = ", ".join(f"{count} in {name}" for name, count in wide.items())
            yield f"{sum(wide.values())} of {sum(counts.values())} {what} are wider than {precision}: {listed}"
    if census.strays:
        yield f"{len(census.strays)} matrix products are astray: {_first(census.strays)}"
    fused = sum(census.attention.values())
    if fused_attention and fused < census.attention_asked and not census.opaque:
        yield f"{census.attention_asked - fused} of {census.attention_asked} attention layers have no dedicated kernel"
