"""Reads a LoRA file of any family: every tensor of it becomes a change of a layer here, or is named in a refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from ..bundle.file_kinds import refuse_other_kinds
from ..bundle.tensor_file import TensorFile
from ..errors import LoraError
from ..printable import printable_line
from ..system.files import sha256_file
from .changes import Change, LoraFile, LowRank, Magnitude, Matrix
from .families import FAMILIES, Family, Found, find_family, other_method, slot_of
from .foreign import foreign_model
from .layers import Layer, layer_changes
from .numbers import read_values
from .scales import PeftConfig, adapter_config, header_configs

logger = logging.getLogger(__name__)

KONTEXT_CHANNELS = 64
"""The input width of FLUX.1 Kontext's transformer; control LoRAs have 128, those of Fill 384."""
MAX_TENSORS = 20_000
"""The most tensors that a file may have; every layer of every network with all slots has fewer."""


def read_lora(path: Path, *, allow_unused: bool = False) -> LoraFile:
    """Read a LoRA file.

    The whole of it is held in memory in float32, factors as factors.

    Args:
        path: A safetensors file.
        allow_unused: Leave tensors out that change nothing here, and say which; without, they are refused.

    Raises:
        LoraError: It is of another model, a checkpoint, damaged, or has tensors that would not be applied.
        CheckpointError: It is no whole safetensors file.
    """
    source = str(path)
    refuse_other_kinds(path)
    before = identity(path)
    file, layout = _opened(path, allow_unused=allow_unused)
    if layout.unused:
        logger.warning(
            "%s: %d tensors change nothing here and are left out: %s",
            source,
            len(layout.unused),
            _listed(layout.unused),
        )
    configured, config_hash = _configurations(layout, file, path, source)
    changes = tuple(_changes(layout, file, path, configured))
    if not changes:
        raise LoraError(f"{source} changes nothing")
    sha256 = sha256_file(path)
    if identity(path) != before:  # or the hash would be of other bytes than those that are applied
        raise LoraError(f"{source} changed while it was read; try again when it is whole")
    return LoraFile(
        name=printable_line(path.name),
        sha256=sha256,
        family=f"{layout.family.name}: {', '.join(dict.fromkeys(map(_method, changes)))}",
        changes=changes,
        unused=tuple(layout.unused),
        adapter_config=config_hash,
    )


def check_lora(path: Path, *, allow_unused: bool = False) -> None:
    """Refuse a file by its names and header, without reading its values; `read_lora` says the rest.

    Args:
        path: A safetensors file.
        allow_unused: Allow tensors that change nothing here.

    Raises:
        LoraError, CheckpointError: As `read_lora` does.
    """
    refuse_other_kinds(path)
    _opened(path, allow_unused=allow_unused)


def _opened(path: Path, *, allow_unused: bool) -> tuple[TensorFile, _Layout]:
    source = str(path)
    file = TensorFile.open(path)
    _check_extent(file, source)
    layout = _Layout.of(file, source)
    if layout.unused and not allow_unused:
        raise LoraError(
            f"{source} ({layout.family.name}) has {len(layout.unused)} of {len(file.tensors)} tensors that change "
            f"nothing here: {_listed(layout.unused)}; --allow-unused leaves them out when it is fused"
        )
    return file, layout


def identity(path: Path) -> tuple[int, int, int, int]:
    """Return what tells a file from what lay at its place before: device, inode, time of change in ns and bytes.

    Raises:
        LoraError: It is not there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise LoraError(f"{path} cannot be read: {error.strerror}; give a LoRA file") from error
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _check_extent(file: TensorFile, source: str) -> None:
    """Raise LoraError for more tensors than a LoRA has, and unless each byte is of one tensor, as the format wants it.

    Of tensors that overlap a small file would take much memory; bytes of none are a tensor that would be lost.
    """
    if len(file.tensors) > MAX_TENSORS:
        raise LoraError(f"{source} has {len(file.tensors):,} tensors, more than {MAX_TENSORS:,}: it is no LoRA")
    places = sorted((one.offset, one.offset + one.size_bytes) for one in file.tensors.values() if one.size_bytes)
    borders = ((file.data_offset, file.data_offset), *places, (file.size_bytes, file.size_bytes))
    for (_, end), (start, _) in pairwise(borders):
        if start < end:
            raise LoraError(f"{source}: tensors overlap at byte {start:,}; its header is damaged: download it again")
        if start > end:
            raise LoraError(
                f"{source}: the bytes from {end:,} to {start:,} are of no tensor; its header is damaged, or does not "
                "list all tensors: download it again"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Says what each tensor of a file is.

    Attributes:
        family: The file's family.
        layers: What each layer of the file is here.
        slots: The names of each layer's tensors by slot.
        unused: The tensors that are none of this, with the reason where it is known.
    """

    family: Family
    layers: Mapping[str, Found]
    slots: Mapping[str, Mapping[str, str]]
    unused: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, file: TensorFile, source: str) -> _Layout:
        names = list(file.tensors)
        slots: dict[str, dict[str, str]] = {}
        unused: list[str] = []
        for name in names:
            found = slot_of(name)
            if found is None:
                unused.append(name)
                continue
            layer, slot = found
            if slot in slots.setdefault(layer, {}):
                raise LoraError(f"{source} has {slots[layer][slot]} and {name}, which are the same in two spellings")
            slots[layer][slot] = name
        if not slots or all(set(of) <= {"set_weight"} for of in slots.values()):
            raise _not_a_lora(names, source)
        family, layers = find_family(slots, names)
        unknown = [name for layer, of in slots.items() if layer not in layers for name in of.values()]
        if 2 * len(layers) < len(slots):
            model = foreign_model(names)
            if model is not None:
                raise LoraError(
                    f"{source} is a LoRA for {model}, not for FLUX.1 Kontext (its first tensor is {names[0]:.200})"
                )
            if not layers:
                raise LoraError(
                    f"{source} has no layer of FLUX.1 Kontext: its tensors have names like {unknown[0]:.200}, which no "
                    "known family has"
                )
        lonely = [name for layer in layers for name in slots[layer].values() if set(slots[layer]) <= {"alpha"}]
        return cls(family=family, layers=layers, slots=slots, unused=unused + unknown + lonely)


def _not_a_lora(names: list[str], source: str) -> LoraError:
    """Return what is said of a file without any tensor of a LoRA."""
    stems = [name.rpartition(".")[0] for name in names]
    if any(family.find(stem) for family in FAMILIES for stem in stems):
        return LoraError(
            f"{source} is a checkpoint, not a LoRA: it has whole weights such as {names[0]:.200}; export it"
        )
    if not names:
        return LoraError(f"{source} holds no tensors")
    reason = next((f" ({what})" for name in names if (what := other_method(name))), "")
    return LoraError(f"{source} is no LoRA that is read{reason}: its tensors have names like {names[0]:.200}")


def _changes(layout: _Layout, file: TensorFile, path: Path, configured: _Configured) -> Iterator[Change]:
    source = str(path)
    with path.open("rb") as reader:
        for name, found in layout.layers.items():
            slots: dict[str, Matrix] = {
                slot: read_values(
                    reader, file.tensors[tensor], tensor, source, integers=slot in ("alpha", "reshape_weight")
                )
                for slot, tensor in layout.slots[name].items()
            }
            if set(slots) <= {"alpha"}:
                continue
            layer = Layer(
                source=source,
                name=name,
                part=found.part,
                targets=found.targets,
                slots=slots,
                configured=configured(name, found),
                zero_alpha=layout.family.zero_alpha,
            )
            for change in layer_changes(layer):
                _check_channels(change, name, source)
                yield change


_Configured = Callable[[str, Found], Callable[[int], float] | None]
"""A function that gives what a layer's scale is by PEFT's configuration, None if there is none."""


def _configurations(layout: _Layout, file: TensorFile, path: Path, source: str) -> tuple[_Configured, str | None]:
    """Return what gives each layer's scale, by the header or a file beside, and the hash of that file if it does."""
    headers = header_configs(file.metadata, source) if layout.family.metadata else {}
    beside: PeftConfig | None = None
    config_hash: str | None = None
    if (
        layout.family.metadata
        and not headers
        and any(one.prefix == "base_model.model." for one in layout.layers.values())
    ):
        found_beside = adapter_config(path)
        beside, config_hash = found_beside or (None, None)
    prefixes = {one.prefix for one in layout.layers.values()}
    if headers and prefixes.isdisjoint(headers):
        raise LoraError(
            f"{source}: the header's configuration is of tensors that begin with {_quoted(headers)}, and the file's "
            f"begin with {_quoted(prefixes)}; their scale would be a guess"
        )

    def scale(layer: str, found: Found) -> Callable[[int], float] | None:
        config = beside or headers.get(found.prefix)
        if config is None:
            return None
        return lambda rank: config.scale(layer[len(found.prefix) :], rank, source)

    return scale, config_hash


def _check_channels(change: Change, layer: str, source: str) -> None:
    """Raise LoraError for what makes the transformer's input wider: a control LoRA, or one of Fill."""
    if change.place.part != "transformer" or change.place.tensor != "x_embedder.weight":
        return
    inputs = change.down.shape[1] if isinstance(change, LowRank) else change.values.shape[-1]
    if inputs != KONTEXT_CHANNELS and not (isinstance(change, Magnitude) and inputs == 1):
        raise LoraError(
            f"{source}: {layer} has an input width of {inputs}, FLUX.1 Kontext's is {KONTEXT_CHANNELS}: it is a "
            "control LoRA (128: depth, canny) or one of FLUX.1 Fill (384), for a model with another input"
        )


def _method(change: Change) -> str:
    return "LoRA" if isinstance(change, LowRank) else change.kind


def _quoted(prefixes: Iterable[str]) -> str:
    return " or ".join(f'"{prefix:.100}"' for prefix in sorted(prefixes)[:5])


def _listed(names: list[str], shown: int = 5) -> str:
    words = [f"{name:.200}" + (f" ({what})" if (what := other_method(name)) else "") for name in names[:shown]]
    return ", ".join(words) + (f" and {len(names) - shown} more" if len(names) > shown else "")
