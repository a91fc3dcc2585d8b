"""Finds where a quantized denoiser's error comes from: by block as it grows, and by layer as each contributes.

Both denoisers get the inputs that the reference saw, so that one step's error is not mixed with that of steps before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...engine.components import DENOISER
from ...export.emulate.emulation import QuantizedAttend, QuantizedLinear
from ...export.emulate.torch_executor import run_module
from ...export.networks.operations import Stream
from .metrics import decibels
from .probe import Inputs, WitnessExecutor

BLOCKS = ("transformer_blocks", "single_transformer_blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockError:
    """Holds the error of a block's output: `sqnr_db`, all error up to there included.

    Double blocks have two: image and text.
    """

    block: str
    stream: str
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """Holds what one quantized layer contributes.

    `noise` is the energy of the step's error if it alone is quantized, over that of the step's change of the latents.
    `share` is its part of all layers' noise, and `gain_db` what the prediction would gain if it were kept, noises being
    taken as independent.
    """

    layer: str
    noise: float
    share: float
    gain_db: float


class DenoiserPair:
    """Runs the reference's denoiser and the quantized one, on the same recorded `steps`."""

    def __init__(self, reference: WitnessExecutor, quantized: WitnessExecutor, steps: Sequence[Inputs]) -> None:
        self._reference, self._quantized = reference.module(DENOISER.name), quantized.module(DENOISER.name)
        self._component = reference.bundle.component(DENOISER.name)  # whose inputs the steps have
        self._steps = tuple(steps)
        self._wanted = [self._run(self._reference, inputs) for inputs in self._steps]
        changes = (wanted - inputs["latents"] for inputs, wanted in self._pairs())
        self._signal = sum(energy(change) for change in changes)
        self.layers = tuple(
            name
            for name, module in self._quantized.named_modules()
            if isinstance(module, (QuantizedLinear, QuantizedAttend))
        )

    def _pairs(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Return each step's inputs, and the latents that the reference makes of them."""
        return zip(self._steps, self._wanted, strict=True)

    def block_errors(self) -> list[BlockError]:
        """Return the SQNR of every block's output, over all the steps."""
        energies: dict[tuple[str, str], list[float]] = {}
        for inputs in self._steps:
            wanted = self._block_outputs(self._reference, inputs)
            found = self._block_outputs(self._quantized, inputs)
            for key, value in wanted.items():
                signal, noise = energies.setdefault(key, [0.0, 0.0])
                energies[key] = [signal + energy(value), noise + energy(value - found[key])]
        return [
            BlockError(block=block, stream=stream, sqnr_db=decibels(*both))
            for (block, stream), both in energies.items()
        ]

    def _block_outputs(self, denoiser: nn.Module, inputs: Inputs) -> dict[tuple[str, str], Tensor]:
        outputs: dict[tuple[str, str], Tensor] = {}
        handles = []
        for stack in BLOCKS:
            for index, block in enumerate(denoiser.get_submodule(stack).children()):

                def keep(
                    _: nn.Module, __: object, output: Stream | tuple[Stream, Stream], name: str = f"{stack}.{index}"
                ) -> None:
                    if isinstance(output, Stream):
                        outputs[name, ""] = _settled(output)
                    else:
                        text, image = output
                        outputs[name, "text"], outputs[name, "image"] = _settled(text), _settled(image)

                handles.append(block.register_forward_hook(keep))
        try:
            self._run(denoiser, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    def _run(self, denoiser: nn.Module, inputs: Inputs) -> Tensor:
        return run_module(denoiser, self._component, inputs)["next_latents"]

    def noise(self, quantized: Sequence[str]) -> float:
        """Return the energy of the error if these layers alone are quantized, over that of the steps' own change."""
        with self._with_layers(quantized) as denoiser:
            return sum(energy(self._run(denoiser, inputs) - wanted) for inputs, wanted in self._pairs()) / self._signal

    def layer_errors(self, on_layer: Callable[[], None]) -> list[LayerError]:
        """Return every quantized layer's error, the worst first; this runs the denoiser once per layer and step."""
        noises: dict[str, float] = {}
        for name in self.layers:
            noises[name] = self.noise([name])
            on_layer()
        total = sum(noises.values())
        return [
            LayerError(
                layer=name,
                noise=noise,
                share=noise / total if total else 0.0,
                gain_db=decibels(total, total - noise) if total > noise else math.inf if total else 0.0,
            )
            for name, noise in sorted(noises.items(), key=lambda item: -item[1])
        ]

    @contextmanager
    def _with_layers(self, quantized: Sequence[str]) -> Iterator[nn.Module]:
        """Give the reference with these of its layers exchanged for the quantized ones."""
        own = {name: self._reference.get_submodule(name) for name in quantized}
        try:
            for name in quantized:
                self._reference.set_submodule(name, self._quantized.get_submodule(name))
            yield self._reference
        finally:
            for name, module in own.items():
                self._reference.set_submodule(name, module)


def _settled(stream: Stream) -> Tensor:
    """Return the tokens that a block gives, its last change added, in float32."""
    tokens = stream.tokens.to(torch.float32)
    if stream.change is None or stream.gate is None:
        return tokens
    return tokens + stream.gate.to(torch.float32) * stream.change.to(torch.float32)


def energy(x: Tensor) -> float:
    """Return the sum of squares, in float64."""
    return float(x.to(torch.float64).square().sum())


def choose_exclusions(pair: DenoiserPair, errors: Sequence[LayerError], budget_db: float) -> tuple[list[str], float]:
    """Find the fewest layers to keep that bring the prediction's SQNR to the budget, taken in the order of their noise.

    They are found by bisection: keeping more never adds noise but for chance, and each try is measured.

    Returns:
        The layers, and the SQNR that was then measured, which is the reference's own if every layer had to be kept.
    """
    order = [error.layer for error in errors]

    def sqnr(kept: int) -> float:
        return decibels(1.0, pair.noise(order[kept:])) if kept < len(order) else math.inf

    low, high = 0, len(order)
    measured: dict[int, float] = {}
    while low < high:
        middle = (low + high) // 2
        measured[middle] = sqnr(middle)
        if measured[middle] >= budget_db:
            high = middle
        else:
            low = middle + 1
    return order[:high], measured[high] if high in measured else sqnr(high)
