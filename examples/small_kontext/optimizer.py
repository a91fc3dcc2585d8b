"""Implements AdamW and Muon with float32 masters and a moving average, over all parameters as one vector.

Networks compute in the training type; gradients are gathered in a vector of that type, so that a step is a few dozen
kernels whatever the number of tensors. All that changes from step to step is on the device: a step can be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""The number of elements to a multiple of which each tensor's place is rounded up."""
MOMENTUM = 0.95
"""The momentum of the matrices that are orthogonalised."""
ORTHOGONAL_SCALE = 0.5
"""The root mean square of an orthogonalised update beside the learning rate."""
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return (k, r, c) with all singular values brought near 1: Newton-Schulz, as in Muon (Jordan et al., 2024)."""
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = wide.to(torch.bfloat16 if wide.is_cuda else torch.float32)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + torch.baddbmm(square, square, square, beta=b, alpha=c) @ x
    return (x.mT if matrices.shape[1] > matrices.shape[2] else x).float()


@dataclass(frozen=True, slots=True)
class Group:
    """Describes matrices of one shape, side by side in the vector."""

    place: slice
    shape: tuple[int, int]


class FlatAdam:
    """Takes over `module`'s parameters: their data and gradients become views of two flat vectors of `dtype`.

    `master`, `average`, `first` and `second` are (n,) float32 on the parameters' device. Parameters that `orthogonal`
    picks by name, matrices of multiples of 64 elements, come first, sorted by shape, and learn by Muon; the others
    learn by Adam.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        *,
        orthogonal: Callable[[str], bool] = lambda name: False,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        clip: float = 1.0,
        average_decay: float = 0.999,
    ) -> None:
        named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        matrices = sorted((parameter for name, parameter in named.items() if orthogonal(name)), key=_shape)
        chosen = set(map(id, matrices))
        self.parameters = [*matrices, *(one for one in named.values() if id(one) not in chosen)]
        self.betas, self.weight_decay, self.clip, self.average_decay = betas, weight_decay, clip, average_decay
        device = self.parameters[0].device
        self.offsets: list[int] = []
        end = 0
        for parameter in self.parameters:
            self.offsets.append(end)
            end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        self.groups = _groups(matrices)
        self.num_orthogonal = self.groups[-1].place.stop if self.groups else 0
        self.values = torch.zeros(end, dtype=dtype, device=device)
        self.gradients = torch.zeros(end, dtype=dtype, device=device)
        self.master = torch.zeros(end, device=device)
        self.decays = torch.zeros(end, device=device)
        for parameter, offset in zip(self.parameters, self.offsets, strict=True):
            place = slice(offset, offset + parameter.numel())
            self.master[place] = parameter.detach().flatten()
            self.decays[place] = weight_decay * float(parameter.ndim > 1)  # biases and norms do not decay
            parameter.data = self.values[place].view(parameter.shape)
            parameter.grad = self.gradients[place].view(parameter.shape)
        self.average = self.master.clone()
        self.first, self.second = torch.zeros_like(self.master), torch.zeros_like(self.master)
        self.num_first, self.num_steps = torch.zeros(2, device=device).unbind()
        self.values.copy_(self.master)

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> Tensor:
        """Take one step with what is in the gradients, which are zeroed, and return their norm.

        If it is not finite, nothing changes but the moments.
        """
        self.num_steps += 1
        self.num_first += 1
        gradients = self.gradients.float()
        norm = gradients.norm()
        finite = torch.isfinite(norm)
        gradients.mul_((self.clip / (norm + 1e-6)).clamp(max=1.0))
        gradients = torch.where(finite, gradients, 0.0)
        update = torch.cat([self._muon(gradients), self._adam(gradients)])
        update.addcmul_(self.master, self.decays)
        self.master.sub_(torch.where(finite, update, 0.0) * learning_rate)
        decay = ((1 + self.num_steps) / (10 + self.num_steps)).clamp(max=self.average_decay)
        self.average.lerp_(self.master, 1 - decay)
        self.values.copy_(self.master)
        self.gradients.zero_()
        return norm

    def _muon(self, gradients: Tensor) -> Tensor:
        """Return the updates of the matrices, flat."""
        momentum, gradients = self.first[: self.num_orthogonal], gradients[: self.num_orthogonal]
        momentum.lerp_(gradients, 1 - MOMENTUM)
        ahead = torch.lerp(gradients, momentum, MOMENTUM)
        updates = [gradients[:0]]
        for group in self.groups:
            matrices = orthogonalised(ahead[group.place].view(-1, *group.shape))
            updates.append(matrices.flatten() * (ORTHOGONAL_SCALE * max(group.shape) ** 0.5))
        return torch.cat(updates)

    def _adam(self, gradients: Tensor) -> Tensor:
        """Return the updates of all else, flat."""
        rest = slice(self.num_orthogonal, None)
        first, second, gradients = self.first[rest], self.second[rest], gradients[rest]
        beta1, beta2 = self.betas
        first.lerp_(gradients, 1 - beta1)
        second.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        scale = (second / (1 - beta2**self.num_steps)).sqrt_().add_(1e-8)
        return (first / (1 - beta1**self.num_first)).div_(scale)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Make the module's parameters the moving average for the time being."""
        self.values.copy_(self.average)
        try:
            yield
        finally:
            self.values.copy_(self.master)

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps, in bfloat16; first moments are not kept: ten steps rebuild them."""
        kept = {"master": self.master, "average": self.average, "second": self.second[self.num_orthogonal :]}
        return {name: tensor.to(torch.bfloat16).cpu() for name, tensor in kept.items()}

    def load(self, state: dict[str, Tensor], num_steps: int) -> None:
        """Take over a state; without "second", the moments begin anew."""
        self.master.copy_(state["master"])
        self.average.copy_(state["average"])
        self.first.zero_()
        self.second.zero_()
        if "second" in state:
            self.second[self.num_orthogonal :].copy_(state["second"])
        self.num_steps.fill_(num_steps if "second" in state else 0)
        self.num_first.zero_()
        self.values.copy_(self.master)


def _shape(parameter: nn.Parameter) -> tuple[int, int]:
    rows, columns = parameter.shape
    return rows, columns


def _groups(matrices: list[nn.Parameter]) -> list[Group]:
    groups: list[Group] = []
    end = 0
    for shape, alike in groupby(matrices, key=_shape):
        start, end = end, end + sum(parameter.numel() for parameter in alike)
        assert shape[0] * shape[1] % ALIGNMENT == 0, "matrices of one shape lie side by side without gaps"
        groups.append(Group(slice(start, end), shape))
    return groups
