"""Defines what a request gives back, and writes it to files."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...engine.errors import RequestError
from ...engine.sizes import Size
from ...engine.system.files import atomic_file
from ..inputs.placement import Placement

logger = logging.getLogger(__name__)

METADATA_KEY = "kontext-trt"
EXIF_IMAGE_DESCRIPTION = 0x010E
_WITH_EXIF = ("JPEG", "WEBP", "TIFF", "AVIF")
_COMMENTED = ("GIF", "JPEG2000")
"""The formats that hold a comment and no EXIF."""
JPEG_EXIF_BYTES = 65533
"""The most bytes of EXIF that JPEG holds, in one marker."""


def check_output(path: Path) -> str:
    """Return Pillow's name of the format that a suffix chooses, once a file could be made there.

    Nothing is left behind.

    Args:
        path: The file that is to be written later.

    Raises:
        RequestError: No file can be made there, or Pillow writes no colour picture of that suffix.
    """
    name = Image.registered_extensions().get(path.suffix.lower())
    if name is None:
        raise RequestError(f"{path}: no picture format has the suffix {path.suffix!r}; use .png, .jpg or .webp")
    if not _holds_colour(name):
        raise RequestError(f"{path}: Pillow writes no colour picture as {name}; use .png, .jpg or .webp")
    if os.path.isdir(path):  # which raises for no name
        raise RequestError(f"{path} cannot be written: it is a folder; choose another name")
    try:
        place = path.resolve() if os.path.islink(path) else path
        made = [folder for folder in place.parents if not folder.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        tempfile.NamedTemporaryFile(dir=place.parent, prefix=".kontext-trt.").close()
        with suppress(FileNotFoundError):
            place.lstat()  # raises for a name that no file can have
        with suppress(OSError):  # somebody else put something there meanwhile
            for folder in made:
                folder.rmdir()
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be written: {error}; choose another place") from error
    return name


def _holds_colour(file_format: str) -> bool:
    """Return whether Pillow can write a colour picture in a format: some it only reads, some are black and white."""
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=file_format)
    except Exception:  # each format raises what it likes
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Holds one picture of a request, and what made it.

    Attributes:
        image: The picture, in mode RGB.
        latents: The packed latents (n, channels) float32 that it was decoded from.
        prompt: The prompt that it was made from.
        seed: The seed of its noise, None if the noise was given.
    """

    image: Image.Image
    latents: NDArray[np.float32]
    prompt: str
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Holds the pictures of one request, and what they were made with.

    Attributes:
        outputs: The pictures, prompts outermost, seeds innermost.
        size: The (width, height) of each picture, in pixels.
        reference: What was done to the reference, None without one.
        steps: The number of steps of the flow.
        guidance: The embedded guidance strength.
        milliseconds: The milliseconds per stage: tokenize and prepare (on the host: tables, noise), text, encode,
            condition, denoise, decode and total. A network's stage that a cache saved is absent.
        step_milliseconds: The milliseconds per step.
        bundle: The fingerprint of the bundle.
        executor: The name of the executor that ran it.
    """

    outputs: tuple[Output, ...]
    size: Size
    reference: Placement | None
    steps: int
    guidance: float
    milliseconds: Mapping[str, float]
    step_milliseconds: tuple[float, ...]
    bundle: str
    executor: str

    @property
    def image(self) -> Image.Image:
        """The picture of a request that asked for one. RequestError is raised if there are several."""
        return self._only().image

    @property
    def seed(self) -> int | None:
        """The seed of a request that asked for one picture, None if its noise was given.

        RequestError is raised if there are several pictures.
        """
        return self._only().seed

    def _only(self) -> Output:
        if len(self.outputs) != 1:
            raise RequestError(f"this request made {len(self.outputs)} pictures; take them from .outputs")
        return self.outputs[0]

    def request(self, output: Output) -> dict[str, Any]:
        """Return what it takes to make one of the pictures again, as values that JSON can hold.

        Args:
            output: One of `outputs`.
        """
        return {
            "prompt": output.prompt,
            "seed": output.seed,
            "width": self.size[0],
            "height": self.size[1],
            "steps": self.steps,
            "guidance": self.guidance,
            "reference": None if self.reference is None else self.reference.describe(),
            "bundle": self.bundle,
            "executor": self.executor,
        }

    def save(self, path: Path | str) -> tuple[Path, ...]:
        """Write the picture, or several as NAME-1.png, NAME-2.png, ...; each whole or not at all.

        The suffix chooses the format. The request goes along as JSON: in PNG as the text chunk "kontext-trt", in JPEG,
        WebP, AVIF and TIFF as EXIF's image description, unless it is too long for JPEG, in GIF and JPEG 2000 as the
        comment. Where a format does not hold it, that is logged as a warning.

        Args:
            path: The file to write. Missing folders are made.

        Returns:
            The files that were written, in the order of `outputs`.

        Raises:
            RequestError: No file can be made there, or Pillow writes no colour picture of that suffix.
        """
        path = Path(path)
        file_format = check_output(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(self.outputs) == 1:
            paths = (path,)
        else:
            paths = tuple(path.with_stem(f"{path.stem}-{i}") for i in range(1, len(self.outputs) + 1))
        for output, file in zip(self.outputs, paths, strict=True):
            self._write(output, file, file_format)
        return paths

    def _write(self, output: Output, path: Path, file_format: str) -> None:
        request = self.request(output)
        options: dict[str, Any] = {}
        if file_format == "PNG":
            info = PngInfo()
            info.add_itxt(METADATA_KEY, json.dumps(request, ensure_ascii=False))
            options["pnginfo"] = info
        elif file_format in _COMMENTED:
            options["comment"] = json.dumps(request).encode()
        elif file_format not in _WITH_EXIF:
            logger.warning(
                "%s: %s holds no text, so the request is left out; .png and .webp hold it", path, file_format
            )
        else:
            exif = Image.Exif()
            exif[EXIF_IMAGE_DESCRIPTION] = json.dumps(request)  # in ASCII: Pillow writes nothing else there
            if file_format != "TIFF":
                options["quality"] = 95
            if file_format == "JPEG" and len(exif.tobytes()) > JPEG_EXIF_BYTES:
                logger.warning("%s: the request is too long for a JPEG, and is left out; .png and .webp hold it", path)
            else:
                options["exif"] = exif
        with atomic_file(path) as file:
            output.image.save(file, format=file_format, **options)
