"""Says what layers of the networks are called in LoRA files: every name there is, none is guessed.

Trainers that join names with underscores (`double_blocks_0_img_attn_qkv`) are read by joining all known names alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..tensor_names import Target, transformer_targets

MAX_NAME = 300
"""The longest name that is looked up; no layer's has half of it."""
Names = Mapping[str, tuple[Target, ...]]
"""The layers here that each layer of a file is, by its name there; "{}" stands for the number of a block."""


def _own(*names: str, prefix: str = "") -> dict[str, tuple[Target, ...]]:
    return {prefix + name: (Target(layer=name),) for name in names}


_CLIP_LAYERS = (
    *(f"encoder.layers.{{}}.self_attn.{one}_proj" for one in ("q", "k", "v", "out")),
    *(f"encoder.layers.{{}}.{one}" for one in ("mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2")),
    "embeddings.token_embedding",
    "embeddings.position_embedding",
    "final_layer_norm",
)
_T5_LAYERS = (
    *(f"encoder.block.{{}}.layer.0.SelfAttention.{one}" for one in ("q", "k", "v", "o", "relative_attention_bias")),
    *(f"encoder.block.{{}}.layer.1.DenseReluDense.{one}" for one in ("wi_0", "wi_1", "wo")),
    *(f"encoder.block.{{}}.layer.{one}.layer_norm" for one in (0, 1)),
    "encoder.final_layer_norm",
    "shared",
)
# XLabs names what it adds to an attention; of linear1 it changes q, k and v alone
_XLABS = {
    "double_blocks.{}.processor.qkv_lora1": "double_blocks.{}.img_attn.qkv",
    "double_blocks.{}.processor.qkv_lora2": "double_blocks.{}.txt_attn.qkv",
    "double_blocks.{}.processor.proj_lora1": "double_blocks.{}.img_attn.proj",
    "double_blocks.{}.processor.proj_lora2": "double_blocks.{}.txt_attn.proj",
    "single_blocks.{}.processor.qkv_lora": "single_blocks.{}.linear1",
    "single_blocks.{}.processor.proj_lora": "single_blocks.{}.linear2",
}

DIFFUSERS: Names = transformer_targets(bfl=False)
BFL: Names = transformer_targets(bfl=True)
XLABS: Names = {
    name: tuple(target for target in BFL[other] if name != "single_blocks.{}.processor.qkv_lora" or target.stop)
    for name, other in _XLABS.items()
}
CLIP: Names = _own(*_CLIP_LAYERS) | _own(*_CLIP_LAYERS, prefix="text_model.")
T5: Names = _own(*_T5_LAYERS)


def joined(names: Names) -> Names:
    """Return names with underscores for their full stops, as many trainers write them."""
    return {name.replace(".", "_"): targets for name, targets in names.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """Says how a family writes the names of one network's layers.

    Attributes:
        prefix: What stands before each.
        part: The network: "transformer", "clip" or "t5".
        names: The layers by the names that follow it.
    """

    prefix: str
    part: str
    names: Names

    def find(self, name: str) -> tuple[Target, ...]:
        """Return the layers here that a layer of a file is, with the block's number put in; none if it is unknown."""
        if not name.startswith(self.prefix) or len(name) > MAX_NAME:
            return ()
        rest = name[len(self.prefix) :]
        if rest in self.names:
            return self.names[rest]
        for match in re.finditer(r"(?<=[._])(?:0|[1-9][0-9]{0,3})(?=[._])", rest):
            found = self.names.get(f"{rest[: match.start()]}{{}}{rest[match.end() :]}")
            if found is not None:
                return tuple(
                    Target(layer=one.layer.replace("{}", match[0]), start=one.start, stop=one.stop) for one in found
                )
        return ()
