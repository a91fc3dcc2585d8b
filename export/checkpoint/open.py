"""Finds the four networks and the tokenizers of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...engine.bundle.manifest import FlowRecord, Sizes
from ...engine.bundle.tensor_file import TensorFile
from ...engine.documents import convert_json
from ...engine.errors import CheckpointError, OptionError
from ...engine.system.files import visible_files
from ..configs import FOLDERS, ClipConfig, ModelConfig, T5Config, TransformerConfig, VaeConfig
from .nvfp4_layout import has_nvfp4, with_layout
from .parts import Config, Part, open_clip, open_t5, open_transformer, open_vae, read_json_file
from .views import Weights

_SCHEDULER_FIELDS = {
    "base_tokens": "base_image_seq_len",
    "max_tokens": "max_image_seq_len",
    "base_shift": "base_shift",
    "max_shift": "max_shift",
}
"""The four parts of a checkpoint, which are `Component.part`, and their folders in diffusers' layout."""
SIZES_FILE = "kontext_sizes.json"
"""The name of a file beside a checkpoint that was trained at other sizes than FLUX.1 Kontext's 17.

It holds `[[width, height], ...]` in pixels.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """Says where each part lies, for checkpoints that are not one folder; what is None is looked for in those.

    Attributes:
        transformer: The transformer: a file or a folder.
        vae: The autoencoder.
        clip: CLIP's text encoder.
        t5: T5's encoder.
        tokenizers: The folder of tokenizer/ and tokenizer_2/.
        reference_weights: The transformer's weights before they were quantized to NVFP4, by which it is found how they
            lie in the file; without, it is found from the file alone, or the file is refused.
        trust_layout: How NVFP4 weights lie, taken untested: "swizzled-high" (BFL, ComfyUI), "linear-low" (ModelOpt,
            diffusers), "swizzled-low" or "linear-high".
    """

    transformer: Path | None = None
    vae: Path | None = None
    clip: Path | None = None
    t5: Path | None = None
    tokenizers: Path | None = None
    reference_weights: Path | None = None
    trust_layout: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Holds a FLUX.1 Kontext checkpoint, opened: headers are read and named, no weights are touched.

    Of NVFP4 weights some are read, to find how they lie.

    Attributes:
        path: What the user named: a folder or a transformer file.
        layout: "diffusers" or "single files".
        transformer: The transformer's configuration and tensors.
        vae: The autoencoder's.
        clip: CLIP's.
        t5: T5's.
        tokenizers: CLIP's folder and T5's folder.
        sizes: The (width, height) in pixels that it was trained at, None for FLUX.1 Kontext's own.
        flow: Its noise schedule.

    Raises:
        CheckpointError: The parts' widths do not fit together, or the autoencoder does not scale down by 8.
    """

    path: Path
    layout: str
    transformer: Part[TransformerConfig]
    vae: Part[VaeConfig]
    clip: Part[ClipConfig]
    t5: Part[T5Config]
    tokenizers: tuple[Path, Path]
    sizes: tuple[tuple[int, int], ...] | None
    flow: FlowRecord

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


def open_checkpoint(path: Path, files: CheckpointFiles | None = None) -> Checkpoint:
    """Open a diffusers folder, a ComfyUI `models` folder, or a transformer file with the other parts named in `files`.

    Raises:
        CheckpointError: A part is missing, damaged, or not FLUX.1 Kontext's; the message names the file or tensor.
    """
    files = files or CheckpointFiles()
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if (path / "model_index.json").is_file():
        layout, defaults = "diffusers", _diffusers_files(path)
    else:
        layout, defaults = "single files", _single_files(path)
    chosen = {name: getattr(files, name) or getattr(defaults, name) for name in FOLDERS}
    missing = [name for name, part in chosen.items() if part is None]
    if missing:
        options = " ".join(f"--{name} FILE" for name in missing)
        raise CheckpointError(f"{path} has no {', '.join(missing)}; name what is elsewhere: {options}")
    opened = Checkpoint(
        path=path,
        layout=layout,
        transformer=open_transformer(chosen["transformer"]),
        vae=open_vae(chosen["vae"]),
        clip=open_clip(chosen["clip"]),
        t5=open_t5(chosen["t5"]),
        tokenizers=_tokenizers(files.tokenizers or _root(path)),
        sizes=_sizes(_root(path)),
        flow=_flow(_root(path) / "scheduler" / "scheduler_config.json"),
    )
    return _with_known_layouts(opened, files)


def _with_known_layouts(checkpoint: Checkpoint, files: CheckpointFiles) -> Checkpoint:
    """Return the checkpoint with the layout of its NVFP4 weights known."""
    trusted, reference = files.trust_layout, files.reference_weights
    if trusted is not None and reference is not None:
        raise OptionError(
            "a layout is trusted or found by a reference: --trust-layout or --reference-weights, not both"
        )
    found = {name for name in FOLDERS if has_nvfp4(checkpoint.weights(name).views)}
    if trusted is not None and not found:
        raise OptionError(f"{checkpoint.path} has no NVFP4 weights, whose layout --trust-layout would name")
    if reference is not None and "transformer" not in found:
        raise OptionError(
            f"{checkpoint.transformer.weights.source} has no NVFP4 weights, whose layout --reference-weights would tell"
        )

    def known(name: str, part: Part[Config]) -> Part[Config]:
        weights = part.weights
        beside = open_transformer(reference).weights.views if reference and name == "transformer" else None
        views = with_layout(weights.views, weights.source, beside, trusted)
        return replace(part, weights=replace(weights, views=views))

    return replace(
        checkpoint,
        transformer=known("transformer", checkpoint.transformer),
        vae=known("vae", checkpoint.vae),
        clip=known("clip", checkpoint.clip),
        t5=known("t5", checkpoint.t5),
    )


def as_checkpoint(checkpoint: Checkpoint | Path | str, files: CheckpointFiles | None = None) -> Checkpoint:
    """Return the checkpoint itself, or open the one at a path; raise OptionError for `files` of one that is open."""
    if not isinstance(checkpoint, Checkpoint):
        return open_checkpoint(Path(checkpoint), files)
    if files is not None:
        raise OptionError("files say where the parts of a checkpoint lie, and this one is open already; give its path")
    return checkpoint


def _diffusers_files(path: Path) -> CheckpointFiles:
    index = read_json_file(path / "model_index.json", dict[str, Any], "a diffusers index")
    pipeline = index.get("_class_name")
    if not str(pipeline).startswith("Flux"):
        raise CheckpointError(f"{path} is a {pipeline}, not a FLUX pipeline")
    return CheckpointFiles(**{name: path / folder for name, folder in FOLDERS.items() if (path / folder).is_dir()})


def _root(path: Path) -> Path:
    """Return the folder of all parts: `path`, or the ComfyUI `models` folder that a transformer file lies in."""
    return path if path.is_dir() else path.absolute().parent.parent


def _single_files(path: Path) -> CheckpointFiles:
    """Return the parts of a ComfyUI `models` folder, or those around a transformer that lies in one."""
    root = _root(path)
    transformer = path if path.is_file() else _only(root, ("diffusion_models", "unet"), ("*kontext*", "*flux*", "*"))
    return CheckpointFiles(
        transformer=transformer,
        vae=_only(root, ("vae",), ("ae*", "*")),
        clip=_only(root, ("text_encoders", "clip"), ("clip_l*",)),
        t5=_only(root, ("text_encoders", "clip"), ("t5*",)),
    )


def _only(root: Path, folders: Sequence[str], patterns: Sequence[str]) -> Path | None:
    """Return the one file that matches the first pattern any file matches; raise CheckpointError if several do."""
    for pattern in patterns:
        found = [file for folder in folders for file in visible_files(root / folder, f"{pattern}.safetensors")]
        if len(found) > 1:
            raise CheckpointError(
                f"{root} has several files for one part: {', '.join(file.name for file in found)}; "
                "name the one to use with --transformer, --vae, --clip or --t5"
            )
        if found:
            return found[0]
    return None


def _tokenizers(root: Path) -> tuple[Path, Path]:
    for base in (root, root / "tokenizers"):
        folders = base / "tokenizer", base / "tokenizer_2"
        if all(folder.is_dir() for folder in folders):
            return folders
    raise CheckpointError(
        f"no tokenizers in {root}: the folders tokenizer/ (CLIP) and tokenizer_2/ (T5) of FLUX.1 Kontext's diffusers "
        "repository are needed; say where they are with --tokenizers FOLDER"
    )


def _flow(file: Path) -> FlowRecord:
    """Return the noise schedule of a diffusers folder's scheduler, FLUX.1 Kontext's own where there is none."""
    if not file.is_file():
        return FlowRecord()
    what = "a scheduler's configuration"
    config = read_json_file(file, dict[str, Any], what)
    dynamic, shift_type = config.get("use_dynamic_shifting"), config.get("time_shift_type", "exponential")
    if not dynamic or shift_type != "exponential":
        raise CheckpointError(
            f"{file}: FLUX.1 Kontext's schedule is shifted dynamically and exponentially; this one has "
            f"use_dynamic_shifting {dynamic}, time_shift_type {shift_type}"
        )
    constants = {ours: config[theirs] for ours, theirs in _SCHEDULER_FIELDS.items() if theirs in config}
    return convert_json(constants, FlowRecord, lambda reason: CheckpointError(f"{file} is not {what}: {reason}"))


def _sizes(folder: Path) -> tuple[tuple[int, int], ...] | None:
    file = folder / SIZES_FILE
    if not file.is_file():
        return None
    kind: Any = Sizes  # a type with ranges
    return read_json_file(file, kind, "a list of [width, height] in multiples of 16")
