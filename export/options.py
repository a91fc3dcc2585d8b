"""Defines the options of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..engine.branches import MAX_RANK
from ..engine.bundle.manifest import FEATURES, SCHEMA
from ..engine.components import CACHED_DENOISER, COMPONENTS, STEP_CACHE, Component, Operators, Precision
from ..engine.errors import ExportError
from ..engine.lora.choice import LoraChoice
from ..engine.spelling import parse_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Holds the options of an export.

    Attributes:
        precision: The type that every network computes in; None takes the type that each is stored in.
        fp8_as_stored: Graphs read FP8 weights of linear layers as they lie, and dequantize them, for which TensorRT
            needs a GPU from sm_89; without, they are converted, and so are NVFP4 weights.
        input_scales: Layers whose FP8 weights are read as they lie multiply in FP8 where the checkpoint has a scale of
            their input, and layers with NVFP4 weights in NVFP4, for which TensorRT needs a GPU from sm_100; without,
            they compute in the graph's type.
        operators: The operators that graphs may have.
        step_cache: Lets steps be cached: the denoiser also gives what its blocks but the first add, which stays in
            memory, and a small graph takes it.
        lora_rank: The rank of the branches that LoRAs are swapped into, in every linear layer of the transformer; 0
            for none.
        hash_weights: Reads every byte once.
        copy: Gives the bundle weights of its own: a checkpoint that is written into then changes nothing.
        overwrite: Replaces a bundle that is there.
        loras: The LoRA files that are fused into the weights, before anything is quantized.
        allow_unused: Leaves out tensors of theirs that change nothing here; without, they are refused.
    """

    precision: Precision | None = None
    fp8_as_stored: bool = True
    input_scales: bool = True
    operators: Operators = Operators.SINGLE
    step_cache: bool = False
    lora_rank: int = 0
    hash_weights: bool = False
    copy: bool = False
    overwrite: bool = False
    loras: tuple[LoraChoice, ...] = ()
    allow_unused: bool = False

    def __post_init__(self) -> None:
        if self.precision is not None:
            object.__setattr__(self, "precision", parse_name(Precision, "precision", self.precision))
        object.__setattr__(self, "operators", parse_name(Operators, "operators", self.operators))
        if not 0 <= self.lora_rank <= MAX_RANK:
            raise ExportError(f"the rank of swapped LoRAs is from 0, for none, to {MAX_RANK}, not {self.lora_rank}")

    @property
    def components(self) -> Mapping[str, Component]:
        """The components that are exported, with the ports that the options give them."""
        known = {**COMPONENTS, **({CACHED_DENOISER.name: CACHED_DENOISER} if self.step_cache else {})}
        return {name: component.of_schema(SCHEMA, self.features) for name, component in known.items()}

    @property
    def features(self) -> tuple[str, ...]:
        """The features that the bundle gets."""
        chosen = {"lora": self.lora_rank > 0, STEP_CACHE: self.step_cache}
        return (*FEATURES, *(feature for feature, one in chosen.items() if one))
