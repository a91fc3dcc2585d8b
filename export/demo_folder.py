"""Says what a demo shows and where its files go; what it may not replace is refused before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..engine.bundle.bundle import MANIFEST
from ..engine.errors import ExportError
from ..engine.system.changes import is_same_file
from ..engine.system.files import is_taken
from ..runtime.inputs.pictures import read_picture
from ..runtime.inputs.request import Request, Sampling
from .checkpoint.places import CheckpointFiles, check_places

PICTURE = Path(__file__).with_name("demo.png")
PROMPT = "make the house blue"
PICTURE_NAME = "edited.png"
MARK = ".demo"
"""The name of an empty file in what a demo made, and another demo may replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """Says what to show; without a `checkpoint`, a tiny random one is made."""

    checkpoint: Path | None = None
    image: Path = PICTURE
    prompt: str = PROMPT
    steps: int = 8

    @property
    def request(self) -> Request:
        """The edit that is shown."""
        return Request(prompt=self.prompt, image=self.image, sampling=Sampling(steps=self.steps, seed=0))


def check_demo(folder: Path, demo: Demo) -> None:
    """Refuse a demo that cannot be shown, or would replace what no demo made.

    Raises:
        ExportError: Bundle/, checkpoint/ or edited.png is not a demo's, or is the picture to edit, or `folder` is
            itself a bundle or a checkpoint.
        RequestError, ImageError: The edit is one that nothing makes, or its picture cannot be read.
        CheckpointError: The checkpoint is nowhere.
    """
    for mark, what in ((MANIFEST, "a bundle"), ("model_index.json", "a checkpoint"), ("config.json", "a network")):
        if (folder / mark).exists():
            raise ExportError(f"{folder} is {what}; name a folder that a demo may fill: kontext-trt demo FOLDER")
    if (folder / PICTURE_NAME).exists() and not (folder / "bundle" / MARK).is_file():
        raise ExportError(
            f"{folder / PICTURE_NAME} exists and no demo made it; choose another folder: kontext-trt demo FOLDER"
        )
    if is_same_file(folder / PICTURE_NAME, demo.image):
        raise ExportError(f"{demo.image} is to be edited and would be replaced; choose another folder for what is made")
    for made in (folder / "bundle",) if demo.checkpoint else (folder / "bundle", folder / "checkpoint"):
        if is_taken(made) and not (made / MARK).is_file():
            raise ExportError(f"{made} exists and no demo made it; choose another folder: kontext-trt demo FOLDER")
    _ = demo.request  # raises for what a request cannot be
    read_picture(demo.image)
    if demo.checkpoint is not None:
        check_places(demo.checkpoint, CheckpointFiles())
