"""Brings what a checkpoint needs from the Hugging Face hub, where a user names a repository instead of a path."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from ...engine.errors import CheckpointError
from ...engine.progress import Progress
from ..configs import FOLDERS
from .folders import SUFFIXES, choose_weights, shards_of, variants_of
from .hub import Repository, open_repository
from .layouts import NAMES, SIZES_FILE
from .networks import parts_of
from .places import CheckpointFiles, HubPlace, place_of, usual_places

logger = logging.getLogger(__name__)

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
TOKENIZERS = ("openai/clip-vit-large-patch14", "google/t5-v1_1-xxl")
"""The repositories whose tokenizers FLUX.1's are, CLIP's and T5's: BFL's own code takes them from there."""
TOKENIZER_FILES = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "spiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Holds where a checkpoint lies now.

    Attributes:
        path: The folder or file.
        files: The parts that lie elsewhere, as paths.
        named: What records call it: the path, or the repository and its commit.
    """

    path: Path
    files: CheckpointFiles
    named: str


def fetch(checkpoint: Path | str, files: CheckpointFiles, progress: Progress) -> Fetched:
    """Return where a checkpoint and its parts lie, after what is named by a repository was fetched.

    What exists here is taken from here, whatever it is called. Of a diffusers repository the files of the parts that
    nobody has named are fetched, in one variant; of another the one file that is named, or that is the transformer.

    Raises:
        CheckpointError: A name is neither a path nor a place on the hub, a file cannot be fetched, or a part lacks.
    """
    main = place_of(checkpoint, f"checkpoint {checkpoint}")
    places = {name: place_of(value, str(value)) for name, value in files.named.items()}
    open_parts = [part for part in FOLDERS if part not in files.named]
    repository = None if main is None else _checked(open_repository(main), open_parts)
    elsewhere = {name: _with_file(open_repository(place)) for name, place in places.items() if place is not None}
    parts = {name: _part(one, name, files.variant, progress) for name, one in elsewhere.items()}
    if repository is None:
        return Fetched(path=Path(checkpoint), files=replace(files, **parts), named=str(checkpoint))
    path = _main(repository, open_parts, files, progress)
    return Fetched(path=path, files=replace(files, **parts), named=repository.named)


def fetch_tokenizers(progress: Progress) -> tuple[Path, Path]:
    """Return the folders of CLIP's and T5's tokenizers, fetched.

    Raises:
        CheckpointError: They cannot be.
    """
    clip, t5 = (_tokenizer(open_repository(HubPlace(repo=repo)), "", progress) for repo in TOKENIZERS)
    return clip, t5


def _with_file(repository: Repository) -> Repository:
    """Return the repository itself; raise CheckpointError unless it has the file that is named."""
    place = repository.place
    if place.file and place.file not in repository.sizes:
        raise CheckpointError(f"{place.repo} has no file {place.file}; it has {_some(_weights(repository))}")
    return repository


def _checked(repository: Repository, open_parts: Sequence[str]) -> Repository:
    """Return the repository with the file that is meant; raise CheckpointError for what will not do, at once."""
    place = _with_file(repository).place
    if INDEX in repository.sizes:
        return repository
    if not place.file:
        place = replace(place, file=_transformer(repository))
        repository = replace(repository, place=place)
    names = repository.tensor_names(place.file)
    missing = [part for part in open_parts if part not in parts_of(names)] if names else []
    if "transformer" in missing:
        raise CheckpointError(f"{place} is not a FLUX transformer (its first tensor is {names[0]})")
    if missing:
        raise CheckpointError(f"{place} has no {', '.join(missing)}. They usually come from: {usual_places(missing)}")
    return repository


def _transformer(repository: Repository) -> str:
    """Return the one file of a repository that may be a transformer's, by its name if there are several."""
    weights = _weights(repository)
    likely = [name for name in weights if any(fnmatch(Path(name).name.lower(), one) for one in NAMES["transformer"])]
    for found in (weights, likely):
        if len(found) == 1:
            return found[0]
    if not weights:
        raise CheckpointError(f"{repository.place.repo} has neither {INDEX} nor a file of weights that is read")
    raise CheckpointError(
        f"{repository.place.repo} has {len(weights)} files of weights; name one, as {repository.place.repo}:"
        f"{weights[0]}. There are {_some(weights)}"
    )


def _weights(repository: Repository) -> list[str]:
    return [name for name in sorted(repository.sizes) if Path(name).suffix.lower() in SUFFIXES]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "no weights"


def _main(repository: Repository, open_parts: Sequence[str], files: CheckpointFiles, progress: Progress) -> Path:
    """Fetch a checkpoint's own files, the small ones first, and return its path."""
    file, diffusers = repository.place.file, INDEX in repository.sizes
    small = [name for name in (INDEX, SCHEDULER, SIZES_FILE) if name in repository.sizes]
    folders = [FOLDERS[part] for part in open_parts if diffusers and not (file and part == "transformer")]
    large = [file] if file else []
    for name in small:
        repository.get(name, progress)
    for folder in ("tokenizer", "tokenizer_2"):
        if files.tokenizers is None and repository.below(folder):
            _tokenizer(repository, folder, progress)
    for folder in folders:
        large += _network(repository, folder, files.variant, progress)
    fetched = {name: repository.get(name, progress) for name in large}
    if file:
        return fetched[file]
    return repository.get(INDEX, progress).parent


def _part(repository: Repository, name: str, variant: str | None, progress: Progress) -> Path:
    """Fetch what a part is, or the tokenizers: a file that is named, a diffusers folder, or the only weights."""
    file = repository.place.file
    if name == "tokenizers":
        folders = [_tokenizer(repository, one, progress) for one in ("tokenizer", "tokenizer_2")]
        return folders[0].parent
    folder = FOLDERS["transformer" if name == "reference_weights" else name] if INDEX in repository.sizes else ""
    if not file and (folder or variants_of(repository.below(""))):
        fetched = [repository.get(one, progress) for one in _network(repository, folder, variant, progress)]
        if not fetched:
            raise CheckpointError(f"{repository.place.repo} has no folder {folder}/")
        return fetched[0].parent
    weights = _weights(repository)
    if not file and len(weights) != 1:
        raise CheckpointError(
            f"--{name.replace('_', '-')} {repository.place}: name a file, as {repository.place.repo}:FILE; there are "
            f"{_some(weights)}"
        )
    return repository.get(file or weights[0], progress)


def _network(repository: Repository, folder: str, variant: str | None, progress: Progress) -> Iterator[str]:
    """Fetch a network's configuration and index from a folder, "" for the root, and yield the names of its weights."""
    names = repository.below(folder)
    if not names:
        return
    prefix = f"{folder}/" if folder else ""
    chosen = f"{prefix}{choose_weights(names, f'{repository.place.repo}:{folder}', variant)}"
    if "config.json" in names:
        repository.get(f"{prefix}config.json", progress)
    if not chosen.endswith(".json"):
        yield chosen
        return
    for shard in shards_of(repository.get(chosen, progress)):
        yield f"{prefix}{shard}"


def _tokenizer(repository: Repository, folder: str, progress: Progress) -> Path:
    """Fetch a tokenizer's files and return their folder."""
    names = [f"{folder}/{name}" if folder else name for name in repository.below(folder) if name in TOKENIZER_FILES]
    if not names:
        raise CheckpointError(f"{repository.place.repo} has no tokenizer{f' in {folder}/' if folder else ''}")
    return {repository.get(name, progress).parent for name in names}.pop()
