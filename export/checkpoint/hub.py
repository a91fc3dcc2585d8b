"""Lists and fetches files of repositories on the Hugging Face hub, into the hub's own cache, with progress."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine.byte_sizes import human_bytes
from ...engine.errors import CheckpointError
from ...engine.printable import printable_line
from ...engine.progress import Progress, Silent
from .contents import open_contents
from .places import HubPlace

logger = logging.getLogger(__name__)
MAIN = "main"
WORTH_A_BAR = 4 << 20
"""The bytes from which on a file's progress is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """Holds what is known of a model repository at one commit.

    Attributes:
        place: What was asked for.
        commit: The commit that its revision is.
        sizes: The bytes of each file, by its path; None where the cache alone was asked, which knows those that it has.
    """

    place: HubPlace
    commit: str
    sizes: Mapping[str, int | None]

    @property
    def named(self) -> str:
        """The repository and the commit, for records of where weights are from."""
        return str(HubPlace(repo=self.place.repo, revision=self.commit[:12], file=self.place.file))

    def below(self, folder: str) -> list[str]:
        """Return the names of the files that lie in a folder, "" for the repository's own; hidden ones are left out."""
        prefix = f"{folder}/" if folder else ""
        names = (name.removeprefix(prefix) for name in self.sizes if name.startswith(prefix))
        return sorted(name for name in names if "/" not in name and not name.startswith("."))

    def get(self, file: str, progress: Progress) -> Path:
        """Return a file in the cache, where it is fetched to if it is not there; a connection that drops is resumed.

        Raises:
            CheckpointError: It cannot be fetched; the message says what to do.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(self.place.repo, file, revision=self.commit)
        if isinstance(cached, str):
            return Path(cached)
        size = self.sizes.get(file) or 0
        if size < WORTH_A_BAR:
            progress = Silent()
        progress.start(f"fetching {file}, {human_bytes(size)}", size)
        revision = self.place.revision or MAIN  # the cache keeps its commit, for when the hub cannot be asked
        try:
            path = hf_hub_download(self.place.repo, file, revision=revision, tqdm_class=_bar(progress))
        except Exception as error:  # of the hub's library, of its HTTP library, and of the disk
            raise _explained(self.place, f"{self.place.repo}:{file}", error) from error
        if self.commit not in Path(path).parts:
            raise CheckpointError(f"{self.place.repo} has changed while it was fetched; begin again")
        return Path(path)

    def tensor_names(self, file: str) -> list[str]:
        """Return the names of a safetensors file's tensors without fetching it; none where nobody tells.

        Raises:
            CheckpointError: The repository is gated.
        """
        from huggingface_hub import HfApi, try_to_load_from_cache
        from huggingface_hub.errors import GatedRepoError

        if not file.endswith(".safetensors"):
            return []
        cached = try_to_load_from_cache(self.place.repo, file, revision=self.commit)
        if isinstance(cached, str):
            return list(open_contents(Path(cached)).tensors)
        try:
            return list(HfApi().parse_safetensors_file_metadata(self.place.repo, file, revision=self.commit).tensors)
        except GatedRepoError as error:
            raise _explained(self.place, str(self.place), error) from error
        except Exception:  # a server that gives no ranges: what is in the file is found when it is here
            return []


def open_repository(place: HubPlace) -> Repository:
    """Return what a repository holds, as the hub says, or where it cannot be asked, as its cache does.

    Raises:
        CheckpointError: There is none, or it cannot be seen; the message says what to do.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().model_info(place.repo, revision=place.revision or MAIN, files_metadata=True)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise _explained(place, str(place), error) from error
        return _cached(place, error)
    except Exception as error:  # offline, or no network: of several libraries
        return _cached(place, error)
    _tell_licence(place.repo, info)
    sizes = {one.rfilename: one.size for one in info.siblings or () if _stays_inside(one.rfilename)}
    return Repository(place=place, commit=str(info.sha), sizes=sizes)


def _stays_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")


def _cached(place: HubPlace, error: Exception) -> Repository:
    """Return what the hub's cache has of a repository."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{place.repo.replace('/', '--')}"
    revision = place.revision or MAIN
    ref = root / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    snapshot = root / "snapshots" / commit
    if not snapshot.is_dir():
        raise CheckpointError(
            f"{place} is no file or folder here, and the repository {place.repo} is not in the hub's cache "
            f"({constants.HF_HUB_CACHE}); {_why_unasked(error)}"
        ) from error
    files = (file for file in snapshot.rglob("*") if file.is_file())
    logger.warning("%s is taken from the hub's cache: %s", place.repo, _why_unasked(error))
    return Repository(place=place, commit=commit, sizes=dict.fromkeys(_relative(files, snapshot)))


def _relative(files: Any, folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in files)


def _why_unasked(error: Exception) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so the hub is not asked"
    return f"the hub ({constants.ENDPOINT}) cannot be reached: {printable_line(str(error))}"


def _explained(place: HubPlace, what: str, error: Exception) -> CheckpointError:
    """Return what kept the hub from giving something, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{place.repo}"
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{place.repo} is gated: accept its licence at {page} with your account, and be known here by it: hf auth "
            "login, or a token in HF_TOKEN (a fine-grained one needs read access to public gated repositories)"
        )
    if isinstance(error, RepositoryNotFoundError):
        return CheckpointError(
            f"{what} is no file or folder here, and {page} is no repository that can be seen: is it spelled right? A "
            "private one needs hf auth login, or a token in HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(f"{place.repo} has no revision {place.revision or MAIN}")
    if isinstance(error, LocalEntryNotFoundError):
        return CheckpointError(f"{what} is not in the hub's cache ({constants.HF_HUB_CACHE}); {_why_unasked(error)}")
    if isinstance(error, EntryNotFoundError):
        return CheckpointError(f"{what} is not in the repository")
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(f"{what} cannot be written into the hub's cache: {os.strerror(error.errno)}")
    return CheckpointError(
        f"{what} cannot be fetched: {printable_line(str(error))}. Files that have arrived are kept; the same command "
        "fetches the others"
    )


def _tell_licence(repo: str, info: Any) -> None:
    """Log the licence that a repository's card names."""
    from huggingface_hub import constants

    card = info.card_data
    name = card and (card.get("license_name") or card.get("license"))
    if not name:
        return
    link = card.get("license_link") or ""
    if link and "://" not in link:
        link = f"{constants.ENDPOINT}/{repo}/blob/{MAIN}/{link}"
    logger.info("%s: licence %s%s", repo, printable_line(str(name)), f", {printable_line(link)}" if link else "")


def _bar(progress: Progress) -> type[Any]:
    """Return a class that the hub's library takes for a bar, and that tells a `Progress`."""
    from tqdm import tqdm

    class Told(tqdm):
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "disable": True})
            progress.advance(named.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            progress.advance(n or 0)

    return Told
