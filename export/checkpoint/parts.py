"""Reads the four networks of a checkpoint into views under this project's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from ...engine.bundle.tensor_file import TensorFile
from ...engine.documents import convert_json, read_json
from ...engine.errors import CheckpointError
from ...engine.system.files import visible_files
from ..configs import ClipConfig, T5Config, TransformerConfig, VaeConfig
from . import inference
from .contents import merged, open_contents
from .file_contents import Contents
from .formats import read_formats
from .names import SINGLE_FILE_PREFIXES, Source, count_blocks, transformer_sources, vae_sources
from .views import TensorView, Weights

Config = TypeVar("Config", TransformerConfig, VaeConfig, ClipConfig, T5Config)
Parsed = TypeVar("Parsed")

MAX_JSON_BYTES = 16 << 20
"""The largest JSON file of a checkpoint that is read: the index of all tensors' shards takes 120 KB."""

# what no graph needs: ComfyUI's tokenizer, tied or constant copies, CLIP's projection
IGNORED = (
    "encoder.embed_tokens.weight",
    "spiece_model",
    "embeddings.position_ids",
    "text_projection.weight",
    "logit_scale",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[Config]):
    """Holds one network: its configuration and its tensors."""

    config: Config
    weights: Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Holds the part of a shards' index that says where each tensor lies."""

    weight_map: dict[str, str]


def read_json_file(file: Path, kind: type[Parsed], what: str) -> Parsed:
    """Return what a JSON file of a checkpoint says; `what` says in the error what it should be.

    Raises:
        CheckpointError: It cannot be read, or is not such a document.
    """

    def foreign(reason: str) -> CheckpointError:
        return CheckpointError(f"{file} is not {what}: {reason}")

    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise foreign(error.strerror or str(error)) from error
    if len(data) > MAX_JSON_BYTES:
        raise foreign(f"it has more than {MAX_JSON_BYTES:,} bytes")
    return read_json(data, kind, foreign)


def open_files(path: Path) -> Contents:
    """Open the tensors of `path`: of itself, or of the shards or single file in a folder.

    Raises:
        CheckpointError: An index is unreadable, or a folder without one has no file or several.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.is_file():
        return open_contents(path)
    indexes = visible_files(path, "*.safetensors.index.json")
    if indexes:
        shards = sorted(set(read_json_file(indexes[0], _Index, "an index of safetensors shards").weight_map.values()))
        for shard in shards:
            if shard != Path(shard).name:
                raise CheckpointError(f"{indexes[0]} names a shard {shard}, which is not beside it")
        return merged(str(path), (open_contents(path / shard) for shard in shards))
    files = visible_files(path, "*.safetensors")
    if len(files) != 1:
        found = f"{len(files)} of them and no index" if files else "none"
        raise CheckpointError(f"{path} should hold one .safetensors file, or shards with an index; it holds {found}")
    return open_contents(files[0])


def _without_prefix(views: Mapping[str, TensorView]) -> dict[str, TensorView]:
    for prefix in SINGLE_FILE_PREFIXES:
        if any(name.startswith(prefix) for name in views):
            return _without_prefix({name.removeprefix(prefix): view for name, view in views.items()})
    return dict(views)


def _load(path: Path) -> tuple[tuple[TensorFile, ...], dict[str, TensorView]]:
    contents = open_files(path)
    lora = next((name for name in contents.tensors if "lora" in name.lower()), None)
    if lora is not None:
        raise CheckpointError(
            f"{path} is a LoRA, not a checkpoint (it has the tensor {lora}); fuse it into a checkpoint first"
        )
    if not contents.tensors:
        raise CheckpointError(f"{path} holds no tensors")
    kept = {name: view for name, view in _without_prefix(contents.tensors).items() if not name.endswith(IGNORED)}
    return contents.files, read_formats(replace(contents, tensors=kept))


def _resolve(
    views: dict[str, TensorView], sources: Mapping[str, Source], hidden: int, source: str
) -> dict[str, TensorView]:
    """Return the views under this project's names.

    Tensors that no name refers to keep theirs, so that a check reports them.
    """
    resolved: dict[str, TensorView] = {}
    for name, origin in sources.items():
        view = views.get(origin.name)
        if view is None:
            continue  # the check against the network names it
        if origin.start is not None:
            stop = view.shape[0] if origin.stop is None else origin.stop * hidden
            if stop > view.shape[0]:
                raise CheckpointError(
                    f"{source}: tensor {origin.name} has {view.shape[0]} rows, at least {stop} were expected"
                )
            view = view.rows(origin.start * hidden, stop)
        resolved[name] = view
    used = {origin.name for origin in sources.values()}
    return resolved | {name: view for name, view in views.items() if name not in used}


def _config(path: Path, read: Callable[[Mapping[str, Any]], Config]) -> Config | None:
    """Return what the part's `config.json` says, if it lies in a diffusers folder."""
    file = path / "config.json"
    if not file.is_file():
        return None

    def odd(reason: str) -> CheckpointError:
        return CheckpointError(f"{file} has entries that no FLUX.1 checkpoint has: {reason}")

    try:
        made = read(read_json_file(file, dict[str, Any], "a configuration"))
        return convert_json(msgspec.to_builtins(made), type(made), odd)
    except KeyError as error:
        raise CheckpointError(f"{file} has no entry {error}; is it the right part of a FLUX.1 checkpoint?") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise odd(str(error)) from error


def open_transformer(path: Path) -> Part[TransformerConfig]:
    """Open a transformer under BFL's or diffusers' names: a file or a folder.

    Raises:
        CheckpointError: It is missing, damaged, a LoRA, no FLUX transformer, or one without guidance distillation.
    """
    source = str(path)
    config = _config(path, lambda fields: inference.transformer_from_config(fields, source))
    files, views = _load(path)
    bfl = "img_in.weight" in views
    embedder = views.get("img_in.weight" if bfl else "x_embedder.weight")
    if embedder is None:
        raise CheckpointError(
            f"{source} is not a FLUX transformer: it has neither img_in.weight nor x_embedder.weight "
            f"(its first tensor is {next(iter(views))})"
        )
    resolved = _resolve(views, transformer_sources(views, bfl=bfl), embedder.shape[0], source)
    inference.require_guidance(resolved, source)
    config = config or inference.transformer_from_tensors(resolved, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=resolved))


def open_vae(path: Path) -> Part[VaeConfig]:
    """Open an autoencoder under BFL's or diffusers' names: a file or a folder.

    Raises:
        CheckpointError: It is missing, damaged, or no FLUX autoencoder.
    """
    source = str(path)
    config = _config(path, inference.vae_from_config)
    files, views = _load(path)
    if "encoder.conv_in.weight" not in views:
        raise CheckpointError(f"{source} is not a FLUX autoencoder: it has no encoder.conv_in.weight")
    if "encoder.down.0.block.0.conv1.weight" in views:
        levels, layers = (count_blocks(views, stem) for stem in ("encoder.down.", "encoder.down.0.block."))
        sources = vae_sources(levels, layers)
        views = _resolve(views, {here: origin for here, origin in sources.items() if origin.name in views}, 0, source)
        # BFL's attention is a 1x1 convolution, diffusers' a linear layer: the same bytes
        views = {
            name: view.reshaped(view.shape[:2]) if ".attentions." in name and len(view.shape) == 4 else view
            for name, view in views.items()
        }
    config = config or inference.vae_from_tensors(views, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=views))


def open_clip(path: Path) -> Part[ClipConfig]:
    """Open CLIP's text encoder: a file or a folder.

    Raises:
        CheckpointError: It is missing, damaged, or no CLIP text encoder.
    """
    source = str(path)
    config = _config(path, inference.clip_from_config)
    files, views = _load(path)
    if "embeddings.token_embedding.weight" not in views:
        raise CheckpointError(f"{source} is not a CLIP text encoder: it has no embeddings.token_embedding.weight")
    config = config or inference.clip_from_tensors(views, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=views))


def open_t5(path: Path) -> Part[T5Config]:
    """Open T5's encoder: a file or a folder.

    Raises:
        CheckpointError: It is missing, damaged, or no T5 encoder.
    """
    source = str(path)
    config = _config(path, inference.t5_from_config)
    files, views = _load(path)
    if "shared.weight" not in views:
        raise CheckpointError(f"{source} is not a T5 encoder: it has no shared.weight")
    config = config or inference.t5_from_tensors(views, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=views))
