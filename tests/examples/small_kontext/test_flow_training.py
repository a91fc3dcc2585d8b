"""The velocity that is trained, and that training fits it."""

import numpy as np
import torch

from kontext_trt.benchmarks.quality.editbench.scene import SQUARE
from kontext_trt.examples.small_kontext.flow_training import FlowLoss, Networks, empty_sample, rope, velocity
from kontext_trt.examples.small_kontext.functional import Functions
from kontext_trt.examples.small_kontext.hints import Hints
from kontext_trt.examples.small_kontext.model import (
    SMOKE,
    flow_optimizer,
    new_pipeline,
)
from kontext_trt.examples.small_kontext.optimizer import FlatAdam
from kontext_trt.examples.small_kontext.step import TrainingStep
from kontext_trt.examples.small_kontext.stream import NUM_TOKENS
from kontext_trt.examples.small_kontext.vocabulary import T5_LENGTH
from kontext_trt.runtime.flow.rope import position_ids


def test_velocity_is_diffusers_forward(tokenizers):
    pipeline = new_pipeline(SMOKE, *tokenizers, seed=0)
    transformer = pipeline.transformer
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    latents, reference = torch.randn(2, 2, 64, 64)
    texts = torch.randn(2, 64), torch.randn(2, T5_LENGTH, 64)
    timesteps, guidance = torch.tensor([0.9, 0.1]), torch.tensor([1.0, 4.0])
    ids = torch.from_numpy(position_ids(T5_LENGTH, (8, 8), ((8, 8),))).float()
    with torch.no_grad():
        ours = velocity(
            transformer,
            latents,
            timesteps,
            guidance,
            texts=texts,
            reference=reference,
            rotary=rope(transformer, SQUARE, True),
        )
        theirs = transformer(
            hidden_states=torch.cat([latents, reference], dim=1),
            timestep=timesteps,
            guidance=guidance,
            pooled_projections=texts[0],
            encoder_hidden_states=texts[1],
            txt_ids=ids[:T5_LENGTH],
            img_ids=ids[T5_LENGTH:],
            return_dict=False,
        )[0][:, :64]
    assert float(theirs.std()) > 0.01
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_training_fits_what_it_sees(tokenizers):
    """A few dozen steps on two samples."""
    torch.manual_seed(0)
    pipeline = new_pipeline(SMOKE, *tokenizers, seed=0)
    hints = Hints(64, 64)
    optimizers = flow_optimizer(pipeline, torch.float32), FlatAdam(hints, torch.float32)
    step = TrainingStep(FlowLoss(Networks.of(pipeline), hints, Functions()), optimizers, record=False)
    sample = empty_sample(8, torch.device("cpu"), torch.float32)
    sample["target"] = torch.randn(2, NUM_TOKENS, 64).repeat(4, 1, 1)
    sample["t5"][::2], sample["roles"][::2], sample["places"][::2] = 7, 1, 1
    losses = []
    for _ in range(60):
        step.run(sample, 3e-3)
        losses.append(step.take_totals())
    first, last = np.mean(losses[:5], axis=0), np.mean(losses[-5:], axis=0)
    assert last[0] < 0.9 * first[0]
    assert (last[1:4] < 0.5 * first[1:4]).all()
