"""Defines the families of LoRA files: what each calls the layers, and which tensors of a layer there are.

These are the two tables of the reader: a file is of one family, found by the names of its tensors, and each of its
tensors is one slot of one layer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ..tensor_names import Target
from .dialects import BFL, CLIP, DIFFUSERS, T5, XLABS, Names, Spelling


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Describes how one group of trainers names layers.

    Attributes:
        name: What people call it.
        spellings: How it names the layers of each network.
        mark: A pattern that the name of one tensor must match for a file to be of it; "" for none.
        metadata: Whether alpha may be in the file's header or in a configuration beside it, as PEFT writes it.
        zero_alpha: Whether an alpha of 0 stands for the rank, as in sd-scripts and LyCORIS.
    """

    name: str
    spellings: tuple[Spelling, ...]
    mark: str = ""
    metadata: bool = False
    zero_alpha: bool = False

    def find(self, layer: str) -> Found | None:
        """Return what a layer of a file is here, None if it is unknown."""
        for spelling in self.spellings:
            targets = spelling.find(layer)
            if targets:
                return Found(part=spelling.part, targets=targets, prefix=spelling.prefix)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Says what a layer of a file is here: the network, its layers, and the prefix that stood before the name."""

    part: str
    targets: tuple[Target, ...]
    prefix: str


def _transformer(prefix: str, *names: Names, underscored: bool = False) -> tuple[Spelling, ...]:
    return tuple(Spelling(prefix=prefix, part="transformer", names=one, underscored=underscored) for one in names)


def _texts(*pairs: tuple[str, str], underscored: bool = False) -> tuple[Spelling, ...]:
    tables = {"clip": CLIP, "t5": T5}
    return tuple(
        Spelling(prefix=prefix, part=part, names=tables[part], underscored=underscored) for prefix, part in pairs
    )


_DOTTED_TEXTS = _texts(("text_encoder.", "clip"), ("text_encoder_2.", "t5"))
_JOINED_TEXTS = _texts(
    ("lora_te1_", "clip"), ("lora_te_", "clip"), ("lora_te2_", "t5"), ("lora_te3_", "t5"), underscored=True
)
_COMFY_TEXTS = _texts(("text_encoders.clip_l.transformer.", "clip"), ("text_encoders.t5xxl.transformer.", "t5"))
_LYCORIS_TEXTS = _texts(
    ("lycoris_text_encoder_2_", "t5"), ("lycoris_text_encoder_", "clip"), ("lycoris_te_", "clip"), underscored=True
)
_QUERY_NORM = r"(query|key)_norm\.scale$"

FAMILIES = (
    Family(
        name="diffusers (PEFT, ai-toolkit, OneTrainer)",
        spellings=_transformer("transformer.", DIFFUSERS) + _DOTTED_TEXTS,
        metadata=True,
    ),
    Family(
        name="kohya sd-scripts (OneTrainer)",
        spellings=_transformer("lora_unet_", BFL, DIFFUSERS, underscored=True) + _JOINED_TEXTS,
        zero_alpha=True,
    ),
    Family(
        name="OneTrainer legacy",
        spellings=_transformer("lora_transformer_", DIFFUSERS, underscored=True) + _JOINED_TEXTS,
    ),
    Family(
        name="LyCORIS (SimpleTuner, ai-toolkit)",
        spellings=_transformer("lycoris_", DIFFUSERS, BFL, underscored=True) + _LYCORIS_TEXTS,
        zero_alpha=True,
    ),
    Family(
        name="PEFT adapter (fal)",
        spellings=_transformer("base_model.model.", BFL, DIFFUSERS),
        metadata=True,
    ),
    Family(name="XLabs", spellings=_transformer("", XLABS) + _transformer("diffusion_model.", XLABS)),
    Family(
        name="ComfyUI (OneTrainer)",
        spellings=_transformer("diffusion_model.", BFL, DIFFUSERS)
        + _transformer("model.diffusion_model.", BFL)
        + _COMFY_TEXTS,
    ),
    Family(name="BFL control", spellings=_transformer("", BFL), mark=_QUERY_NORM),
    Family(name="BFL names (OneTrainer)", spellings=_transformer("", BFL)),
    Family(name="diffusers without prefix", spellings=_transformer("", DIFFUSERS), metadata=True),
)
"""The families; of those that know most layers of a file, it is of the first."""

_ADAPTER = r"(?:\.default(?:_0)?)?"
_SLOTS = (
    ("down", rf"\.lora_A{_ADAPTER}\.weight|\.lora_down\.weight|\.lora\.down\.weight|(?<=lora|ora1|ora2)\.down\.weight"),
    ("up", rf"\.lora_B{_ADAPTER}\.weight|\.lora_up\.weight|\.lora\.up\.weight|(?<=lora|ora1|ora2)\.up\.weight"),
    ("up_bias", rf"\.lora_B{_ADAPTER}\.bias|\.lora_up\.bias"),
    ("alpha", r"\.alpha"),
    ("magnitude", rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?"),
    *((name, rf"\.{name}") for name in ("dora_scale", "diff", "diff_b", "reshape_weight")),
    *((name, rf"\.{name}") for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")),
    *((name, rf"\.{name}") for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
    ("diff", r"\.w_norm"),  # LyCORIS' norms
    ("diff_b", r"\.b_norm"),
    ("set_weight", r"\.set_weight|(?<=query_norm)\.scale|(?<=key_norm)\.scale"),
)
_PATTERNS = tuple((slot, re.compile(rf"(?:{pattern})$")) for slot, pattern in _SLOTS)

OTHER_METHODS = (
    (r"\.lora_mid\.weight$|\.(lokr_t2|hada_t[12])$", "a Tucker form, which is for convolutions"),
    (r"\.(oft_blocks|oft_diag|oft_R)", "OFT"),
    (r"\.boft_", "BOFT"),
    (r"\.[ab][12]\.weight$", "GLoRA"),
    (r"\.on_input$|\.ia3_", "IA3"),
    (r"\.(q|sig|lambda)_layer\.", "T-LoRA"),
    (r"^bundle_emb\.|_emb_params", "a learned embedding"),
    (r"\.lora_embedding_[AB]", "a LoRA of an embedding"),
    (r"\.vera_lambda_", "VeRA"),
)
"""The methods that are not read, by their tensors: they are refused by name."""


def slot_of(tensor: str) -> tuple[str, str] | None:
    """Return the layer that a tensor of a file is of, and which slot of it; None if it is of none."""
    for slot, pattern in _PATTERNS:
        match = pattern.search(tensor)
        if match is not None and match.start() > 0:
            return tensor[: match.start()], slot
    return None


def other_method(tensor: str) -> str:
    """Return the method that a tensor is of, "" for one that is read or not known."""
    return next((what for pattern, what in OTHER_METHODS if re.search(pattern, tensor)), "")


def find_family(layers: Collection[str], tensors: Collection[str]) -> tuple[Family, dict[str, Found]]:
    """Return the family that knows most of the layers, and what it knows of each; it may know none."""
    best: tuple[Family, dict[str, Found]] = (FAMILIES[0], {})
    for family in FAMILIES:
        if family.mark and not any(re.search(family.mark, name) for name in tensors):
            continue
        known = {layer: found for layer in layers if (found := family.find(layer)) is not None}
        if len(known) > len(best[1]):
            best = (family, known)
    return best
