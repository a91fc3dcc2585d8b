"""Counts what a compiler made of a graph: matrix products and attention by type, copies, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..documents import TEXT_LENGTH, Count, Text
from ..printable import printable_line
from .layers import FORMAT_BITS, Layer


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

    def describe(self) -> str:
        """Say it in one line: "23 GEMMs bf16, 4 of 4 attention fused, 2 copies"."""
        kinds = (("GEMMs", self.gemms), ("convolutions", self.convolutions))
        parts = [f"{count} {what} {name}" for what, counts in kinds for name, count in sorted(counts.items())]
        if self.products_asked:
            asked = " and ".join(f"{count} products in {name}" for name, count in sorted(self.products_asked.items()))
            parts.append(f"{asked} asked, {len(self.strays)} astray")
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
) -> Census:
    """Count what a compiler made of a graph.

    `quantized_products` says which nodes are to multiply in which narrow format, as `GraphFile.quantized_products`
    does. The numbers are as `Census` holds them.
    """
    asked = quantized_products or {}

    def count(chosen: Iterable[Layer]) -> dict[str, int]:
        return dict(sorted(Counter(printable_line(layer.number_format) for layer in chosen).items()))

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
        strays=tuple(printable_line(words)[:TEXT_LENGTH] for words in _strays(layers, asked)),
    )


def _strays(layers: Sequence[Layer], asked: Mapping[str, str]) -> Iterator[str]:
    kernels = [layer for layer in layers if layer.is_gemm or layer.is_attention]
    found = {node: layer.number_format for layer in kernels for node in layer.nodes}
    for node, wanted in asked.items():
        if found.get(node) != wanted:
            yield f"{node} is in {found.get(node) or 'no kernel that is listed'}, not in {wanted}"
    for layer in kernels:
        if FORMAT_BITS.get(layer.number_format, 64) <= 8 and not asked.keys() & set(layer.nodes):
            yield f"{layer.name} is in {layer.number_format}, which nothing asked for"


def shortfalls(census: Census, *, precision: str, fused_attention: bool) -> Iterator[str]:
    """Say in words what the engine does not do as it was asked to.

    No matrix product may be wider than `precision`, and each must be in the narrow format that the graph asks for. With
    `fused_attention` every attention layer must have a dedicated kernel.
    """
    for what, counts in (("matrix products", census.gemms), ("convolutions", census.convolutions)):
        wide = {name: count for name, count in counts.items() if FORMAT_BITS.get(name, 64) > FORMAT_BITS[precision]}
        if wide:
            listed = ", ".join(f"{count} in {name or 'an unknown type'}" for name, count in wide.items())
            yield f"{sum(wide.values())} of {sum(counts.values())} {what} are wider than {precision}: {listed}"
    if census.strays:
        more = f" and {len(census.strays) - 3} more" if len(census.strays) > 3 else ""
        yield f"{len(census.strays)} matrix products are astray: {', '.join(census.strays[:3])}{more}"
    fused = sum(census.attention.values())
    if fused_attention and fused < census.attention_asked:
        yield f"{census.attention_asked - fused} of {census.attention_asked} attention layers have no dedicated kernel"
