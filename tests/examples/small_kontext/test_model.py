"""The small Kontext's networks."""

import torch

from kontext_trt.examples.small_kontext.model import (
    SMALL,
    SMOKE,
    flow_optimizer,
    near_first,
    new_pipeline,
    num_parameters,
    text_networks,
)


def test_small_model_is_small(tokenizers):
    pipeline = new_pipeline(SMALL, *tokenizers, seed=0)
    assert 5e6 <= num_parameters(pipeline.transformer) <= 10e6
    assert 2 * (num_parameters(text_networks(pipeline)) + num_parameters(pipeline.vae)) < 23.5e6


def test_hidden_matrices_learn_by_muon(tokenizers):
    pipeline = new_pipeline(SMOKE, *tokenizers, seed=0)
    adam = flow_optimizer(pipeline, torch.float32)
    assert 0.5 < adam.num_orthogonal / len(adam.master) < 0.95
    state = adam.state()
    other = flow_optimizer(new_pipeline(SMOKE, *tokenizers, seed=1), torch.float32)
    other.load(state, 3)
    torch.testing.assert_close(other.values, state["master"].float())
    assert float(other.num_steps) == 3


def test_t5_begins_with_the_nearest_tokens():
    bias = near_first(32, 6)
    assert bias.shape == (32, 6)
    assert (bias.argmax(dim=0) == torch.tensor([0, 16] * 3)).all()  # no distance back, or none ahead
    assert (bias[1] > bias[17]).tolist() == [True, False] * 3
