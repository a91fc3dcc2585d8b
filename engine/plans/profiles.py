"""Computes from what must be covered the shape ranges that a compiler wants; nothing else computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

from msgspec import Meta

from ..bundle.manifest import ModelRecord
from ..components import PIXELS_PER_TOKEN, Component, Precision
from ..documents import Count
from ..errors import RequestError
from ..sizes import Grid, token_grid
from .coverage import Coverage, Task

Shape = Annotated[tuple[Count, ...], Meta(max_length=8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Holds the smallest, the preferred and the largest value of a dimension."""

    min: int
    opt: int
    max: int

    def __contains__(self, value: int) -> bool:
        return self.min <= value <= self.max


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """Holds the smallest, the preferred and the largest shape of an input."""

    min: Shape
    opt: Shape
    max: Shape

    def contains(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.min) and all(
            low <= extent <= high for low, extent, high in zip(self.min, shape, self.max, strict=True)
        )


Profile = Mapping[str, ShapeRange]
"""The shape ranges of a component, by its input names."""


def dynamic_ranges(coverage: Coverage, model: ModelRecord) -> dict[str, Range]:
    """Return the range of each dynamic dimension, as `components.DYNAMIC_DIMS` names them."""
    grids = {size: token_grid(size) for size in coverage.sizes}
    rows, columns = [grid[0] for grid in grids.values()], [grid[1] for grid in grids.values()]
    tokens = [height * width for height, width in grids.values()]
    best = grids[coverage.common]
    n = Range(min=min(tokens), opt=best[0] * best[1], max=max(tokens))
    edits, generates = Task.EDIT in coverage.tasks, Task.GENERATE in coverage.tasks
    # one range from no reference to the longest: a second profile would double kernels, plan and contexts
    m = Range(min=0 if generates else n.min, opt=n.opt if edits else 0, max=coverage.references * n.max if edits else 0)
    text = model.dims.text_length
    return {
        "b": Range(min=1, opt=1, max=coverage.batch),
        "n": n,
        "m": m,
        "s": Range(min=text + n.min + m.min, opt=text + n.opt + m.opt, max=text + n.max + m.max),
        "N": Range(min=1, opt=min(model.flow.steps, coverage.max_steps), max=coverage.max_steps),
        "h": Range(min=min(rows), opt=best[0], max=max(rows)),
        "w": Range(min=min(columns), opt=best[1], max=max(columns)),
    }


def profile_of(component: Component, coverage: Coverage, model: ModelRecord) -> dict[str, ShapeRange]:
    """Return the shape range of each input of a component."""
    ranges = _ranges_of(component, coverage, model)
    corners = [{name: getattr(extent, corner) for name, extent in ranges.items()} for corner in ("min", "opt", "max")]
    profile: dict[str, ShapeRange] = {}
    for port in component.inputs:
        low, best, high = (tuple(int(extent) for extent in model.dims.resolve(port.dims, **dims)) for dims in corners)
        profile[port.name] = ShapeRange(min=low, opt=best, max=high)
    return profile


def _ranges_of(component: Component, coverage: Coverage, model: ModelRecord) -> dict[str, Range]:
    ranges = dynamic_ranges(coverage, model)
    if not component.batched:
        ranges["b"] = Range(min=1, opt=1, max=1)
    if not any("m" in port.dims for port in component.inputs):
        ranges["m"] = ranges["n"]  # an encoder's output, of one picture
    return ranges


def io_bytes(component: Component, coverage: Coverage, model: ModelRecord, precision: Precision) -> int:
    """Return the size in bytes of all inputs and outputs of a component at their largest."""
    largest = {name: extent.max for name, extent in _ranges_of(component, coverage, model).items()}
    return sum(
        prod(int(extent) for extent in model.dims.resolve(port.dims, **largest))
        * port.element_type.resolve(precision).item_bytes
        for port in component.ports
    )


def check_request(
    coverage: Coverage, model: ModelRecord, *, grid: Grid, references: Sequence[Grid], batch: int, steps: int
) -> None:
    """Raise RequestError, naming the build command, unless plans of this coverage can serve a request.

    `grid` and `references` are rows and columns of target and reference tokens. Sizes between those covered pass.
    """
    ranges = dynamic_ranges(coverage, model)
    covered = f"these plans cover {coverage.describe()}"
    for rows, columns in (grid, *references):
        extents = {"h": rows, "w": columns, "n": rows * columns}
        if any(extent not in ranges[name] for name, extent in extents.items()):
            text = f"{columns * PIXELS_PER_TOKEN}x{rows * PIXELS_PER_TOKEN}"
            raise RequestError(f"no profile for {text}: {covered}; build with --size {text}")
    task = Task.EDIT if references else Task.GENERATE
    several = f"--references {len(references)}" if len(references) > 1 and Task.EDIT in coverage.tasks else ""
    for value, name, option in (
        (sum(map(prod, references)), "m", several or f"--task {task.value}"),
        (batch, "b", f"--batch {batch}"),
        (steps, "N", f"--max-steps {steps}"),
    ):
        if value not in ranges[name]:
            raise RequestError(f"{covered}; build with {option}")


def check_shapes(component: str, profile: Profile, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise RequestError, naming the input and its range, for a shape outside the profile."""
    for name, shape in shapes.items():
        allowed = profile[name]
        if not allowed.contains(shape):
            raise RequestError(
                f"{component}: {name} {list(shape)} is outside its profile, {list(allowed.min)} to {list(allowed.max)}"
                "; build with --size, --batch or --max-steps that cover it"
            )
