"""Reads and writes schedules that were chosen for a bundle: which steps are taken, and what that costs and loses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ...engine.documents import Sha256, Text, read_json_file
from ...engine.errors import OptionError, RequestError
from ...engine.system.changes import try_place
from ...engine.system.files import atomic_file
from .request import ScheduleKeywords
from .schedules import MAX_STEPS, Solver, check_sigmas, check_step_mask

SCHEMA = 1
MAX_BYTES = 1 << 20
"""The largest file that is read."""
Share = Annotated[float, Meta(gt=0.0, le=1.0)]
Decibels = Annotated[float, Meta(ge=-1000.0, le=1000.0)]
Number = Annotated[int, Meta(ge=1, le=1_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Holds steps that were chosen for a bundle, and what they lose on the requests that they were chosen by.

    Attributes:
        schema: 1.
        bundle: The fingerprint of the bundle.
        solver: How a step uses the velocity of the one before.
        sigmas: The noise level of each step.
        step_mask: Which steps are whole, None if all are.
        cost: What the steps compute, as a share of what they stand for.
        of_steps: The whole steps that they stand for.
        requests: The number of requests that they were chosen by.
        latents_db: The energy of those requests' last latents over that of the difference from the flow of many steps.
        of_steps_db: The same of the steps that they stand for.
        created: When, in UTC.
    """

    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    bundle: Sha256
    solver: Solver
    sigmas: Annotated[tuple[float, ...], Meta(min_length=1, max_length=MAX_STEPS)]
    step_mask: Annotated[tuple[bool, ...], Meta(max_length=MAX_STEPS)] | None
    cost: Share
    of_steps: Number
    requests: Number
    latents_db: Decibels
    of_steps_db: Decibels
    created: Text

    @classmethod
    def open(cls, path: Path | str) -> Schedule:
        """Read a schedule. Raises RequestError if the file cannot be read, or is none."""
        path = Path(path)

        def unread(reason: str) -> RequestError:
            return RequestError(f"the schedule {path} cannot be read: {reason}")

        def foreign(reason: str) -> RequestError:
            return RequestError(f"{path} is no schedule ({reason}); `kontext-trt schedule` makes one")

        read = read_json_file(path, cls, at_most=MAX_BYTES, unread=unread, fail=foreign)
        try:
            check_sigmas(read.sigmas)
            mask = None if read.step_mask is None else check_step_mask(read.step_mask)
        except RequestError as error:
            raise foreign(str(error)) from None
        if mask is not None and len(mask) != len(read.sigmas):
            raise foreign(f"its mask is of {len(mask)} steps, and it has {len(read.sigmas)}")
        return read

    def save(self, path: Path | str) -> None:
        """Write it to a file, whole or not at all. Missing folders are made."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(Path(path)) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    def keywords(self) -> ScheduleKeywords:
        """Return what of a `Sampling` it says."""
        return {"solver": self.solver, "sigmas": self.sigmas, "step_mask": self.step_mask}


def check_schedule_place(path: Path) -> None:
    """Raise OptionError for a path at which no file can be made, before what it would hold is chosen."""
    try:
        try_place(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be written: {error}; choose another place") from error
