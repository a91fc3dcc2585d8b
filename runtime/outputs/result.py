"""Defines what a request gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.bundle.manifest import LoraRecord
from ...engine.errors import ProvenanceError, RequestError
from ...engine.sizes import Size
from ..inputs.placement import Placement
from ..inputs.prepared import Tokens
from ..inputs.references import Latents, ReferenceMethod, ReferenceSource, each_source
from ..inputs.schedules import Solver
from .picture_file import check_output, write_pictures
from .places import check_kept, picture_files
from .provenance import PictureSigner, Signing


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
        size: The (width, height) in pixels that they were made at; a mask pastes the edit into the picture's own.
        references: What was done to each reference.
        method: How several references lay beside each other.
        steps: The number of steps of the schedule.
        guidance: The embedded guidance strength.
        strength: How much of the reference gave way; below 1 only that share of the steps was taken.
        solver: The solver of the flow.
        sigmas: The noise levels of the steps, None if they were the model's own.
        step_mask: Which of the steps were whole, None if nothing was said of it, and all were.
        mask: What a mask let be edited and how it was used, in words; None without one.
        loras: The LoRAs that were swapped in.
        tokens: How many tokens each step attended over.
        milliseconds: The milliseconds per stage: tokenize and prepare (on the host: tables, noise), text, encode,
            condition, denoise, decode and total. A network's stage that a cache saved is absent.
        step_milliseconds: The milliseconds per step.
        bundle: The fingerprint of the bundle.
        executor: The name of the executor that ran it.
        fused_loras: The LoRA files that were fused into the bundle's weights: names, hashes and scales.
        files: The absolute paths that references and mask were read from, which `save` does not replace unasked.
    """

    outputs: tuple[Output, ...]
    size: Size
    references: tuple[Placement, ...]
    method: ReferenceMethod
    steps: int
    guidance: float
    strength: float
    solver: Solver = Solver.EULER
    sigmas: tuple[float, ...] | None = None
    step_mask: tuple[bool, ...] | None = None
    mask: str | None
    loras: tuple[LoraRecord, ...] = ()
    tokens: Tokens
    milliseconds: Mapping[str, float]
    step_milliseconds: tuple[float, ...]
    bundle: str
    executor: str
    fused_loras: tuple[LoraRecord, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def reference(self) -> Placement | None:
        """The placement of the first reference, None without any."""
        return self.references[0] if self.references else None

    def as_reference(self, output: Output | None = None) -> Latents:
        """Return what a next request takes as its reference, without the way through pixels.

        Args:
            output: One of `outputs`; None for the only one.

        Raises:
            RequestError: There are several pictures, and none is named.
        """
        output = output or self._only()
        image = output.image if output.image.size == self.size else None
        return Latents(tokens=output.latents, size=self.size, image=image)

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
        """Return what made one of the pictures, as values that JSON can hold.

        It is what it takes to make it again, but for the references themselves, their mask and noise that was given.

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
            **self._references(),
            **({} if self.strength == 1 else {"strength": self.strength}),
            **({} if self.solver is Solver.EULER else {"solver": self.solver.value}),
            **({} if self.sigmas is None else {"sigmas": list(self.sigmas)}),
            **({} if self.step_mask is None else {"step_mask": [int(whole) for whole in self.step_mask]}),
            **({} if self.mask is None else {"mask": self.mask}),
            "bundle": self.bundle,
            "executor": self.executor,
            **self._loras(),
        }

    def _loras(self) -> dict[str, Any]:
        """Return what is said of the LoRAs that were swapped in, and of those that were fused into the weights."""
        return {
            what: [_described(one) for one in loras]
            for what, loras in (("loras", self.loras), ("fused_loras", self.fused_loras))
            if loras
        }

    def _references(self) -> dict[str, Any]:
        """Return what is said of the references: of one alone its placement, of several all and how they lay."""
        described = [placement.describe() for placement in self.references]
        method = {"references": self.method.value}
        if len(described) < 2:
            stitched = method if described and self.method is ReferenceMethod.STITCH else {}
            return {"reference": described[0] if described else None, **stitched}
        return {"reference": described, **method}

    def save(
        self,
        path: Path | str,
        *,
        signer: PictureSigner | None = None,
        inputs: ReferenceSource | Sequence[ReferenceSource] | None = None,
        overwrite: bool = False,
    ) -> tuple[Path, ...]:
        """Write the picture, or several as NAME-1.png, NAME-2.png, ...; each whole or not at all.

        What lies there is replaced, but for `files`, what the request was made from.

        The suffix chooses the format. The request goes along as JSON: in PNG as the text chunk "kontext-trt", in JPEG,
        WebP, AVIF and TIFF as EXIF's image description, unless it is too long for JPEG, in GIF and JPEG 2000 as the
        comment. Where a format does not hold it, that is logged as a warning.

        Args:
            path: The file to write. Missing folders are made.
            signer: Who signs the pictures with content credentials; then the format is PNG, JPEG or WebP, and nothing
                is written unless all could be signed.
            inputs: For a signed edit, the references as the request had them, which become its ingredients.
            overwrite: True to replace even those of `files`.

        Returns:
            The files that were written, in the order of `outputs`.

        Raises:
            RequestError: No file can be made there, Pillow writes no colour picture of that suffix, or it is one of
                `files`.
            ProvenanceError: The pictures cannot be signed, or an edit is to be signed without its inputs.
            ImageError: An input cannot be read.
        """
        path, sources = Path(path), each_source(inputs)
        check_output(path)
        if signer is not None and bool(sources) != bool(self.references):
            raise ProvenanceError(
                "an edit is signed with the pictures that it was made from: give them as inputs, as in the request"
                if self.references
                else "this picture was made from text alone, so it is signed without inputs"
            )
        paths = picture_files(path, len(self.outputs))
        check_kept(paths, self.files, overwrite=overwrite)
        signing = None if signer is None else Signing(signer=signer, inputs=sources)
        write_pictures(
            [(output.image, self.request(output), file) for output, file in zip(self.outputs, paths, strict=True)],
            signing,
        )
        return paths


def _described(lora: LoraRecord) -> dict[str, Any]:
    """Return what pictures say of a LoRA file, with the configuration beside it where its scales are by that."""
    beside = {} if lora.adapter_config is None else {"adapter_config": lora.adapter_config}
    return {"name": lora.name, "sha256": lora.sha256, **beside, "scale": lora.scale}
