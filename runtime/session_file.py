"""Keeps a session in a file: a ZIP archive of a description, pictures as PNG, and latents as NumPy arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..engine.documents import Count, Sha256, Text, read_json
from ..engine.errors import RequestError
from ..engine.sizes import MAX_OUTPUT_SIDE, Size, check_size, token_grid
from ..engine.system.files import atomic_file
from .inputs.placement import Fit
from .turn import Carry, Turn

SCHEMA = 1
MAX_TURNS = 100_000
MAX_DESCRIPTION_BYTES = 64 << 20
MAX_MEMBER_BYTES = 4 * MAX_OUTPUT_SIDE * MAX_OUTPUT_SIDE
"""The largest picture or array of a file that is read, in bytes, before anything of it is."""
_DESCRIPTION, _START = "session.json", "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Holds what a session is: its picture, its turns, where it stands, and how it goes on.

    `made_from` are the SHA-256, in hex, of the files that its picture, references and masks were read from.
    """

    bundle: str
    carry: Carry
    fit: Fit
    head: int
    start: Image.Image
    turns: tuple[Turn, ...]
    made_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _TurnRecord:
    """Describes a turn; its picture and latents lie beside the description under its number, if it has them."""

    number: Count
    parent: Count
    request: Mapping[str, Any]
    carry: Carry
    reason: Text
    size: Size
    image: bool
    latents: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """Describes a session, in `session.json`."""

    schema: Count
    bundle: Text
    carry: Carry
    fit: Fit
    head: Count
    turns: Annotated[tuple[_TurnRecord, ...], Meta(max_length=MAX_TURNS)]
    made_from: tuple[Sha256, ...] = ()


def write_session(saved: Saved, path: Path) -> Path:
    """Write a session, whole or not at all, and return the file. Raises RequestError if it cannot be written."""
    description = _Description(
        schema=SCHEMA,
        bundle=saved.bundle,
        carry=saved.carry,
        fit=saved.fit,
        head=saved.head,
        turns=tuple(
            _TurnRecord(
                number=turn.number,
                parent=turn.parent,
                request=turn.request,
                carry=turn.carry,
                reason=turn.reason,
                size=turn.size,
                image=turn.image is not None,
                latents=turn.latents is not None,
            )
            for turn in saved.turns
        ),
        made_from=saved.made_from,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_DESCRIPTION, msgspec.json.format(msgspec.json.encode(description), indent=1))
            archive.writestr(f"{_START}.png", _png(saved.start))
            for turn in saved.turns:
                if turn.image is not None:
                    archive.writestr(f"{turn.number}.png", _png(turn.image))
                if turn.latents is not None:
                    archive.writestr(f"{turn.number}.npy", _npy(turn.latents))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be written: {error}; choose another place") from error
    return path


def read_session(path: Path) -> Saved:
    """Read a session that `write_session` wrote.

    Raises:
        RequestError: The file cannot be read, or is no session; the message says what of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _SessionReader(path, archive).read()
    except RequestError:
        raise
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise RequestError(f"{path} cannot be read as a session: {error}") from error


class _SessionReader:
    """Reads one archive, member by member, and trusts nothing of it."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive

    def read(self) -> Saved:
        found = read_json(self._member(_DESCRIPTION, MAX_DESCRIPTION_BYTES), _Description, self._odd)
        if found.schema != SCHEMA:
            raise self._odd(f"its schema is {found.schema}, this version reads {SCHEMA}")
        numbers = [0]
        for record in found.turns:
            if record.number <= numbers[-1] or record.parent not in numbers:
                raise self._odd(f"turn {record.number} does not follow those before it")
            numbers.append(record.number)
        if found.head not in numbers:
            raise self._odd(f"it stands at turn {found.head}, which it does not have")
        return Saved(
            bundle=found.bundle,
            carry=found.carry,
            fit=found.fit,
            head=found.head,
            start=self._image(_START),
            turns=tuple(self._turn(record) for record in found.turns),
            made_from=found.made_from,
        )

    def _turn(self, record: _TurnRecord) -> Turn:
        prompt, seed = record.request.get("prompt"), record.request.get("seed")
        if not isinstance(prompt, str) or not (seed is None or isinstance(seed, int)):
            raise self._odd(f"turn {record.number} has no prompt and seed")
        size = check_size(record.size)
        image = self._image(str(record.number)) if record.image else None
        latents = self._latents(record, size) if record.latents else None
        if latents is not None and image is not None and image.size != size:
            raise self._odd(f"turn {record.number} has a picture of another size than its latents")
        return Turn(
            number=record.number,
            parent=record.parent,
            request=record.request,
            carry=record.carry,
            reason=record.reason,
            size=size,
            image=image,
            latents=latents,
        )

    def _member(self, name: str, limit: int) -> bytes:
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise self._odd(f"it has no {name}") from None
        if info.file_size > limit or info.compress_type != zipfile.ZIP_STORED:
            raise self._odd(f"its {name} is of {info.file_size:,} bytes, or compressed; up to {limit:,} are stored")
        return self._archive.read(info)

    def _image(self, name: str) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(self._member(f"{name}.png", MAX_MEMBER_BYTES)), formats=["PNG"])
            image.load()
        except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._odd(f"its {name}.png is no picture: {error}") from error
        if image.mode != "RGB":
            raise self._odd(f"its {name}.png is of mode {image.mode}, not RGB")
        return image

    def _latents(self, record: _TurnRecord, size: Size) -> NDArray[np.float32]:
        name = f"{record.number}.npy"
        array = np.load(io.BytesIO(self._member(name, MAX_MEMBER_BYTES)), allow_pickle=False)
        wanted = prod(token_grid(size))
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2 or len(array) != wanted:
            raise self._odd(f"its {name} is not float32 of {wanted} tokens")
        if not np.isfinite(array).all():
            raise self._odd(f"its {name} has values that are NaN or infinite")
        return array

    def _odd(self, reason: str) -> RequestError:
        return RequestError(f"{self._path} is not a session of this project's: {reason}")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)  # the level costs time, not exactness
    return file.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
