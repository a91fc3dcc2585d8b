"""Trains the second stage: transformer and text encoders learn the flow from noise to a picture's latents.

Pictures of all shapes, with and without references, share a batch: image tokens are padded to the longest picture's,
and nothing attends to the padding. One shape is what makes a step worth compiling and recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from torch import Tensor

from ...engine.bundle.manifest import FlowRecord
from ...engine.sizes import Size, token_grid
from ...runtime.flow.rope import position_ids
from ...runtime.flow.schedule import noise_levels, shift_for
from .functional import Functions, Rotary, weights_of
from .hints import CLASSES, PLACES_WEIGHT, ROLES_WEIGHT, Hints, stands
from .stream import BUCKETS, NUM_TOKENS
from .vocabulary import CLIP_LENGTH, T5_LENGTH

TIME_SPREAD = 1.2
"""The deviation of the normal whose logistic is the timestep: a little more than 1, for the ends of the flow."""
GUIDANCE = (1.0, 5.0)
"""The guidance that training gives, at random: nothing depends on it, so that any value in here means the same."""
CHANGED = 0.25
"""The mean distance of a token of the target from the reference's above which the edit is in it."""
CHANGED_WEIGHT = 4.0
"""The weight in the loss of a token that the edit is in: an edit changes one token of twelve.

The edit being known from the inputs, what minimises the loss is the same with any weight.
"""
THING_WEIGHT = 3.0
"""The factor on that weight where a thing or a creature appears: a new background is most of a picture, and easy."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Holds the trained parts of a pipeline.

    transformers' modules are looked into by names that their types do not tell.
    """

    transformer: FluxTransformer2DModel
    clip: Any
    t5: Any

    @classmethod
    def of(cls, pipeline: FluxKontextPipeline) -> Networks:
        return cls(pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)

    def texts(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled (b, clip width) and text (b, T5_LENGTH, T5 width) of int16 ids."""
        pooled = self.clip(input_ids=clip_ids.long()).pooler_output
        return pooled, self.t5(input_ids=t5_ids.long()).last_hidden_state


@dataclass(frozen=True, slots=True)
class Layouts:
    """Holds what tokens of each bucket's samples are, by the bucket's number.

    Attributes:
        cos: RoPE's cosines (k, s, 1, head) of [text, target, reference].
        sin: RoPE's sines, of the same shape.
        mask: (k, 1, 1, s) to add to scores.
        real: (k, NUM_TOKENS), 1 for the target's tokens, 0 for padding.
        shift: The schedule's shift (k,).
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor
    real: Tensor
    shift: Tensor

    @classmethod
    def of(cls, transformer: FluxTransformer2DModel) -> Layouts:
        weight = transformer.x_embedder.weight
        parts: dict[str, list[Tensor]] = {"cos": [], "sin": [], "mask": [], "real": [], "shift": []}
        for bucket in BUCKETS:
            count = math.prod(token_grid(bucket.size))
            padding = NUM_TOKENS - count
            text, target, reference = (
                torch.arange(T5_LENGTH),
                T5_LENGTH + torch.arange(count),
                T5_LENGTH + NUM_TOKENS + torch.arange(count if bucket.edits else 0),
            )
            there = torch.cat([text, target, reference]).to(weight.device)
            mask = torch.full((T5_LENGTH + 2 * NUM_TOKENS,), -math.inf, device=weight.device)
            mask[there] = 0.0
            for name, table in zip(("cos", "sin"), rope(transformer, bucket.size, bucket.edits), strict=True):
                padded = torch.zeros(len(mask), table.shape[1], device=weight.device)
                padded[there] = table
                parts[name].append(padded[:, None])
            parts["mask"].append(mask[None, None])
            parts["real"].append(torch.tensor([1.0] * count + [0.0] * padding))
            parts["shift"].append(torch.tensor(shift_for(count, FlowRecord())))
        tables = {name: torch.stack(rows).to(weight.device) for name, rows in parts.items()}
        return cls(**(tables | {"mask": tables["mask"].to(weight.dtype)}))


def rope(transformer: FluxTransformer2DModel, size: Size, has_reference: bool) -> Rotary:
    """Return diffusers' cos and sin (s, head) float32 of [text, target, reference], both pictures of one size."""
    grid = token_grid(size)
    ids = position_ids(T5_LENGTH, grid, (grid,) if has_reference else ())
    device = transformer.x_embedder.weight.device
    return transformer.pos_embed(torch.from_numpy(ids).to(device, torch.float32))


def velocity(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    timesteps: Tensor,
    guidance: Tensor,
    *,
    texts: tuple[Tensor, Tensor],
    reference: Tensor,
    rotary: Rotary,
) -> Tensor:
    """Return the transformer's prediction (b, n, 64) for target tokens, in its own type.

    This is `FluxTransformer2DModel.forward`, except that `timesteps` (b,) in 0..1 and `guidance` (b,) stay float32
    until they are embedded. `reference` is (b, m, 64), m = 0 without one.
    """
    pooled, text = texts
    num_target = latents.shape[1]
    dtype = transformer.x_embedder.weight.dtype
    image = transformer.x_embedder(torch.cat([latents.to(dtype), reference.to(dtype)], dim=1))
    modulation = transformer.time_text_embed(timesteps * 1000, guidance * 1000, pooled)
    context = transformer.context_embedder(text)
    arguments = {"temb": modulation, "image_rotary_emb": rotary}
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        context, image = block(hidden_states=image, encoder_hidden_states=context, **arguments)
    return transformer.proj_out(transformer.norm_out(image[:, :num_target], modulation))


class FlowLoss:
    """Computes the loss of a batch by `functions` from the networks' own parameters."""

    def __init__(self, networks: Networks, hints: Hints, functions: Functions) -> None:
        self.networks, self.hints, self.functions = networks, hints, functions
        self.layouts = Layouts.of(networks.transformer)
        transformer, t5, clip = networks.transformer, networks.t5.encoder, networks.clip
        self._double = [weights_of(block) for block in transformer.transformer_blocks]
        self._single = [weights_of(block) for block in transformer.single_transformer_blocks]
        self._t5 = [weights_of(block) for block in t5.block]
        self._t5[0].pop("layer.0.SelfAttention.relative_attention_bias.weight")
        self._clip = [weights_of(layer) for layer in clip.encoder.layers]
        attention = t5.block[0].layer[0].SelfAttention
        positions = torch.arange(T5_LENGTH, device=transformer.x_embedder.weight.device)
        self._distances = attention._relative_position_bucket(positions[None, :] - positions[:, None])
        self._distance_bias = attention.relative_attention_bias

    def texts(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `Networks.texts` does, by functions."""
        t5, clip, clip_ids = self.networks.t5.encoder, self.networks.clip, clip_ids.long()
        text = t5.embed_tokens(t5_ids.long())
        bias = self._distance_bias(self._distances).permute(2, 0, 1)
        for weights in self._t5:
            text = self.functions.t5(text, bias, weights)
        pooled = clip.embeddings.token_embedding(clip_ids) + clip.embeddings.position_embedding.weight
        for weights in self._clip:
            pooled = self.functions.clip(pooled, clip.config.num_attention_heads, weights)
        last = clip_ids.argmax(dim=1)  # the end's id is the largest
        chosen = pooled.gather(1, last[:, None, None].expand(-1, 1, pooled.shape[2]))[:, 0]
        return clip.final_layer_norm(chosen), t5.final_layer_norm(text)

    def velocity(
        self,
        latents: Tensor,
        timesteps: Tensor,
        guidance: Tensor,
        texts: tuple[Tensor, Tensor],
        sample: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction (b, NUM_TOKENS, 64), and the target's tokens (b, NUM_TOKENS, d) halfway to it."""
        transformer, layouts, bucket = self.networks.transformer, self.layouts, sample["bucket"].long()
        rotary, mask = (layouts.cos[bucket], layouts.sin[bucket]), layouts.mask[bucket]
        dtype = transformer.x_embedder.weight.dtype
        image = transformer.x_embedder(torch.cat([latents.to(dtype), sample["reference"].to(dtype)], dim=1))
        embedded = transformer.time_text_embed(timesteps * 1000, guidance * 1000, texts[0])
        modulation = torch.nn.functional.silu(embedded)
        context = transformer.context_embedder(texts[1])
        for weights in self._double:
            context, image = self.functions.double(context, image, modulation, rotary, mask, weights)
        joint = torch.cat([context, image], dim=1)
        target = slice(T5_LENGTH, T5_LENGTH + NUM_TOKENS)
        halfway = joint[:, target]
        for i, weights in enumerate(self._single, start=1):
            joint = self.functions.single(joint, modulation, rotary, mask, weights)
            if 2 * i == len(self._single):
                halfway = joint[:, target]
        return transformer.proj_out(transformer.norm_out(joint[:, target], embedded)), halfway

    def __call__(self, sample: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the weighted squared error of the velocity, and the hints' three losses.

        `sample` has latents `target` and `reference` (b, NUM_TOKENS, 64), token ids `clip` and `t5`, `bucket` (b,),
        `roles` and `places`.
        """
        target, reference, bucket = sample["target"].float(), sample["reference"], sample["bucket"].long()
        noise = torch.randn_like(target)
        spread = TIME_SPREAD * torch.randn(len(target), device=target.device)
        timesteps = torch.sigmoid(spread + self.layouts.shift[bucket])  # logit-normal, shifted as the sampler's are
        guidance = torch.empty_like(timesteps).uniform_(*GUIDANCE)
        mixed = torch.lerp(target, noise, timesteps[:, None, None])
        texts = self.texts(sample["clip"], sample["t5"])
        predicted, halfway = self.velocity(mixed, timesteps, guidance, texts, sample)
        error = (predicted.float() - (noise - target)).square().mean(dim=2)
        changed = (target - reference.float()).abs().mean(dim=2) > CHANGED
        thing = torch.where(stands(sample["places"]), THING_WEIGHT, 1.0)
        weights = torch.where(changed, CHANGED_WEIGHT * thing, 1.0) * self.layouts.real[bucket]
        flow = (error * weights).sum() / weights.sum()
        return flow, *self.hints.losses(texts[1], halfway, sample, timesteps)


def empty_sample(count: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a sample of the shapes and types that FlowLoss takes."""
    shapes = {
        "clip": ((CLIP_LENGTH,), torch.int16),
        "t5": ((T5_LENGTH,), torch.int16),
        "roles": ((T5_LENGTH,), torch.int8),
        "places": ((NUM_TOKENS, len(CLASSES)), torch.int8),
        "target": ((NUM_TOKENS, 64), dtype),
        "reference": ((NUM_TOKENS, 64), dtype),
        "bucket": ((), torch.int8),
    }
    return {name: torch.zeros(count, *shape, dtype=kind, device=device) for name, (shape, kind) in shapes.items()}


def weighted(flow: Tensor, roles: Tensor, letters: Tensor, things: Tensor) -> Tensor:
    """Return what is minimised: the sum of the weighted losses."""
    return flow + ROLES_WEIGHT * roles + PLACES_WEIGHT * (letters + things)


@torch.no_grad()
def sample_latents(
    networks: Networks, sample: dict[str, Tensor], size: Size, *, steps: int, guidance: float, seed: int
) -> Tensor:
    """Return latents (b, n, 64) float32 of the requests in `sample`, as the runtime's flow loop makes them."""
    count, num_tokens = len(sample["t5"]), math.prod(token_grid(size))
    device = sample["t5"].device
    reference = sample["reference"]
    if not len(reference):
        reference = torch.zeros(count, 0, 64, device=device)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, num_tokens, 64, generator=generator).to(device)
    rotary = rope(networks.transformer, size, reference.shape[1] > 0)
    texts = networks.texts(sample["clip"], sample["t5"])
    sigmas = noise_levels(steps, num_tokens, FlowRecord())
    strengths = torch.full((count,), guidance, device=device)
    for now, following in pairwise(sigmas):
        timesteps = torch.full((count,), float(now), device=device)
        predicted = velocity(
            networks.transformer, latents, timesteps, strengths, texts=texts, reference=reference, rotary=rotary
        )
        latents = latents + float(following - now) * predicted.float()
    return latents
