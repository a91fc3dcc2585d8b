"""The optimizers against torch's."""

import math

import torch

from kontext_trt.examples.small_kontext.optimizer import FlatAdam, orthogonalised


def test_flat_adam_is_adamw():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    other = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 3))
    other.load_state_dict(module.state_dict())
    ours = FlatAdam(module, torch.float32, clip=1e9, weight_decay=0.1)
    groups = [
        {"params": [p for p in other.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in other.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98))
    for _ in range(20):
        x = torch.randn(4, 5)
        for network in (module, other):
            network(x).square().mean().backward()
        ours.step(1e-2)
        theirs.step()
        theirs.zero_grad()
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    before = [p.detach().clone() for p in module.parameters()]
    ours.gradients.fill_(math.nan)
    ours.step(1e-2)
    for one, two in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-3)  # momentum stops, nothing becomes NaN


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5
