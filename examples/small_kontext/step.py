"""Takes one step of the second stage, recorded as a CUDA graph where there is CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

from .flow_training import FlowLoss, weighted
from .optimizer import FlatAdam

WARM_UPS = 3
"""The number of steps before one is recorded: what is allocated or compiled once must not be in the recording."""


class TrainingStep:
    """Computes loss, gradients, and both optimizers' steps; samples are copied to where the recording reads them."""

    def __init__(self, loss: FlowLoss, optimizers: tuple[FlatAdam, ...], *, record: bool) -> None:
        self.loss, self.optimizers, self.record = loss, optimizers, record
        device = optimizers[0].master.device
        self._rate = torch.zeros((), device=device)
        self._totals = torch.zeros(5, device=device)
        self._num_steps = 0
        self._sample: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device) if record else None

    def prepare(self, sample: dict[str, Tensor]) -> None:
        """Compile what there is to compile, with any sample; nothing is learnt from it."""
        weighted(*self.loss(sample)).backward()
        for optimizer in self.optimizers:
            optimizer.gradients.zero_()

    def run(self, sample: dict[str, Tensor], learning_rate: float) -> None:
        """Take one step; samples of every step have the same shapes."""
        self._rate.fill_(learning_rate)
        self._num_steps += 1
        if not self.record:
            self._step(sample)
        elif self._graph is None:
            self._warm_up(sample)
        else:
            for name, values in sample.items():
                self._sample[name].copy_(values)
            self._graph.replay()

    def _warm_up(self, sample: dict[str, Tensor]) -> None:
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step(sample)
        torch.cuda.current_stream().wait_stream(self._stream)
        if self._num_steps < WARM_UPS:
            return
        self._sample = {name: values.clone() for name, values in sample.items()}
        self._graph = torch.cuda.CUDAGraph()
        # another thread pins memory for the stream of samples meanwhile, which "global" takes for an error
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._step(self._sample)

    def _step(self, sample: dict[str, Tensor]) -> None:
        losses = self.loss(sample)
        weighted(*losses).backward()
        norms = [optimizer.step(self._rate) for optimizer in self.optimizers]
        self._totals[:4] += torch.stack(losses).detach()
        self._totals[4] = torch.maximum(self._totals[4], norms[0])

    def take_totals(self) -> list[float]:
        """Return the losses' sums since the last call, and the networks' largest gradient."""
        totals = self._totals.tolist()
        self._totals.zero_()
        return totals
