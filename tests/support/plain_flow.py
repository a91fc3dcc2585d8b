"""The flow written once more over diffusers' own networks, and our pictures before they are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch

from kontext_trt.engine.bundle.bundle import Bundle

if TYPE_CHECKING:
    from kontext_trt import Result

Size = tuple[int, int]


def float_decoder(bundle: Bundle) -> onnxruntime.InferenceSession:
    """The decoder with one more output: its picture before rounding."""
    path = bundle.open_graph("vae_decoder").path
    model = onnx.load(path, load_external_data=False)
    (rounding,) = [node for node in model.graph.node if node.op_type == "Round"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(rounding.input[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def before_rounding(bundle: Bundle, result: Result) -> np.ndarray:
    """(b, H, W, 3) in 0..1: what a result's latents decode to, before it is rounded to bytes or pasted."""
    width, height = result.size
    grid = np.stack([output.latents.reshape(height // 16, width // 16, -1) for output in result.outputs])
    return float_decoder(bundle).run(None, {"latents": grid})[-1].transpose(0, 2, 3, 1) / 255


def unpacked(tokens: np.ndarray, size: Size) -> np.ndarray:
    """(b, channels / 4, H / 8, W / 8) of packed tokens (b, n, channels)."""
    rows, columns = size[1] // 16, size[0] // 16
    parts = tokens.reshape(len(tokens), rows, columns, -1, 2, 2)
    return np.ascontiguousarray(parts.transpose(0, 3, 1, 4, 2, 5)).reshape(len(tokens), -1, 2 * rows, 2 * columns)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """(b, n, channels) of latents (b, channels / 4, H / 8, W / 8): 2 x 2 of them per token."""
    tiles = latents.unfold(2, 2, 2).unfold(3, 2, 2)  # b, c, rows, columns, 2, 2
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(len(latents), -1, 4 * latents.shape[1])


def encoded(pipeline: Any, image: Any) -> torch.Tensor:
    """(1, m, channels): a picture by diffusers' encoder, the middle of its distribution, normalised and packed."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    mean = pipeline.vae.encode(pixels).latent_dist.mode()
    return packed((mean - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor)


@torch.no_grad()
def plain_pictures(
    pipeline: Any,
    references: Sequence[torch.Tensor],
    ids: np.ndarray,
    prompts: Sequence[str],
    size: Size,
    noise: np.ndarray,
    steps: int,
) -> np.ndarray:
    """(b, H, W, 3) in 0..1 of packed references, by Euler steps at guidance 2.5; `ids` are of target and references."""
    text, pooled, text_ids = pipeline.encode_prompt(prompt=list(prompts), prompt_2=None, max_sequence_length=512)
    tokens, x = noise.shape[1], torch.from_numpy(noise)
    shift = np.exp(0.5 + (tokens - 256) / (4096 - 256) * (1.15 - 0.5))
    levels = np.linspace(1, 1 / steps, steps)
    sigmas = [*(shift / (shift + 1 / levels - 1)), 0.0]
    context = [one.expand(len(x), -1, -1) for one in references]
    for now, after in pairwise(sigmas):
        velocity = pipeline.transformer(
            hidden_states=torch.cat([x, *context], dim=1),
            timestep=torch.full((len(x),), now, dtype=torch.float32),
            guidance=torch.full((len(x),), 2.5),
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=torch.from_numpy(ids).float(),
        ).sample[:, :tokens]
        x = x + (after - now) * velocity
    config = pipeline.vae.config
    latents = torch.from_numpy(unpacked(x.numpy(), size)) / config.scaling_factor + config.shift_factor
    pictures = pipeline.vae.decode(latents).sample
    return (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
