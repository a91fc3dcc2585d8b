"""Makes diffusers' transformer and decoder as fast as torch.compile can.

The repeated blocks are compiled one by one: the first of each kind is, the others find its code, minutes sooner than
the whole would be. torch.compile's own CUDA graphs cannot be used with that: a block's result lies in its graph's
memory, and the next block gets "accessing tensor output of CUDAGraphs that has been overwritten"
(pytorch/pytorch#152887). So the mode is max-autotune without graphs, and one graph is recorded here over the whole
transformer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ..program import first_line

MODE = "max-autotune-no-cudagraphs"


def compile_decoder(pipeline: Any, size: tuple[int, int], batch: int, *, search: bool = True) -> list[str]:
    """Compile the VAE's decoder, channels last, by decoding once, and return notes; if it fails, it stays eager.

    Without the `search` for the best kernels it takes a fraction of the five minutes.
    """
    mode = MODE if search else "default"
    vae = pipeline.vae
    start = time.perf_counter()
    vae.to(memory_format=torch.channels_last)
    vae.decoder.compile(mode=mode, fullgraph=True, dynamic=False)
    shape = (batch, vae.config.latent_channels, size[1] // 8, size[0] // 8)
    parameter = next(vae.parameters())
    try:
        with torch.no_grad():
            vae.decode(torch.zeros(shape, dtype=parameter.dtype, device=parameter.device), return_dict=False)
    except Exception as error:
        vae.decoder._compiled_call_impl = None
        return [f"the VAE decoder is not compiled: {first_line(error)}"]
    return [f"VAE decoder compiled ({mode}) in {time.perf_counter() - start:.0f} s"]


def compile_transformer(pipeline: Any, request: Callable[[], object]) -> tuple[GraphedForward | None, list[str]]:
    """Compile the blocks by performing `request`, and record the transformer where there is a GPU.

    Returns:
        What was recorded, and notes.

    Raises:
        Exception: What torch.compile raises if the default mode fails, too.
    """
    transformer, notes = pipeline.transformer, []
    start = time.perf_counter()
    for mode in (MODE, "default"):
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=False, mode=mode)
        try:
            request()
        except Exception as error:
            if mode == "default":
                raise
            notes.append(f"blocks do not compile with {mode}: {first_line(error)}")
            torch.compiler.reset()
            continue
        notes.append(f"blocks compiled ({mode}, fullgraph) in {time.perf_counter() - start:.0f} s")
        break
    if not torch.cuda.is_available():
        return None, notes
    plain = transformer.forward
    transformer.forward = graphed = GraphedForward(plain)
    try:
        request()
    except Exception as error:
        transformer.forward = plain
        return None, [*notes, f"the transformer cannot be recorded in a CUDA graph: {first_line(error)}"]
    return graphed, [*notes, "the transformer is one CUDA graph"]


def to_fp8(transformer: Any) -> list[str]:
    """Convert weights and activations of all linear layers to FP8, scaled by row; raise ImportError without torchao."""
    from torchao.quantization import (  # pyright: ignore[reportMissingImports]
        Float8DynamicActivationFloat8WeightConfig,
        PerRow,
        quantize_,
    )

    # its own inductor settings would compile this peer otherwise than the other
    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
    quantize_(transformer, config)
    return ["torchao: dynamic FP8 activations, FP8 weights, scaled by row"]


class GraphedForward:
    """Records a forward of keyword arguments at the first call, and replays it at every other of its shapes.

    Results lie in the graph's memory and are overwritten by the next call. Calls of other shapes are not recorded.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: dict[str, torch.Tensor] = {}
        self._results: Any = None
        self.size_bytes = 0

    def __call__(self, **inputs: Any) -> Any:
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        if self._graph is None:
            self._record(inputs, tensors)
        assert self._graph is not None
        if {name: value.shape for name, value in tensors.items()} != self._shapes():
            return self._forward(**inputs)
        for name, value in tensors.items():
            self._inputs[name].copy_(value)
        self._graph.replay()
        return self._results

    def _shapes(self) -> dict[str, torch.Size]:
        return {name: value.shape for name, value in self._inputs.items()}

    def _record(self, inputs: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        self._inputs = {name: value.contiguous().clone() for name, value in tensors.items()}
        own = inputs | self._inputs
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries take their workspaces for a stream at its first use
            for _ in range(2):
                self._forward(**own)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        before = torch.cuda.memory_reserved()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._results = self._forward(**own)
        self.size_bytes = max(0, torch.cuda.memory_reserved() - before)
        self._graph = graph
