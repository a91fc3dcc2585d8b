"""Names the tensors of each network: here, in diffusers' files, and in BFL's and ComfyUI's single files.

This is the one table of names, for checkpoints and LoRA files. A source may be rows of a larger tensor: `[1:2]` counts
them in units of the hidden width, and an open end reaches to the last row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import CheckpointError

MAX_BLOCKS = 1024
"""The largest number of blocks of one kind that a network may have."""

# (here, diffusers, BFL); each stands for a `.weight` and a `.bias`
_TRANSFORMER_LINEARS = (
    ("x_embedder", "x_embedder", "img_in"),
    ("context_embedder", "context_embedder", "txt_in"),
    ("time_text_embed.timestep_embedder.linear_1", "time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"),
    ("time_text_embed.timestep_embedder.linear_2", "time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
    (
        "time_text_embed.guidance_embedder.linear_1",
        "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.in_layer",
    ),
    (
        "time_text_embed.guidance_embedder.linear_2",
        "time_text_embed.guidance_embedder.linear_2",
        "guidance_in.out_layer",
    ),
    ("time_text_embed.text_embedder.linear_1", "time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
    ("time_text_embed.text_embedder.linear_2", "time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
    ("norm_out.scale", "norm_out.linear[0:1]", "final_layer.adaLN_modulation.1[1:2]"),
    ("norm_out.shift", "norm_out.linear[1:2]", "final_layer.adaLN_modulation.1[0:1]"),
    ("proj_out", "proj_out", "final_layer.linear"),
)
_DOUBLE_LINEARS = (
    ("norm1.linear", "norm1.linear", "img_mod.lin"),
    ("norm1_context.linear", "norm1_context.linear", "txt_mod.lin"),
    ("attn.to_q", "attn.to_q", "img_attn.qkv[0:1]"),
    ("attn.to_k", "attn.to_k", "img_attn.qkv[1:2]"),
    ("attn.to_v", "attn.to_v", "img_attn.qkv[2:3]"),
    ("attn.to_out.0", "attn.to_out.0", "img_attn.proj"),
    ("attn.add_q_proj", "attn.add_q_proj", "txt_attn.qkv[0:1]"),
    ("attn.add_k_proj", "attn.add_k_proj", "txt_attn.qkv[1:2]"),
    ("attn.add_v_proj", "attn.add_v_proj", "txt_attn.qkv[2:3]"),
    ("attn.to_add_out", "attn.to_add_out", "txt_attn.proj"),
    ("ff.net.0.proj", "ff.net.0.proj", "img_mlp.0"),
    ("ff.net.2", "ff.net.2", "img_mlp.2"),
    ("ff_context.net.0.proj", "ff_context.net.0.proj", "txt_mlp.0"),
    ("ff_context.net.2", "ff_context.net.2", "txt_mlp.2"),
)
_SINGLE_LINEARS = (
    ("norm.linear", "norm.linear", "modulation.lin"),
    ("attn.to_q", "attn.to_q", "linear1[0:1]"),
    ("attn.to_k", "attn.to_k", "linear1[1:2]"),
    ("attn.to_v", "attn.to_v", "linear1[2:3]"),
    ("proj_mlp", "proj_mlp", "linear1[3:]"),
    ("proj_out", "proj_out", "linear2"),
)
# (here and in diffusers, BFL); one tensor each
_DOUBLE_NORMS = (
    ("attn.norm_q.weight", "img_attn.norm.query_norm.scale"),
    ("attn.norm_k.weight", "img_attn.norm.key_norm.scale"),
    ("attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
    ("attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"),
)
_SINGLE_NORMS = (
    ("attn.norm_q.weight", "norm.query_norm.scale"),
    ("attn.norm_k.weight", "norm.key_norm.scale"),
)
_VAE_RESNET = ("norm1", "conv1", "norm2", "conv2")
_VAE_ATTENTION = (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Names a tensor in a file, or rows of it in units of the hidden width."""

    name: str
    start: int | None = None
    stop: int | None = None

    @classmethod
    def parse(cls, stem: str, suffix: str) -> Source:
        match = re.fullmatch(r"(.+)\[(\d+):(\d*)\]", stem)
        if match is None:
            return cls(name=stem + suffix)
        name, start, stop = match.groups()
        return cls(name=name + suffix, start=int(start), stop=int(stop) if stop else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Names a layer here that rows of a layer in other files are.

    Attributes:
        layer: The layer's name here, without `.weight`; "{}" stands for the number of a block.
        start: The first row in units of the hidden width, None for all rows.
        stop: The row after the last, None for the open end.
    """

    layer: str
    start: int | None = None
    stop: int | None = None


def transformer_targets(*, bfl: bool) -> dict[str, tuple[Target, ...]]:
    """Return what each layer of a transformer in BFL's or diffusers' files is here; it is `transformer_sources` turned.

    Names have "{}" for the number of a block, and no `.weight`, `.bias` or `.scale` at the end.
    """
    column = 1 if bfl else 0
    targets: dict[str, tuple[Target, ...]] = {}

    def add(ours: str, theirs: str) -> None:
        source = Source.parse(theirs, "")
        target = Target(layer=ours, start=source.start, stop=source.stop)
        targets[source.name] = (*targets.get(source.name, ()), target)

    for here, *others in _TRANSFORMER_LINEARS:
        add(here, others[column])
    for stem, other, linears, norms in (
        ("transformer_blocks.{}.", "double_blocks.{}.", _DOUBLE_LINEARS, _DOUBLE_NORMS),
        ("single_transformer_blocks.{}.", "single_blocks.{}.", _SINGLE_LINEARS, _SINGLE_NORMS),
    ):
        theirs = other if bfl else stem
        for here, *others in linears:
            add(stem + here, theirs + others[column])
        for norm, bfl_norm in norms:
            plain = norm.removesuffix(".weight")
            add(stem + plain, theirs + (bfl_norm.removesuffix(".scale") if bfl else plain))
    return targets


def transformer_sources(names: Iterable[str], *, bfl: bool, source: str) -> dict[str, Source]:
    """Return every tensor of a transformer of this depth, and where it lies; depth is read from the `names` given.

    Args:
        names: The tensors of the file.
        bfl: Whether the file has BFL's names; otherwise it has diffusers'.
        source: The file, for messages.
    """
    blocks = ("double_blocks", "single_blocks") if bfl else ("transformer_blocks", "single_transformer_blocks")
    num_double, num_single = (count_blocks(names, f"{stem}.", source) for stem in blocks)
    column = 1 if bfl else 0
    sources: dict[str, Source] = {}
    for here, *others in _TRANSFORMER_LINEARS:
        sources |= _linear(here, others[column])
    groups = (
        ("transformer_blocks", blocks[0], num_double, _DOUBLE_LINEARS, _DOUBLE_NORMS),
        ("single_transformer_blocks", blocks[1], num_single, _SINGLE_LINEARS, _SINGLE_NORMS),
    )
    for ours, theirs, count, linears, norms in groups:
        for i in range(count):
            for here, *others in linears:
                sources |= _linear(f"{ours}.{i}.{here}", f"{theirs}.{i}.{others[column]}")
            for here, other in norms:
                sources[f"{ours}.{i}.{here}"] = Source(name=f"{theirs}.{i}.{other if bfl else here}")
    return sources


def vae_sources(num_levels: int, layers_per_block: int) -> dict[str, Source]:
    """Return the autoencoder's tensors under diffusers' names, and where BFL's `ae.safetensors` has them."""
    sources: dict[str, Source] = {}
    for here, there in _vae_pairs(num_levels, layers_per_block):
        sources |= _linear(here, there)
    return sources


def _vae_pairs(num_levels: int, layers: int) -> Iterator[tuple[str, str]]:
    for side in ("encoder", "decoder"):
        for name, other in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
            yield f"{side}.{name}", f"{side}.{other}"
        for i in (0, 1):
            yield from _resnet(f"{side}.mid_block.resnets.{i}", f"{side}.mid.block_{i + 1}")
        for name, other in _VAE_ATTENTION:
            yield f"{side}.mid_block.attentions.0.{name}", f"{side}.mid.attn_1.{other}"
    for level in range(num_levels):
        for i in range(layers):
            yield from _resnet(f"encoder.down_blocks.{level}.resnets.{i}", f"encoder.down.{level}.block.{i}")
        up = num_levels - 1 - level  # BFL counts the decoder's levels from the picture, diffusers from the latents
        for i in range(layers + 1):
            yield from _resnet(f"decoder.up_blocks.{level}.resnets.{i}", f"decoder.up.{up}.block.{i}")
        if level < num_levels - 1:
            yield f"encoder.down_blocks.{level}.downsamplers.0.conv", f"encoder.down.{level}.downsample.conv"
            yield f"decoder.up_blocks.{level}.upsamplers.0.conv", f"decoder.up.{up}.upsample.conv"


def _resnet(here: str, there: str) -> Iterator[tuple[str, str]]:
    for name in _VAE_RESNET:
        yield f"{here}.{name}", f"{there}.{name}"
    yield f"{here}.conv_shortcut", f"{there}.nin_shortcut"  # only where the channel count changes


def _linear(here: str, there: str) -> dict[str, Source]:
    return {here + suffix: Source.parse(there, suffix) for suffix in (".weight", ".bias")}


def count_blocks(names: Iterable[str], stem: str, source: str) -> int:
    """Return the number of blocks after `stem`, 0 if there is none.

    Raises:
        CheckpointError: A block has no number below `MAX_BLOCKS`, or there is none with a number before the last.
    """
    found: set[int] = set()
    for name in names:
        if name.startswith(stem):
            number = name[len(stem) :].partition(".")[0]
            if not re.fullmatch(r"[0-9]{1,6}", number) or int(number) >= MAX_BLOCKS:
                raise CheckpointError(
                    f"{source}: {name:.200} is of no block: after {stem} stands a number below {MAX_BLOCKS}"
                )
            found.add(int(number))
    missing = next((number for number in range(max(found, default=-1)) if number not in found), None)
    if missing is not None:
        raise CheckpointError(f"{source} has a block {stem}{max(found)}, and none {stem}{missing}: tensors are missing")
    return len(found)
