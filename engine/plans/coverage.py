"""Defines what plans must be able to run: sizes, tasks, batch, steps.

Profiles come from it, and the runtime obeys it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from msgspec import Meta

from ..documents import Extent
from ..errors import OptionError, RequestError
from ..sizes import Size, check_size, squarest


class Task(str, Enum):
    """Names what a request does: EDIT has a reference picture; GENERATE, text to image, has none."""

    EDIT = "edit"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Says what plans must be able to run.

    Sizes are kept from the narrowest to the widest and once each, so that the same coverage has one form.

    Attributes:
        sizes: The (width, height) of outputs in pixels. Plans are fastest at `common`, one of them. References are
            brought to one of them, too.
        tasks: What requests may do; by default all that there is.
        batch: The most pictures of a batch, at least 1.
        max_steps: The most steps of a request, at least 1.
        references: The most references of an edit, at least 1.

    Raises:
        OptionError: There is no size or no task, a size is not possible (`sizes.check_size`), or a number is below 1.
    """

    sizes: Annotated[tuple[Size, ...], Meta(max_length=1000)]
    tasks: tuple[Task, ...] = (Task.EDIT, Task.GENERATE)
    batch: Extent = 1
    max_steps: Extent = 50
    references: Extent = 1

    def __post_init__(self) -> None:
        if not self.sizes or not self.tasks:
            raise OptionError("at least one size and one task must be covered")
        for size in self.sizes:
            try:
                check_size(size)
            except RequestError as error:
                raise OptionError(str(error)) from None
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes), key=lambda size: (size[0] / size[1], size))))
        object.__setattr__(self, "tasks", tuple(task for task in Task if task in self.tasks))
        for what, value in (("batch", self.batch), ("max_steps", self.max_steps), ("references", self.references)):
            if value < 1:
                raise OptionError(f"{what} must be at least 1, not {value}")

    @property
    def common(self) -> Size:
        """The squarest size; among equals the largest."""
        return squarest(self.sizes)

    def describe(self) -> str:
        """Say in words what is covered.

        For example "17 sizes, 672x1568 to 1568x672, best at 1024x1024; edit and generate; batch 1; up to 50 steps".
        """
        first, last = self.sizes[0], self.sizes[-1]
        span = f"{first[0]}x{first[1]}"
        if len(self.sizes) > 1:
            span = f"{len(self.sizes)} sizes, {span} to {last[0]}x{last[1]}, best at {self.common[0]}x{self.common[1]}"
        batch = f"batch 1 to {self.batch}" if self.batch > 1 else "batch 1"
        tasks = " and ".join(task.value for task in self.tasks)
        several = f"; up to {self.references} references" if self.references > 1 else ""
        return f"{span}; {tasks}; {batch}; up to {self.max_steps} steps{several}"

    def contains(self, other: Coverage) -> bool:
        """Return whether plans of this coverage can serve all that `other` asks for."""
        return (
            set(other.sizes) <= set(self.sizes)
            and set(other.tasks) <= set(self.tasks)
            and other.batch <= self.batch
            and other.max_steps <= self.max_steps
            and other.references <= self.references
        )
