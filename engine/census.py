"""What a compiler made of a graph, counted: matrix products and attention by type, copies, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .engine_layers import FORMAT_BITS, Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Counts of kernels by what they multiply in, and bytes.

    `attention` are dedicated kernels, of `attention_asked` in the graph. `copies` only move or convert data.
    `activation_bytes` is the memory that an execution context needs, `io_bytes` all inputs and outputs at the profile's
    largest shapes.
    """

    layers: int
    gemms: Mapping[str, int]
    convolutions: Mapping[str, int]
    attention: Mapping[str, int]
    attention_asked: int
    copies: int
    weight_bytes: int
    activation_bytes: int
    io_bytes: int

    def describe(self) -> str:
        """One line: "23 GEMMs bf16, 4 of 4 attention fused, 2 copies"."""
        kinds = (("GEMMs", self.gemms), ("convolutions", self.convolutions))
        parts = [f"{count} {what} {name}" for what, counts in kinds for name, count in sorted(counts.items())]
        if self.attention_asked:
            parts.append(f"{sum(self.attention.values())} of {self.attention_asked} attention fused")
        return ", ".join([*parts, f"{self.copies} copies"])


def take_census(
    layers: Sequence[Layer], *, attention_asked: int, weight_bytes: int, activation_bytes: int, io_bytes: int
) -> Census:
    def count(chosen: Iterable[Layer]) -> dict[str, int]:
        return dict(sorted(Counter(layer.number_format for layer in chosen).items()))

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
    )


def shortfalls(census: Census, *, precision: str, quantized: str | None, fused_attention: bool) -> Iterator[str]:
    """In words, what the engine does not do as it was asked to.

    No matrix product may be wider than `precision`. Of a graph with weights in `quantized`, most must be in that.
    """
    for what, counts in (("matrix products", census.gemms), ("convolutions", census.convolutions)):
        wide = {name: count for name, count in counts.items() if FORMAT_BITS.get(name, 64) > FORMAT_BITS[precision]}
        if wide:
            listed = ", ".join(f"{count} in {name or 'an unknown type'}" for name, count in wide.items())
            yield f"{sum(wide.values())} of {sum(counts.values())} {what} are wider than {precision}: {listed}"
    if quantized is not None:
        narrow, total = census.gemms.get(quantized, 0), sum(census.gemms.values())
        if 2 * narrow < total:
            yield f"only {narrow} of {total} matrix products are in {quantized}"
    fused = sum(census.attention.values())
    if fused_attention and fused < census.attention_asked:
        yield f"{census.attention_asked - fused} of {census.attention_asked} attention layers have no dedicated kernel"
