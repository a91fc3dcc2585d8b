"""The second stage: transformer and text encoders learn the flow from noise to a picture's latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from torch import Tensor

from ...engine.manifest import FlowRecord
from ...engine.sizes import Size, token_grid
from ...runtime.rope import position_ids
from ...runtime.schedule import noise_levels, shift_for
from .vocabulary import T5_LENGTH

TIME_SPREAD = 1.2
"""Deviation of the normal whose logistic is the timestep: a little more than 1, for the ends of the flow."""
GUIDANCE = (1.0, 5.0)
"""The guidance that training gives, at random: nothing depends on it, so that any value in here means the same."""
CHANGED = 0.25
"""Mean distance of a token of the target from the reference's above which the edit is in it."""
CHANGED_WEIGHT = 4.0
"""Its weight in the loss: an edit changes one token of twelve. The edit being known from the inputs, what minimises the
loss is the same with any weight."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The trained parts of a pipeline."""

    transformer: FluxTransformer2DModel
    clip: torch.nn.Module
    t5: torch.nn.Module

    @classmethod
    def of(cls, pipeline: FluxKontextPipeline) -> Networks:
        return cls(pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)

    def texts(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled (b, clip width) and text (b, T5_LENGTH, T5 width) of int16 ids."""
        pooled = self.clip(input_ids=clip_ids.long()).pooler_output
        return pooled, self.t5(input_ids=t5_ids.long()).last_hidden_state


def rope(transformer: FluxTransformer2DModel, size: Size, has_reference: bool) -> tuple[Tensor, Tensor]:
    """diffusers' cos and sin (s, head) float32 of [text, target, reference], both pictures of one size."""
    grid = token_grid(size)
    ids = position_ids(T5_LENGTH, grid, grid if has_reference else None)
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
    rotary: tuple[Tensor, Tensor],
) -> Tensor:
    """The transformer's prediction (b, n, 64) for target tokens, in its own type.

    `FluxTransformer2DModel.forward`, except that `timesteps` (b,) in 0..1 and `guidance` (b,) stay float32 until they
    are embedded. `reference` (b, m, 64), m = 0 without one.
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


def draw_timesteps(count: int, num_tokens: int, device: torch.device) -> Tensor:
    """(count,) float32 in 0..1: logit-normal, shifted towards noise as the sampler's schedule is."""
    mu = shift_for(num_tokens, FlowRecord())
    return torch.sigmoid(torch.randn(count, device=device) * TIME_SPREAD + mu)


def flow_loss(networks: Networks, sample: dict[str, Tensor], rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Weighted squared error of the velocity. `sample` has latents `target` and `reference` (b, n or 0, 64), and
    token ids `clip` and `t5`."""
    target, reference = sample["target"].float(), sample["reference"]
    if not len(reference):
        reference = target.new_zeros(len(target), 0, target.shape[2])
    noise = torch.randn_like(target)
    timesteps = draw_timesteps(len(target), target.shape[1], target.device)
    guidance = torch.empty_like(timesteps).uniform_(*GUIDANCE)
    mixed = torch.lerp(target, noise, timesteps[:, None, None])
    predicted = velocity(
        networks.transformer,
        mixed,
        timesteps,
        guidance,
        texts=networks.texts(sample["clip"], sample["t5"]),
        reference=reference,
        rotary=rotary,
    )
    error = (predicted.float() - (noise - target)).square().mean(dim=2)
    if not reference.shape[1]:
        return error.mean()
    changed = (target - reference.float()).abs().mean(dim=2) > CHANGED
    weights = torch.where(changed, CHANGED_WEIGHT, 1.0)
    return (error * weights).sum() / weights.sum()


@torch.no_grad()
def sample_latents(
    networks: Networks, sample: dict[str, Tensor], size: Size, *, steps: int, guidance: float, seed: int
) -> Tensor:
    """Latents (b, n, 64) float32 of the requests in `sample`, as the runtime's flow loop makes them."""
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
