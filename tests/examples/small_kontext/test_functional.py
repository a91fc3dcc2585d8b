"""Networks as functions of one flat tensor."""

import torch
import torch.nn.functional as F

from kontext_trt.examples.small_kontext.flow_training import FlowLoss, Networks, rope, velocity
from kontext_trt.examples.small_kontext.functional import Functions
from kontext_trt.examples.small_kontext.hints import Hints
from kontext_trt.examples.small_kontext.model import (
    SMOKE,
    new_pipeline,
    text_networks,
)
from kontext_trt.examples.small_kontext.stream import BUCKETS, NUM_TOKENS, Texts, draw_chunk


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
