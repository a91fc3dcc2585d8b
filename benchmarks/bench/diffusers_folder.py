"""Lays a bundle's weights out as diffusers opens them: configurations, tokenizers, and links to the bundle's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...engine.bundle.bundle import WEIGHTS
from ...engine.errors import BundleError
from ...export.configs import FOLDERS

if TYPE_CHECKING:
    from ...export.configs import ModelConfig

WEIGHT_FILES = {
    part: f"{folder}/{'model' if folder.startswith('text_encoder') else 'diffusion_pytorch_model'}.safetensors"
    for part, folder in FOLDERS.items()
}
"""The file of each part of the checkpoint, which a bundle's weights files are named by."""


def write_configs(folder: Path, config: ModelConfig) -> None:
    """Write all of a diffusers folder but its weights; the tokenizers are the tiny model's, whatever the vocabulary."""
    import torch

    from ...export.tiny import clip_tokenizer, random_pipeline, t5_tokenizer

    with torch.device("meta"):
        pipeline = random_pipeline(config, clip_tokenizer(), t5_tokenizer())
    pipeline.save_config(folder)
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    pipeline.transformer.save_config(folder / "transformer")
    pipeline.vae.save_config(folder / "vae")
    for name in ("text_encoder", "text_encoder_2"):
        model = getattr(pipeline, name)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder / name)
    for name in ("tokenizer", "tokenizer_2"):
        getattr(pipeline, name).save_pretrained(str(folder / name))


def link_weights(folder: Path, bundle: Path) -> None:
    """Make hard links to a bundle's weights, which must be one file per part, as the checkpoint stored them.

    Links that are there are replaced.

    Raises:
        BundleError: A part has no file of its own.
    """
    for part, name in WEIGHT_FILES.items():
        found = sorted((bundle / WEIGHTS).glob(f"{part}.*.safetensors"))
        if len(found) != 1:
            raise BundleError(f"{bundle} has {len(found)} weights files of {part}, one is needed; prepare it again")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(found[0], target)
