"""AdamW with float32 masters and a moving average, over all parameters as one vector.

Networks compute in the training type; gradients are gathered in a vector of that type, so that a step is a dozen
kernels whatever the number of tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""Elements to a multiple of which each tensor's place is rounded up."""


class FlatAdam:
    """Takes over `module`'s parameters: their data and gradients become views of two flat vectors of `dtype`.

    `master`, `average`, `first` and `second` are (n,) float32 on the parameters' device.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        clip: float = 1.0,
        average_decay: float = 0.999,
    ) -> None:
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.betas, self.weight_decay, self.clip, self.average_decay = betas, weight_decay, clip, average_decay
        device = self.parameters[0].device
        self.offsets: list[int] = []
        end = 0
        for parameter in self.parameters:
            self.offsets.append(end)
            end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
        self.values = torch.zeros(end, dtype=dtype, device=device)
        self.gradients = torch.zeros(end, dtype=dtype, device=device)
        self.master = torch.zeros(end, device=device)
        decays = torch.zeros(end, device=device)
        for parameter, offset in zip(self.parameters, self.offsets, strict=True):
            place = slice(offset, offset + parameter.numel())
            self.master[place] = parameter.detach().flatten()
            decays[place] = float(parameter.ndim > 1)  # biases and norms do not decay
            parameter.data = self.values[place].view(parameter.shape)
            parameter.grad = self.gradients[place].view(parameter.shape)
        self.decays = decays
        self.average = self.master.clone()
        self.first, self.second = torch.zeros_like(self.master), torch.zeros_like(self.master)
        self.num_first = self.num_steps = 0
        self.values.copy_(self.master)

    @torch.no_grad()
    def step(self, learning_rate: float) -> Tensor:
        """One step with what is in the gradients, which are zeroed. Returns their norm; if it is not finite, nothing
        changes."""
        self.num_steps += 1
        self.num_first += 1
        gradients = self.gradients.float()
        norm = gradients.norm()
        finite = torch.isfinite(norm)
        gradients.mul_((self.clip / (norm + 1e-6)).clamp(max=1.0))
        gradients = torch.where(finite, gradients, 0.0)
        beta1, beta2 = self.betas
        self.first.lerp_(gradients, 1 - beta1)
        self.second.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        scale = (self.second / (1 - beta2**self.num_steps)).sqrt_().add_(1e-8)
        update = (self.first / (1 - beta1**self.num_first)).div_(scale)
        update.addcmul_(self.master, self.decays, value=self.weight_decay)
        self.master.sub_(torch.where(finite, update, 0.0), alpha=learning_rate)
        decay = min(self.average_decay, (1 + self.num_steps) / (10 + self.num_steps))
        self.average.lerp_(self.master, 1 - decay)
        self.values.copy_(self.master)
        self.gradients.zero_()
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The module's parameters are the moving average for the time being."""
        self.values.copy_(self.average)
        try:
            yield
        finally:
            self.values.copy_(self.master)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, in bfloat16. The first moments are not kept: ten steps rebuild them."""
        kept = {"master": self.master, "average": self.average, "second": self.second}
        return {name: tensor.to(torch.bfloat16).cpu() for name, tensor in kept.items()}

    def load(self, state: dict[str, Tensor], num_steps: int) -> None:
        for name in ("master", "average", "second"):
            getattr(self, name).copy_(state[name])
        self.num_steps, self.num_first = num_steps, 0
        self.first.zero_()
        self.values.copy_(self.master)
