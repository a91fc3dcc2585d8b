"""Defines the options of the commands that make pictures, and what those commands share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..engine.bundle.bundle import Bundle
from ..engine.byte_sizes import parse_bytes
from ..engine.errors import OptionError
from ..engine.lora.choice import LoraChoice
from ..engine.sizes import parse_size
from ..engine.spelling import parse_name
from ..runtime.executors.options import (
    AnyExecutor,
    ExecutorName,
    ExecutorOptions,
    OnnxRuntimeOptions,
    read_devices,
)
from ..runtime.filters.interface import ContentFilter
from ..runtime.inputs.masking import FEATHER, MaskCrop, Masking
from ..runtime.inputs.request import Sampling, ScheduleKeywords
from ..runtime.inputs.schedule_file import Schedule
from ..runtime.inputs.schedules import Solver, parse_sigmas, parse_step_mask
from ..runtime.kontext import Kontext
from .terminal import notes, working

logger = logging.getLogger(__name__)


def named_path(text: str) -> Path:
    """Return a path; refuse an empty name, which would be the folder that the command runs in."""
    if not text:
        raise typer.BadParameter("the name is empty, as of a shell variable that is not set")
    return Path(text)


def executor_name(text: str) -> ExecutorName:
    """Return the executor that a user names, with a hyphen or an underscore."""
    try:
        return parse_name(ExecutorName, "it", text)
    except OptionError as error:
        raise typer.BadParameter(str(error)) from error


StepsOption = Annotated[int | None, typer.Option(help="Steps of the flow. Default: the bundle's, 28.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace even what it is made from, or in a folder what no run of it made.")
]
GuidanceOption = Annotated[float | None, typer.Option(help="Guidance strength. Default: the bundle's, 2.5.")]
ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(
        help="Who computes. Default: plans that fit this machine, else ONNX Runtime.",
        parser=executor_name,
        metavar=f"<{'|'.join(name.value for name in ExecutorName)}>",
    ),
]

DevicesOption = Annotated[
    str | None,
    typer.Option(help="GPUs that share each request: how many, as 4, or their numbers, as 0,2.", show_default=False),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """Says in which steps the flow is solved, and how."""

    schedule: Annotated[
        Path | None, typer.Option(help="What `kontext-trt schedule` chose, instead of the options beside it.")
    ] = None
    steps: StepsOption = None
    solver: Annotated[
        Solver, typer.Option(help="How a step uses the velocity of the one before: not at all, or to second order.")
    ] = Solver.EULER
    sigmas: Annotated[
        str | None,
        typer.Option(help="The noise levels of the steps instead of the model's, as 1,0.9,0.6; 0 follows."),
    ] = None

    step_mask: Annotated[
        str | None,
        typer.Option(help="1 of each whole step, 0 of each cached one, as 1,1,0,1; a bundle of --step-cache."),
    ] = None

    @property
    def given(self) -> dict[str, bool]:
        """The options that say by themselves what a chosen schedule would, and whether they are given."""
        return {
            "--steps": self.steps is not None,
            "--solver": self.solver is not Solver.EULER,
            "--sigmas": self.sigmas is not None,
            "--step-mask": self.step_mask is not None,
        }

    def keywords(self, bundle: Path) -> ScheduleKeywords:
        """Return what of a `Sampling` it says; a schedule that was chosen for another bundle is warned about."""
        if self.schedule is not None:
            return self._chosen(self.schedule, bundle)
        return {
            "steps": self.steps,
            "solver": self.solver,
            "sigmas": None if self.sigmas is None else parse_sigmas(self.sigmas),
            "step_mask": None if self.step_mask is None else parse_step_mask(self.step_mask),
        }

    def _chosen(self, path: Path, bundle: Path) -> ScheduleKeywords:
        named = [name for name, given in self.given.items() if given]
        if named:
            raise OptionError(f"--schedule says what {', '.join(named)} would; leave one out")
        schedule = Schedule.open(path)
        if schedule.bundle != Bundle.open(bundle).fingerprint:
            logger.warning("%s was chosen for another bundle; what it loses with this one is not known", path)
        return schedule.keywords()


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureOptions(ScheduleOptions):
    """Says what the pictures become."""

    seed: Annotated[
        list[int] | None, typer.Option("--seed", "-s", help="Default: drawn and reported. Several are allowed.")
    ] = None
    guidance: GuidanceOption = None
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the output, multiples of 16.")] = None
    strength: Annotated[
        float, typer.Option(help="How much of the picture gives way, up to 1. Below 1, only that share of the steps.")
    ] = 1.0
    debug_nan: Annotated[bool, typer.Option("--debug-nan", help="Check every network and step for NaN. Slower.")] = (
        False
    )

    def sampling(self, bundle: Path) -> Sampling:
        return Sampling(
            **self.keywords(bundle),
            seed=self.seed or None,
            guidance=self.guidance,
            size=None if self.size is None else parse_size(self.size),
            strength=self.strength,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOptions:
    """Says what of the picture is edited."""

    mask: Annotated[
        Path | None,
        typer.Option(help="A picture of its size: white is edited, or transparency. The rest stays bit for bit."),
    ] = None
    box: Annotated[
        list[str] | None, typer.Option(help="LEFT,TOP,RIGHT,BOTTOM in pixels, instead of --mask; several are allowed.")
    ] = None
    crop: Annotated[
        MaskCrop, typer.Option(help="Edit the whole picture, or the mask's surroundings at their own resolution.")
    ] = MaskCrop.NONE
    feather: Annotated[int, typer.Option(help="Pixels over which the edit fades in, inside the mask.")] = FEATHER
    margin: Annotated[int | None, typer.Option(help="Pixels around the mask that a crop shows at least.")] = None

    def masking(self) -> Masking | None:
        """Return the mask that is asked for, None if none is."""
        if self.mask is not None and self.box:
            raise OptionError("give a mask as --mask or as --box, not both")
        source = self.mask if self.mask is not None else [_box(text) for text in self.box or ()]
        if source == []:
            details = {"--crop": self.crop is not MaskCrop.NONE, "--margin": self.margin is not None}
            if any(details.values()):
                named = " and ".join(name for name, given in details.items() if given)
                raise OptionError(f"{named} say how a mask is used; give one with --mask or --box")
            return None
        return Masking(mask=source, crop=self.crop, feather=self.feather, margin=self.margin)


def _box(text: str) -> tuple[int, int, int, int]:
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().lstrip("-").isdecimal() for number in numbers):
        raise OptionError(f"--box is LEFT,TOP,RIGHT,BOTTOM in pixels, such as 100,50,400,300, not {text!r}")
    left, top, right, bottom = map(int, numbers)
    return left, top, right, bottom


SwapOption = Annotated[
    list[str] | None,
    typer.Option(help="FILE or FILE:SCALE, a LoRA to swap into a bundle of --lora-rank; several times."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapOptions:
    """Says which LoRAs are swapped in."""

    lora: SwapOption = None

    def choices(self) -> tuple[LoraChoice, ...]:
        return tuple(LoraChoice.parse(text) for text in self.lora or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Says who computes, and in how much memory."""

    executor: ExecutorOption = ExecutorName.AUTO
    devices: DevicesOption = None
    vram: Annotated[
        str | None,
        typer.Option(help="GPU memory to use, as 24GiB: what does not fit is loaded for its turn.", show_default=False),
    ] = None
    store: Annotated[Path | None, typer.Option(help="A folder of plans that is not the bundle's own.")] = None
    trust: Annotated[
        bool, typer.Option("--trust", help="Run plans that you did not sign. They are executable code.")
    ] = False

    def executor_options(self, *, graphs: bool) -> ExecutorOptions:
        """Return them as the runtime takes them; what means nothing beside the others is warned about."""
        budget = None if self.vram is None else parse_bytes(self.vram)
        devices = None if self.devices is None else read_devices(self.devices)
        chosen = self.executor.options(budget, graphs=graphs, plans=self.store, trust=self.trust, devices=devices)
        runs_graphs = isinstance(chosen, OnnxRuntimeOptions) or (isinstance(chosen, AnyExecutor) and chosen.devices)
        if self.trust and runs_graphs:
            logger.warning("--trust is about plans, and ONNX Runtime runs the graphs")
        return chosen


@contextmanager
def opened(bundle: Path, run: RunOptions, *, graphs: bool, filters: Sequence[ContentFilter] = ()) -> Iterator[Kontext]:
    """Open a bundle as options say, and say what will lie in the GPU's memory before anything does."""
    executor = run.executor_options(graphs=graphs)
    with working("opening the bundle"):
        made = Kontext.open(bundle, executor=executor, filters=filters)
    with made as kontext:
        for line in kontext.residency:
            notes.print(line, highlight=False)
        yield kontext
