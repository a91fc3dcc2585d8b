"""Finds networks that are not FLUX.1 Kontext's, by names and shapes, and says what they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...engine.errors import CheckpointError
from .views import TensorView

logger = logging.getLogger(__name__)

Tensors = Mapping[str, TensorView]
KONTEXT = "FLUX.1 Kontext [dev]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Describes a network that somebody may take for FLUX.1 Kontext's transformer.

    Attributes:
        name: What it is.
        found: Returns the tensor, by its name without prefix, that tells that it is this; None if none does.
        advice: What to do instead.
    """

    name: str
    found: Callable[[Tensors], str | None]
    advice: str = f"this project runs {KONTEXT} alone"


def _begins(*stems: str) -> Callable[[Tensors], str | None]:
    begin = re.compile(rf"(^|\.)({'|'.join(map(re.escape, stems))})")
    return lambda tensors: next(filter(begin.search, tensors), None)


def _lora(tensors: Tensors) -> str | None:
    if any(name.endswith(".qweight") for name in tensors):  # SVDQuant's branch is named like one
        return None
    parts = re.compile(r"lora_|\.lora\.|lokr_|hada_w|\.dora_scale|\.oft_", re.IGNORECASE)
    return next(filter(parts.search, tensors), None)


def _input_channels(number: int) -> Callable[[Tensors], str | None]:
    def found(tensors: Tensors) -> str | None:
        names = (name for name in ("img_in.weight", "x_embedder.weight") if name in tensors)
        return next((name for name in names if tensors[name].shape[1:] == (number,)), None)

    return found


FOREIGN = (
    Foreign(name="a LoRA, not a checkpoint", found=_lora, advice="name the checkpoint, and this with --lora"),
    Foreign(name="FLUX.2", found=_begins("double_stream_modulation_img.")),
    Foreign(name="Chroma, a FLUX without modulation", found=_begins("distilled_guidance_layer.")),
    Foreign(name="Qwen-Image", found=_begins("txt_norm.weight")),
    Foreign(name="a ControlNet", found=_begins("controlnet_blocks.", "control_model.", "controlnet_x_embedder.")),
    Foreign(name="FLUX.1 Redux, an adapter for pictures", found=_begins("redux_up.")),
    Foreign(name="Stable Diffusion 3", found=_begins("joint_blocks.")),
    Foreign(name="Stable Diffusion (a U-Net)", found=_begins("input_blocks.", "down_blocks.0.attentions.")),
    Foreign(name="HunyuanVideo", found=_begins("txt_in.individual_token_refiner.")),
    Foreign(name="Wan", found=_begins("blocks.0.cross_attn.")),
    Foreign(name="FLUX.1 Fill (384 input channels, with a mask's)", found=_input_channels(384)),
    Foreign(name="FLUX.1 Canny or Depth (128 input channels, with a control picture's)", found=_input_channels(128)),
)
"""The networks in the order in which they are looked for; those without guidance are found where that is read."""


def refuse_foreign(tensors: Tensors, source: str) -> None:
    """Raise CheckpointError if tensors, without prefix, are of a network that is known and is not FLUX.1 Kontext's."""
    for one in FOREIGN:
        evidence = one.found(tensors)
        if evidence is not None:
            raise CheckpointError(f"{source} is {one.name} (it has the tensor {evidence}): {one.advice}")


def warn_of_dev(file: str) -> None:
    """Warn if a transformer's file is named like FLUX.1 [dev]'s: the tensors are the same, so nothing else tells."""
    if re.search(r"flux[._-]?1?[._-]?(krea[._-]?)?dev", file.lower()) and "kontext" not in file.lower():
        logger.warning(
            "%s is named like FLUX.1 [dev], whose tensors are those of %s: if it is, pictures will not follow the "
            "reference",
            file,
            KONTEXT,
        )


def check_pipeline(pipeline: object, source: str) -> None:
    """Check the pipeline that a diffusers index names.

    Raises:
        CheckpointError: It is none of FLUX.1. Another of FLUX.1 than Kontext's is warned about.
    """
    name = str(pipeline)
    if name.startswith("Flux2"):
        raise CheckpointError(f"{source} is FLUX.2 ({name:.80}): this project runs {KONTEXT} alone")
    if not name.startswith("Flux"):
        raise CheckpointError(f"{source} is a {name:.80}, not a FLUX pipeline")
    if not name.startswith("FluxKontext"):
        logger.warning(
            "%s is a %s, not a FluxKontextPipeline: FLUX.1 [dev] has the same tensors as %s, and does not follow the "
            "reference",
            source,
            name[:80],
            KONTEXT,
        )
