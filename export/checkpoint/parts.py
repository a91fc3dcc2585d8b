"""Reads the four networks of a checkpoint into views under this project's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from ...engine.bundle.tensor_file import TensorFile
from ...engine.documents import convert_json
from ...engine.errors import CheckpointError
from ...engine.tensor_names import Source, count_blocks, transformer_sources, vae_sources
from ..configs import ClipConfig, T5Config, TransformerConfig, VaeConfig
from . import inference
from .file_contents import Contents
from .folders import open_part, read_json_file
from .foreign import refuse_foreign, warn_of_dev
from .formats import read_formats
from .networks import network_tensors
from .views import TensorView, Weights

Config = TypeVar("Config", TransformerConfig, VaeConfig, ClipConfig, T5Config)
Views = dict[str, TensorView]

WHAT = {
    "transformer": "a FLUX transformer: it has neither img_in.weight nor x_embedder.weight",
    "vae": "a FLUX autoencoder: it has no encoder.conv_in.weight",
    "clip": "a CLIP text encoder: it has no embeddings.token_embedding.weight",
    "t5": "a T5 encoder: it has no shared.weight",
}
"""The words for what each part should be, and for the tensor by which it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[Config]):
    """Holds one network: its configuration and its tensors."""

    config: Config
    weights: Weights


def check_part(contents: Contents, part: str) -> Contents:
    """Return the tensors of a part's network without their prefix.

    Raises:
        CheckpointError: There is none; the message says what is there instead, as far as that is known.
    """
    if not contents.tensors:
        raise CheckpointError(f"{contents.source} holds no tensors")
    network = network_tensors(contents, part)
    if part == "transformer":
        refuse_foreign(contents.tensors if network is None else network.tensors, contents.source)
    if network is None:
        if part == "transformer":
            read_formats(contents)  # whose refusals say more
        first = next(iter(contents.tensors))
        raise CheckpointError(f"{contents.source} is not {WHAT[part]} (its first tensor is {first})")
    return network


def _load(path: Path, part: str, variant: str | None) -> tuple[tuple[TensorFile, ...], Views]:
    contents = check_part(open_part(path, variant), part)
    return contents.files, read_formats(contents)


def _resolve(views: Views, sources: Mapping[str, Source], hidden: int, source: str) -> Views:
    """Return the views under this project's names.

    Tensors that no name refers to keep theirs, so that a check reports them.
    """
    resolved: Views = {}
    for name, origin in sources.items():
        view = views.get(origin.name)
        if view is None:
            continue  # the check against the network names it
        if origin.start is not None:
            rows = view.shape[0] if view.shape else 0
            stop = rows if origin.stop is None else origin.stop * hidden
            if stop > rows or origin.start * hidden >= rows:
                wanted = max(stop, origin.start * hidden + 1)
                raise CheckpointError(
                    f"{source}: tensor {origin.name} has {rows} rows, at least {wanted} were expected"
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
        return _in_range(made, odd)
    except KeyError as error:
        raise CheckpointError(f"{file} has no entry {error}; is it the right part of a FLUX.1 checkpoint?") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise odd(str(error)) from error


def _in_range(made: Config, odd: Callable[[str], CheckpointError]) -> Config:
    """Return the configuration again, after every entry is found to be in its range."""
    return convert_json(msgspec.to_builtins(made), type(made), odd)


def _inferred(read: Callable[[Views, str], Config], views: Views, source: str) -> Config:
    """Return the configuration that the tensors' shapes say."""
    try:
        return _in_range(
            read(views, source), lambda reason: CheckpointError(f"{source} has shapes that no FLUX.1 has: {reason}")
        )
    except (ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{source} has shapes that no FLUX.1 has: {error}") from error


def _spelled(views: Views, source: str) -> Views:
    """Return a transformer's tensors as BFL spells their norms: some training tools end them with `weight`."""
    spelled: Views = {}
    for name, view in views.items():
        plain = re.sub(r"(query|key)_norm\.weight$", r"\1_norm.scale", name)
        if plain in spelled:
            raise CheckpointError(f"{source} has the tensor {plain} twice, in two spellings")
        spelled[plain] = view
    return spelled


def open_transformer(path: Path, variant: str | None = None) -> Part[TransformerConfig]:
    """Open a transformer under BFL's or diffusers' names: a file or a folder.

    Raises:
        CheckpointError: It is missing, damaged, a LoRA, no FLUX transformer, or one without guidance distillation.
    """
    source = str(path)
    config = _config(path, lambda fields: inference.transformer_from_config(fields, source))
    files, views = _load(path, "transformer", variant)
    bfl = "img_in.weight" in views
    if bfl:
        views = _spelled(views, source)
    hidden = inference.shape_of(views, "img_in.weight" if bfl else "x_embedder.weight", source, 2)[0]
    resolved = _resolve(views, transformer_sources(views, bfl=bfl, source=source), hidden, source)
    inference.require_guidance(resolved, source)
    config = config or _inferred(inference.transformer_from_tensors, resolved, source)
    if path.is_file():
        warn_of_dev(path.name)
    return Part(config=config, weights=Weights(source=source, files=files, views=resolved))


def open_vae(path: Path, variant: str | None = None) -> Part[VaeConfig]:
    """Open an autoencoder under BFL's or diffusers' names: a file or a folder.

    Raises:
        CheckpointError: It is missing, damaged, or no FLUX autoencoder.
    """
    source = str(path)
    config = _config(path, inference.vae_from_config)
    files, views = _load(path, "vae", variant)
    if "encoder.down.0.block.0.conv1.weight" in views:
        levels, layers = (count_blocks(views, stem, source) for stem in ("encoder.down.", "encoder.down.0.block."))
        sources = vae_sources(levels, layers)
        views = _resolve(views, {here: origin for here, origin in sources.items() if origin.name in views}, 0, source)
        # BFL's attention is a 1x1 convolution, diffusers' a linear layer: the same bytes
        views = {
            name: view.reshaped(view.shape[:2])
            if ".attentions." in name and len(view.shape) == 4 and view.shape[2:] == (1, 1)
            else view
            for name, view in views.items()
        }
    config = config or _inferred(inference.vae_from_tensors, views, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=views))


def open_clip(path: Path, variant: str | None = None) -> Part[ClipConfig]:
    """Open CLIP's text encoder: a file or a folder, alone or with its vision tower.

    Raises:
        CheckpointError: It is missing, damaged, or no CLIP text encoder.
    """
    source = str(path)
    config = _config(path, inference.clip_from_config)
    files, views = _load(path, "clip", variant)
    config = config or _inferred(inference.clip_from_tensors, views, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=views))


def open_t5(path: Path, variant: str | None = None) -> Part[T5Config]:
    """Open T5's encoder: a file or a folder, alone or with its decoder.

    Raises:
        CheckpointError: It is missing, damaged, or no T5 encoder.
    """
    source = str(path)
    config = _config(path, inference.t5_from_config)
    files, views = _load(path, "t5", variant)
    views = _one_embedding(views, source)
    config = config or _inferred(inference.t5_from_tensors, views, source)
    return Part(config=config, weights=Weights(source=source, files=files, views=views))


def _one_embedding(views: Views, source: str) -> Views:
    """Return T5's tensors with its embedding as `shared.weight`, whose other name is the encoder's own."""
    rest = dict(views)
    tied = rest.pop("encoder.embed_tokens.weight", None)
    if tied is None:
        return rest
    shared = rest.setdefault("shared.weight", tied)
    if (shared.shape, shared.dtype) != (tied.shape, tied.dtype):
        raise CheckpointError(
            f"{source}: shared.weight is {shared.dtype} {list(shared.shape)}, encoder.embed_tokens.weight "
            f"{tied.dtype} {list(tied.shape)}; in T5 they are one"
        )
    return rest
