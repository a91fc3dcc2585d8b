"""Reads a network's configuration off the names and shapes of its tensors, or from its diffusers config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...engine.errors import CheckpointError
from ...engine.tensor_names import count_blocks
from ..configs import ClipConfig, T5Config, TransformerConfig, VaeConfig
from .views import TensorView

Views = Mapping[str, TensorView]


def shape_of(views: Views, name: str, source: str, ndim: int) -> tuple[int, ...]:
    """Return the shape of a tensor of `ndim` dimensions, none of which is 0.

    Raises:
        CheckpointError: It is missing, or has another number of dimensions.
    """
    if name not in views:
        raise CheckpointError(f"{source} lacks {name}")
    shape = views[name].shape
    if len(shape) != ndim or 0 in shape:
        raise CheckpointError(f"{source}: tensor {name} is {list(shape)}, which should be {ndim} numbers above 0")
    return shape


def transformer_from_tensors(views: Views, source: str) -> TransformerConfig:
    """Return a transformer's configuration, read off its tensors' shapes.

    Rope axes are not in the tensors: they take the shares that FLUX.1's have of its head width (1/8, 7/16, 7/16).

    Raises:
        CheckpointError: A tensor is missing, or the hidden width is not a multiple of the head width.
    """
    hidden, channels = shape_of(views, "x_embedder.weight", source, 2)
    (head_width,) = shape_of(views, "transformer_blocks.0.attn.norm_q.weight", source, 1)
    if hidden % head_width:
        raise CheckpointError(f"{source}: hidden width {hidden} is not a multiple of the head width {head_width}")
    height_axis = 7 * head_width // 16
    return TransformerConfig(
        num_double_blocks=count_blocks(views, "transformer_blocks.", source),
        num_single_blocks=count_blocks(views, "single_transformer_blocks.", source),
        num_heads=hidden // head_width,
        head_width=head_width,
        channels=channels,
        text_width=shape_of(views, "context_embedder.weight", source, 2)[1],
        pooled_width=shape_of(views, "time_text_embed.text_embedder.linear_1.weight", source, 2)[1],
        mlp_ratio=shape_of(views, "transformer_blocks.0.ff.net.0.proj.weight", source, 2)[0] / hidden,
        rope_axes=(head_width - 2 * height_axis, height_axis, height_axis),
    )


def transformer_from_config(config: Mapping[str, Any], source: str) -> TransformerConfig:
    """Return a transformer's configuration from diffusers' `transformer/config.json`.

    Raises:
        CheckpointError: The config says that there is no guidance embedding.
        KeyError: An entry is missing.
    """
    if not config.get("guidance_embeds", False):
        raise CheckpointError(_no_guidance(source, "guidance_embeds is false in its config"))
    return TransformerConfig(
        num_double_blocks=config["num_layers"],
        num_single_blocks=config["num_single_layers"],
        num_heads=config["num_attention_heads"],
        head_width=config["attention_head_dim"],
        channels=config["in_channels"],
        text_width=config["joint_attention_dim"],
        pooled_width=config["pooled_projection_dim"],
        rope_axes=tuple(config.get("axes_dims_rope", (16, 56, 56))),
    )


def _no_guidance(source: str, reason: str) -> str:
    return (
        f"{source} has no guidance embedding ({reason}): it is a FLUX without guidance distillation, such as schnell, "
        "not FLUX.1 Kontext [dev]"
    )


def require_guidance(views: Views, source: str) -> None:
    """Raise CheckpointError for a FLUX whose guidance embedder is missing."""
    name = "time_text_embed.guidance_embedder.linear_1.weight"
    if name not in views:
        raise CheckpointError(_no_guidance(source, f"no tensor {name}, in BFL's files guidance_in.in_layer.weight"))


def vae_from_tensors(views: Views, source: str) -> VaeConfig:
    """Return an autoencoder's configuration, read off its tensors' shapes; raise CheckpointError if one is missing."""
    num_levels = count_blocks(views, "encoder.down_blocks.", source)
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    channels = tuple(shape_of(views, first.format(level), source, 4)[0] for level in range(max(1, num_levels)))
    return VaeConfig(
        block_channels=channels,
        latent_channels=shape_of(views, "decoder.conv_in.weight", source, 4)[1],
        layers_per_block=count_blocks(views, "encoder.down_blocks.0.resnets.", source),
        norm_groups=min((32, *channels)),
    )


def vae_from_config(config: Mapping[str, Any]) -> VaeConfig:
    """Return an autoencoder's configuration from diffusers' `vae/config.json`; raise KeyError if it lacks an entry."""
    return VaeConfig(
        block_channels=tuple(config["block_out_channels"]),
        latent_channels=config["latent_channels"],
        layers_per_block=config["layers_per_block"],
        norm_groups=config["norm_num_groups"],
        scaling=config["scaling_factor"],
        shift=config["shift_factor"] or 0.0,
    )


def clip_from_tensors(views: Views, source: str) -> ClipConfig:
    """Return CLIP's configuration, read off its tensors' shapes; raise CheckpointError if one is missing.

    CLIP's heads are 64 wide in every published model.
    """
    vocabulary, width = shape_of(views, "embeddings.token_embedding.weight", source, 2)
    return ClipConfig(
        vocabulary=vocabulary,
        width=width,
        mlp_width=shape_of(views, "encoder.layers.0.mlp.fc1.weight", source, 2)[0],
        num_layers=count_blocks(views, "encoder.layers.", source),
        num_heads=max(width // 64, 1),
        length=shape_of(views, "embeddings.position_embedding.weight", source, 2)[0],
    )


def clip_from_config(config: Mapping[str, Any]) -> ClipConfig:
    """Return CLIP's configuration from transformers' `text_encoder/config.json`, or from that of a whole CLIP.

    Raise KeyError if an entry is missing.
    """
    config = config.get("text_config") or config
    return ClipConfig(
        vocabulary=config["vocab_size"],
        width=config["hidden_size"],
        mlp_width=config["intermediate_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        length=config["max_position_embeddings"],
        activation=config["hidden_act"],
        norm_eps=config["layer_norm_eps"],
        eos_id=config["eos_token_id"],
    )


def t5_from_tensors(views: Views, source: str) -> T5Config:
    """Return T5's configuration, read off its tensors' shapes; raise CheckpointError if one is missing."""
    attention = "encoder.block.0.layer.0.SelfAttention"
    vocabulary, width = shape_of(views, "shared.weight", source, 2)
    num_buckets, num_heads = shape_of(views, f"{attention}.relative_attention_bias.weight", source, 2)
    return T5Config(
        vocabulary=vocabulary,
        width=width,
        head_width=shape_of(views, f"{attention}.q.weight", source, 2)[0] // num_heads,
        mlp_width=shape_of(views, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight", source, 2)[0],
        num_layers=count_blocks(views, "encoder.block.", source),
        num_heads=num_heads,
        num_buckets=num_buckets,
    )


def t5_from_config(config: Mapping[str, Any]) -> T5Config:
    """Return T5's configuration from transformers' `text_encoder_2/config.json`.

    Raise KeyError if an entry is missing.
    """
    return T5Config(
        vocabulary=config["vocab_size"],
        width=config["d_model"],
        head_width=config["d_kv"],
        mlp_width=config["d_ff"],
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
        num_buckets=config["relative_attention_num_buckets"],
        max_distance=config.get("relative_attention_max_distance", T5Config().max_distance),
        norm_eps=config["layer_norm_epsilon"],
        length=config.get("n_positions", T5Config().length),
    )
