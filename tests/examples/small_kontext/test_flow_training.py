"""The small Kontext's networks and training."""

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kontext_trt.benchmarks.quality.editbench.letters import ALPHABET
from kontext_trt.benchmarks.quality.editbench.samples import draw_sample
from kontext_trt.benchmarks.quality.editbench.scene import ANATOMY, COLOURS, SHAPES, SQUARE
from kontext_trt.engine.errors import CheckpointError
from kontext_trt.examples.small_kontext.assemble import open_pipeline
from kontext_trt.examples.small_kontext.flow_training import FlowLoss, Networks, empty_sample, rope, velocity
from kontext_trt.examples.small_kontext.functional import Functions
from kontext_trt.examples.small_kontext.hints import CLASSES, NEW, OLD, UNKNOWN, Hints, letter_roles, places, stands
from kontext_trt.examples.small_kontext.model import (
    SMALL,
    SMOKE,
    flow_optimizer,
    near_first,
    new_pipeline,
    num_parameters,
    text_networks,
)
from kontext_trt.examples.small_kontext.optimizer import FlatAdam, orthogonalised
from kontext_trt.examples.small_kontext.options import Options
from kontext_trt.examples.small_kontext.state import load_state
from kontext_trt.examples.small_kontext.step import Step
from kontext_trt.examples.small_kontext.stream import BUCKETS, NUM_TOKENS, Bucket, Pool, Ring, Texts, draw_chunk
from kontext_trt.examples.small_kontext.trainer import Trainer
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
    ids = torch.from_numpy(position_ids(T5_LENGTH, (8, 8), (8, 8))).float()
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


def test_small_model_is_small(tokenizers):
    pipeline = new_pipeline(SMALL, *tokenizers, seed=0)
    assert 5e6 <= num_parameters(pipeline.transformer) <= 10e6
    assert 2 * (num_parameters(text_networks(pipeline)) + num_parameters(pipeline.vae)) < 23.5e6


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


def test_pool_overwrites_the_oldest(tokenizers):
    clip, t5 = (tokenizer.backend_tokenizer.to_str() for tokenizer in tokenizers)
    bucket = Bucket(SQUARE, False)
    chunk = draw_chunk(0, 3, bucket, Texts(clip, t5).encoders(), held_out=False)
    assert chunk.target.shape == (3, 128, 128, 3)
    assert chunk.t5.shape == (3, T5_LENGTH)
    assert len(chunk.reference) == 0
    ring = Ring(5, torch.device("cpu"))
    for i in range(4):
        ring.add({"a": torch.full((3, 2), i), "none": torch.zeros(0, 4)})
    assert len(ring) == 5
    assert ring.count == 12
    assert set(ring.values["a"][:, 0].tolist()) == {2, 3}
    drawn = ring.draw(7)
    assert drawn["a"].shape == (7, 2)
    assert drawn["none"].shape == (0, 4)
    pool = Pool(100, torch.device("cpu"))
    pool.add(bucket, {"a": torch.zeros(3, 2)})
    assert pool.choose(Random(0)) == bucket
    assert pool.count == 3


def test_functions_are_the_networks_forward(tokenizers):
    """Padded to one shape, all buckets give what diffusers and transformers give of each alone."""
    pipeline = new_pipeline(SMOKE, *tokenizers, seed=0)
    for parameter in text_networks(pipeline).parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    networks, transformer = Networks.of(pipeline), pipeline.transformer
    loss = FlowLoss(networks, Hints(64, 64), Functions())
    clip, t5 = (tokenizer.backend_tokenizer.to_str() for tokenizer in tokenizers)
    chunk = draw_chunk(0, 2, BUCKETS[0], Texts(clip, t5).encoders(), held_out=False)
    timesteps, guidance = torch.tensor([0.9, 0.1]), torch.tensor([1.0, 4.0])
    with torch.no_grad():
        texts = networks.texts(chunk.clip, chunk.t5)
        for ours, theirs in zip(loss.texts(chunk.clip, chunk.t5), texts, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        for number, bucket in enumerate(BUCKETS):
            count = bucket.size[0] * bucket.size[1] // 256
            latents, reference = torch.randn(2, count, 64), torch.randn(2, count if bucket.edits else 0, 64)
            rotary = rope(transformer, bucket.size, bucket.edits)
            theirs = velocity(
                transformer, latents, timesteps, guidance, texts=texts, reference=reference, rotary=rotary
            )
            padded = [F.pad(one, (0, 0, 0, NUM_TOKENS - one.shape[1])) for one in (latents, reference)]
            sample = {"reference": padded[1], "bucket": torch.full((2,), number)}
            ours, _ = loss.velocity(padded[0], timesteps, guidance, texts, sample)
            torch.testing.assert_close(ours[:, :count], theirs, rtol=0, atol=1e-5)


def test_training_fits_what_it_sees(tokenizers):
    """A few dozen steps on two samples."""
    torch.manual_seed(0)
    pipeline = new_pipeline(SMOKE, *tokenizers, seed=0)
    hints = Hints(64, 64)
    optimizers = flow_optimizer(pipeline, torch.float32), FlatAdam(hints, torch.float32)
    step = Step(FlowLoss(Networks.of(pipeline), hints, Functions()), optimizers, record=False)
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


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_hidden_matrices_learn_by_muon(tokenizers):
    pipeline = new_pipeline(SMOKE, *tokenizers, seed=0)
    adam = flow_optimizer(pipeline, torch.float32)
    assert 0.5 < adam.num_orthogonal / len(adam.master) < 0.95
    state = adam.state()
    other = flow_optimizer(new_pipeline(SMOKE, *tokenizers, seed=1), torch.float32)
    other.load(state, 3)
    torch.testing.assert_close(other.values, state["master"].float())
    assert float(other.num_steps) == 3


def test_the_last_quoted_word_is_the_new_one():
    assert letter_roles(["▁say", '▁"', "A", "B", "C", '"', "."]) == [0, 0, 2, 3, 4, 0, 0]
    tokens = ['▁"', *"WXYZ", '"', "▁with", '▁"', *"ABCD", '"']
    assert letter_roles(tokens) == [0, *[OLD] * 4, 0, 0, 0, *range(NEW[4], NEW[4] + 4), 0]


def test_places_name_what_the_answer_shows():
    sample = draw_sample(2, task="letters", size=SQUARE)
    after = sample.edit.after
    assert after.sign is not None
    named = places(sample, NUM_TOKENS)
    assert named.shape == (NUM_TOKENS, len(CLASSES))
    row = named[:, :2].reshape(8, 16)[round(after.centre((after.sign.row, 1))[1]) // 16]
    assert "".join(dict.fromkeys(ALPHABET[i] for i in row if i != UNKNOWN)) == "".join(dict.fromkeys(after.sign.word))
    for thing in after.things:
        x, y = after.position(thing)
        colour, _, _, shape, *creature = named.reshape(8, 8, -1)[int(y) // 16, int(x) // 16, 2:]
        assert (colour, shape) == (tuple(COLOURS).index(thing.colour), SHAPES.index(thing.shape))
        assert set(creature) == {UNKNOWN}


@pytest.mark.parametrize("seed", range(4))
def test_places_name_a_creatures_face(seed: int):
    after = draw_sample(seed, task="creature", size=SQUARE).edit.after
    creature = after.creature
    assert creature is not None
    named = torch.from_numpy(places(draw_sample(seed, task="creature", size=SQUARE), NUM_TOKENS))
    x, y = after.centre(creature.cell)
    here = int(y) // 16 * 8 + int(x) // 16
    assert stands(named)[here]
    assert 1 <= stands(named).sum() <= 20
    eyes, mouth, head, accent = named[here, 6:].tolist()
    assert (eyes + 1, ANATOMY.mouths[mouth], ANATOMY.heads[head]) == (creature.eyes, creature.mouth, creature.head)
    assert tuple(COLOURS)[accent] == creature.accent
    assert (named[~stands(named), 6:] == UNKNOWN).all()


def test_t5_begins_with_the_nearest_tokens():
    bias = near_first(32, 6)
    assert bias.shape == (32, 6)
    assert (bias.argmax(dim=0) == torch.tensor([0, 16] * 3)).all()  # no distance back, or none ahead
    assert (bias[1] > bias[17]).tolist() == [True, False] * 3


def test_smoke_training_resumes_and_assembles(tmp_path: Path):
    options = Options(minutes=0.001, device="cpu", smoke=True)
    Trainer(tmp_path / "run", options, resume=False).train()
    progress, _ = load_state(tmp_path / "run" / "state")
    assert progress.stage == "flow"
    assert progress.flow_steps > 0
    with pytest.raises(CheckpointError, match="go on with --resume"):
        Trainer(tmp_path / "run", options, resume=False)
    Trainer(tmp_path / "run", replace(options, minutes=0.002), resume=True).train()
    again, _ = load_state(tmp_path / "run" / "state")
    assert again.flow_steps > progress.flow_steps
    assert again.epoch == 1
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000
    pipeline = open_pipeline(tmp_path / "run" / "state")
    assert pipeline.vae.config.scaling_factor == again.scaling
    part = tmp_path / "run" / "state" / "part-0.bin"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        load_state(tmp_path / "run" / "state")
    with pytest.raises(CheckpointError, match="nothing to resume"):
        Trainer(tmp_path / "other", options, resume=True)
