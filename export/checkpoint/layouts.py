"""Finds where the parts of a checkpoint lie: in diffusers' or ComfyUI's folders, beside each other, in one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ...engine.bundle.bundle import MANIFEST
from ...engine.errors import CheckpointError
from ..configs import FOLDERS
from .contents import open_contents
from .folders import SUFFIXES, read_json_file, weights_files
from .foreign import check_pipeline
from .networks import parts_of
from .parts import check_part

NAMES = {"transformer": ("*kontext*", "*flux*"), "vae": ("ae*",), "clip": ("clip_l*",), "t5": ("t5*",)}
"""The names that the parts' files usually have, the likeliest first."""
COMFY_FOLDERS = {
    "transformer": ("diffusion_models", "unet", "checkpoints"),
    "vae": ("vae",),
    "clip": ("text_encoders", "clip"),
    "t5": ("text_encoders", "clip"),
}
"""The folders in ComfyUI's `models` that the parts' files lie in."""


SIZES_FILE = "kontext_sizes.json"
"""The name of a file beside a checkpoint that was trained at other sizes than FLUX.1 Kontext's 17.

It holds `[[width, height], ...]` in pixels.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Says what was found at a path.

    Attributes:
        name: "diffusers" or "single files".
        parts: Where each part lies that was found.
        roots: The folders in which tokenizers and what else is not weights may lie.
        unread: Why files that may have been parts were not.
    """

    name: str
    parts: dict[str, Path]
    roots: tuple[Path, ...]
    unread: tuple[str, ...] = ()


def find_layout(path: Path, wanted: Sequence[str]) -> Layout:
    """Return where the parts of a checkpoint at `path` lie; `wanted` are those that nobody has named.

    Raises:
        CheckpointError: There are several files for one part, or the folder is of another pipeline.
    """
    if (path / "model_index.json").is_file():
        index = read_json_file(path / "model_index.json", dict[str, Any], "a diffusers index")
        check_pipeline(index.get("_class_name"), str(path))
        parts = {name: path / folder for name, folder in FOLDERS.items() if (path / folder).is_dir()}
        return Layout(name="diffusers", parts=parts, roots=(path,))
    if path.is_dir():
        if (path / MANIFEST).is_file():
            raise CheckpointError(
                f"{path} is a bundle, which was exported already; name the checkpoint it was made from, which "
                f"`kontext-trt inspect {path}` shows, or change the bundle: kontext-trt quantize, kontext-trt lora fuse"
            )
        return _folder(path, wanted)
    contents = open_contents(path)
    inside = parts_of(contents.tensors)
    if "transformer" in wanted and "transformer" not in inside:
        check_part(contents, "transformer")  # which says what it is instead
    own = dict.fromkeys((part for part in inside if part in wanted), path)
    around = _around(path, [part for part in wanted if part not in own])
    return Layout(name="single files", parts={**around.parts, **own}, roots=around.roots, unread=around.unread)


def _around(file: Path, wanted: Sequence[str]) -> Layout:
    """Return what lies around a file: in the diffusers or ComfyUI folder that it is somewhere in, or beside it."""
    parents = file.absolute().parents
    for folder in parents[:2]:
        if (folder / "model_index.json").is_file():
            found = find_layout(folder, wanted)
            return replace(found, parts={part: place for part, place in found.parts.items() if part in wanted})
    for folder in parents[1:4]:
        if _is_comfy(folder):
            return _comfy(folder, wanted, (folder, folder.parent))
    return _flat(file.absolute().parent, wanted)


def _folder(path: Path, wanted: Sequence[str]) -> Layout:
    for folder in (path, path / "models"):
        if _is_comfy(folder):
            return _comfy(folder, wanted, (path, folder))
    flat, models = _flat(path, wanted), path.absolute().parent
    if len(flat.parts) < len(wanted) and any(path.absolute().name in names for names in COMFY_FOLDERS.values()):
        return _comfy(models, wanted, (models, models.parent))
    return flat


def _is_comfy(folder: Path) -> bool:
    return any((folder / name).is_dir() for names in COMFY_FOLDERS.values() for name in names)


def _comfy(models: Path, wanted: Sequence[str], roots: tuple[Path, ...]) -> Layout:
    parts: dict[str, Path] = {}
    unread: list[str] = []
    for part in wanted:
        files = [file for name in COMFY_FOLDERS[part] for file in _below(models / name)]
        found = _pick(models, part, files, unread)
        if found is not None:
            parts[part] = found
    if "transformer" in parts and len(parts) < len(wanted):
        inside = parts_of(open_contents(parts["transformer"]).tensors)
        parts |= {part: parts["transformer"] for part in wanted if part in inside and part not in parts}
    return Layout(name="single files", parts=parts, roots=roots, unread=tuple(unread))


def _flat(folder: Path, wanted: Sequence[str]) -> Layout:
    parts: dict[str, Path] = {}
    unread: list[str] = []
    files = weights_files(folder)
    for part in wanted:
        found = _pick_by_content(folder, part, files, unread)
        if found is not None:
            parts[part] = found
    return Layout(name="single files", parts=parts, roots=(folder, folder.parent), unread=tuple(dict.fromkeys(unread)))


def _below(folder: Path) -> list[Path]:
    """Return the weights files in a folder and those below it; what is hidden is none, nor what is below that."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _pick(root: Path, part: str, files: Sequence[Path], unread: list[str]) -> Path | None:
    """Return the one file with the likeliest name that any has, else the one that holds the part."""
    for pattern in NAMES[part]:
        named = [file for file in files if fnmatch(file.name.lower(), pattern)]
        if named:
            return _only(root, named)
    return _pick_by_content(root, part, files, unread)


def _pick_by_content(root: Path, part: str, files: Sequence[Path], unread: list[str]) -> Path | None:
    """Return the one file that holds a part; of several the one with the likeliest name."""
    holding = [file for file in files if part in _parts(file, unread)]
    for pattern in NAMES[part] if len(holding) > 1 else ():
        named = [file for file in holding if fnmatch(file.name.lower(), pattern)]
        if named:
            return _only(root, named)
    return _only(root, holding) if holding else None


def _parts(file: Path, unread: list[str]) -> tuple[str, ...]:
    try:
        return parts_of(open_contents(file).tensors)
    except CheckpointError as error:
        unread.append(str(error))
        return ()


def _only(root: Path, files: Iterable[Path]) -> Path:
    """Return the one file; raise CheckpointError if there are several."""
    first, *others = files
    if others:
        raise CheckpointError(
            f"{root} has several files for one part: {', '.join(file.name for file in (first, *others))}; "
            "name the one to use with --transformer, --vae, --clip or --t5"
        )
    return first
