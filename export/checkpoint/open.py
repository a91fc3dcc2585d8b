"""Finds the four networks and the tokenizers of a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...engine.bundle.manifest import FlowRecord, LoraRecord, Sizes
from ...engine.bundle.tensor_file import TensorFile
from ...engine.documents import convert_json
from ...engine.errors import CheckpointError, OptionError
from ...engine.progress import Progress, Silent
from ..configs import FOLDERS, ClipConfig, ModelConfig, T5Config, TransformerConfig, VaeConfig
from .fetch import TOKENIZERS, fetch, fetch_tokenizers
from .folders import read_json_file, variants
from .layouts import SIZES_FILE as SIZES_FILE
from .layouts import Layout, find_layout
from .nvfp4_layout import has_nvfp4, with_layout
from .parts import Config, Part, open_clip, open_t5, open_transformer, open_vae
from .places import CheckpointFiles as CheckpointFiles
from .places import usual_places
from .views import Weights

logger = logging.getLogger(__name__)

_SCHEDULER_FIELDS = {
    "base_tokens": "base_image_seq_len",
    "max_tokens": "max_image_seq_len",
    "base_shift": "base_shift",
    "max_shift": "max_shift",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Holds a FLUX.1 Kontext checkpoint, opened: headers are read and named, no weights are touched.

    Of NVFP4 weights some are read, to find how they lie.

    Attributes:
        path: The folder or transformer file that the user named, or that was fetched.
        named: What the user named it by: the path, or a repository and its commit.
        layout: "diffusers" or "single files".
        transformer: The transformer's configuration and tensors.
        vae: The autoencoder's.
        clip: CLIP's.
        t5: T5's.
        tokenizers: CLIP's folder and T5's folder.
        sizes: The (width, height) in pixels that it was trained at, None for FLUX.1 Kontext's own.
        flow: Its noise schedule.
        loras: The LoRA files that are fused into its tensors.

    Raises:
        CheckpointError: The parts' widths do not fit together, or the autoencoder does not scale down by 8.
    """

    path: Path
    named: str
    layout: str
    transformer: Part[TransformerConfig]
    vae: Part[VaeConfig]
    clip: Part[ClipConfig]
    t5: Part[T5Config]
    tokenizers: tuple[Path, Path]
    sizes: tuple[tuple[int, int], ...] | None
    flow: FlowRecord
    loras: tuple[LoraRecord, ...] = ()

    def __post_init__(self) -> None:
        transformer = self.transformer
        pairs = (
            ("pooled text", transformer.config.pooled_width, self.clip.config.width, self.clip.weights),
            ("text", transformer.config.text_width, self.t5.config.width, self.t5.weights),
            ("packed latents", transformer.config.channels, 4 * self.vae.config.latent_channels, self.vae.weights),
        )
        for what, wanted, found, weights in pairs:
            if wanted != found:
                raise CheckpointError(
                    f"the parts do not fit together: {transformer.weights.source} takes {what} of width {wanted}, "
                    f"{weights.source} gives {found}"
                )
        if self.vae.config.downscale != 8:
            raise CheckpointError(
                f"{self.vae.weights.source} makes pictures {self.vae.config.downscale}x smaller, FLUX.1's does 8x"
            )

    @property
    def config(self) -> ModelConfig:
        """The configuration of all four parts."""
        return ModelConfig(
            transformer=self.transformer.config, vae=self.vae.config, clip=self.clip.config, t5=self.t5.config
        )

    def weights(self, part: str) -> Weights:
        """Return the tensors of a part, by its name in `FOLDERS`."""
        assert part in FOLDERS
        return getattr(self, part).weights

    @property
    def files(self) -> tuple[TensorFile, ...]:
        """Every weights file, each once."""
        return tuple({file.path: file for part in FOLDERS for file in self.weights(part).files}.values())


def open_checkpoint(
    path: Path | str, files: CheckpointFiles | None = None, progress: Progress | None = None
) -> Checkpoint:
    """Open a checkpoint: a folder or a file, with the parts that lie elsewhere named in `files`.

    A folder is diffusers', ComfyUI's or one with the four files in it; a file is a transformer's, or holds all parts.
    What does not exist and is written `OWNER/NAME[@REVISION][:FILE]` is fetched from the Hugging Face hub, and so are
    tokenizers that are nowhere; `progress` is told of it.

    Raises:
        CheckpointError: A part is missing, damaged, or not FLUX.1 Kontext's; the message names the file or tensor.
    """
    progress = progress or Silent()
    fetched = fetch(path, files or CheckpointFiles(), progress)
    path, files = fetched.path, fetched.files
    named = {name: Path(getattr(files, name)) for name in FOLDERS if getattr(files, name) is not None}
    layout = find_layout(path, [name for name in FOLDERS if name not in named])
    chosen = {**layout.parts, **named}
    _check_chosen(path, chosen, layout, files.variant)
    opened = Checkpoint(
        path=path,
        named=fetched.named,
        layout=layout.name,
        transformer=open_transformer(chosen["transformer"], files.variant),
        vae=open_vae(chosen["vae"], files.variant),
        clip=open_clip(chosen["clip"], files.variant),
        t5=open_t5(chosen["t5"], files.variant),
        tokenizers=_tokenizers((Path(files.tokenizers),) if files.tokenizers else layout.roots, progress),
        sizes=_sizes(layout.roots),
        flow=_flow(layout.roots),
    )
    return _with_known_layouts(opened, files)


def _with_known_layouts(checkpoint: Checkpoint, files: CheckpointFiles) -> Checkpoint:
    """Return the checkpoint with the layout of its NVFP4 weights known."""
    trusted, reference = files.trust_layout, files.reference_weights
    found = {name for name in FOLDERS if has_nvfp4(checkpoint.weights(name).views)}
    if trusted is not None and not found:
        raise OptionError(f"{checkpoint.path} has no NVFP4 weights, whose layout --trust-layout would name")
    if reference is not None and "transformer" not in found:
        raise OptionError(
            f"{checkpoint.transformer.weights.source} has no NVFP4 weights, whose layout --reference-weights would tell"
        )

    def known(name: str, part: Part[Config]) -> Part[Config]:
        weights = part.weights
        beside = open_transformer(Path(reference)).weights.views if reference and name == "transformer" else None
        views = with_layout(weights.views, weights.source, beside, trusted)
        return replace(part, weights=replace(weights, views=views))

    return replace(
        checkpoint,
        transformer=known("transformer", checkpoint.transformer),
        vae=known("vae", checkpoint.vae),
        clip=known("clip", checkpoint.clip),
        t5=known("t5", checkpoint.t5),
    )


def _check_chosen(path: Path, chosen: Mapping[str, Path], layout: Layout, variant: str | None) -> None:
    """Raise CheckpointError unless there is something for each part, and for the variant."""
    missing = [name for name in FOLDERS if name not in chosen]
    if missing:
        options = " ".join(f"--{name} FILE" for name in missing)
        unread = f" ({len(layout.unread)} files were not read: {layout.unread[0]})" if layout.unread else ""
        raise CheckpointError(
            f"{path} has no {', '.join(missing)}; name what is elsewhere: {options}{unread}. They usually come from "
            f"the hub, and these options fetch them: {usual_places(missing)}"
        )
    if variant is not None:
        there = {name for part in chosen.values() if part.is_dir() for name in variants(part)}
        if variant not in there:
            known = ", ".join(sorted(there - {""})) or "none"
            raise CheckpointError(f"no part of {path} has the variant {variant}; there are: {known}")


def as_checkpoint(
    checkpoint: Checkpoint | Path | str, files: CheckpointFiles | None = None, progress: Progress | None = None
) -> Checkpoint:
    """Return the checkpoint itself, or open the one at a path; raise OptionError for `files` of one that is open."""
    if not isinstance(checkpoint, Checkpoint):
        return open_checkpoint(checkpoint, files, progress)
    if files is not None:
        raise OptionError("files say where the parts of a checkpoint lie, and this one is open already; give its path")
    return checkpoint


def _tokenizers(roots: Sequence[Path], progress: Progress) -> tuple[Path, Path]:
    for root in roots:
        for base in (root, root / "tokenizers"):
            folders = base / "tokenizer", base / "tokenizer_2"
            if all(folder.is_dir() for folder in folders):
                return folders
    logger.info("no tokenizers in %s: they are taken from the hub, %s", roots[0], " and ".join(TOKENIZERS))
    try:
        return fetch_tokenizers(progress)
    except CheckpointError as error:
        raise CheckpointError(
            f"no tokenizers in {roots[0]}: the folders tokenizer/ (CLIP) and tokenizer_2/ (T5) of FLUX.1 Kontext's "
            f"diffusers repository are needed; say where they are with --tokenizers FOLDER. From the hub: {error}"
        ) from error


def _flow(roots: Sequence[Path]) -> FlowRecord:
    """Return the noise schedule of a diffusers folder's scheduler, FLUX.1 Kontext's own where there is none."""
    file = _first(roots, "scheduler/scheduler_config.json")
    if file is None:
        return FlowRecord()
    what = "a scheduler's configuration"
    config = read_json_file(file, dict[str, Any], what)
    dynamic, shift_type = config.get("use_dynamic_shifting"), config.get("time_shift_type", "exponential")
    terminal = config.get("shift_terminal")
    if not dynamic or shift_type != "exponential" or terminal is not None:
        raise CheckpointError(
            f"{file}: FLUX.1 Kontext's schedule is shifted dynamically and exponentially; this one has "
            f"use_dynamic_shifting {dynamic}, time_shift_type {shift_type}, shift_terminal {terminal}"
        )
    constants = {ours: config[theirs] for ours, theirs in _SCHEDULER_FIELDS.items() if theirs in config}
    return convert_json(constants, FlowRecord, lambda reason: CheckpointError(f"{file} is not {what}: {reason}"))


def _sizes(roots: Sequence[Path]) -> tuple[tuple[int, int], ...] | None:
    file = _first(roots, SIZES_FILE)
    if file is None:
        return None
    kind: Any = Sizes  # a type with ranges
    return read_json_file(file, kind, "a list of [width, height] in multiples of 16")


def _first(roots: Sequence[Path], name: str) -> Path | None:
    return next((root / name for root in roots if (root / name).is_file()), None)
