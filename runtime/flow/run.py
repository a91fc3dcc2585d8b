"""Runs one request on an executor: whole, or step by step, with everything checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.components import Precision
from ...engine.errors import Cancelled, ExecutorError
from ...engine.progress import Progress
from ..inputs.prepared import PreparedRequest
from .clock import Clock
from .encodings import Encodings
from .executor import Executor
from .guards import check, checked_tensors
from .noise import request_noise
from .phases import Loading, Phases
from .previews import Show, preview_steps, straight_on
from .stages import Decode, EncodeReference, EncodeText, Stage, Step, request_stages
from .tensors import (
    RequestShape,
    TensorSpec,
    image_name,
    latents_before,
    reference_name,
    request_tensors,
    transformer_precision,
)
from .workspace import Array

OnStep = Callable[[int, int], None]
"""A function that is called after each step with the number of steps done and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Says what makes a request run in parts.

    That is someone who is told of each step or phase, may cancel between two, or wants every stage checked by itself.
    Without any of them the request is handed to the executor in one piece.
    """

    on_step: OnStep | None = None
    cancel: threading.Event | None = None
    every_step: bool = False
    previews: int = 0
    show: Show | None = None
    progress: Progress | None = None

    def check(self, done: int, steps: int) -> None:
        """Raise Cancelled if the request is cancelled."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(f"cancelled after step {done} of {steps}")

    def parts(self, stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
        """Return the runs of stages between which something is looked at."""
        if self.every_step:
            return [(stage,) for stage in stages]
        if self.progress is not None:
            keys = groupby(stages, key=lambda stage: stage if isinstance(stage, Step) else stage.name)
            return [tuple(part) for _, part in keys]
        if self.on_step is None and self.cancel is None and self.show is None:
            return [tuple(stages)]
        keys = groupby(stages, key=lambda stage: stage if isinstance(stage, Step) else isinstance(stage, Decode))
        return [tuple(part) for _, part in keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Holds `latents` (b, n, channels) float32, packed, and `pictures` (b, H, W, 3) uint8."""

    latents: NDArray[np.float32]
    pictures: NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class _UnderWay:
    """Holds a request that runs, and what it has given so far."""

    request: PreparedRequest
    executor: Executor
    shape: RequestShape
    specs: Mapping[str, TensorSpec]
    precisions: Mapping[str, Precision]
    watch: Watch
    clock: Clock
    previewed: tuple[int, ...]
    phases: Phases | None
    left: Sequence[Stage] = ()
    outputs: dict[str, Array] = field(default_factory=dict)

    def perform(self, stages: Sequence[Stage], inputs: Mapping[str, Array]) -> None:
        """Run stages together, and keep and check what they give."""
        if self.phases is not None:
            self.phases.begin(stages, self.left or stages)
            self.left = self.left[len(stages) :]
        names = dict.fromkeys(name for stage in stages for name in self._wanted(stage))
        performed = self.executor.perform(self.shape, stages, inputs, tuple(names))
        self.outputs |= performed.outputs
        for stage, milliseconds in zip(stages, performed.milliseconds, strict=True):
            self.clock.add(stage, milliseconds)
            check(stage, self.shape, self.outputs, self.specs, self.precisions, every_step=self.watch.every_step)
        if self.phases is not None:
            self.phases.end(stages)

    def _wanted(self, stage: Stage) -> Iterator[str]:
        yield from checked_tensors(stage, self.shape, every_step=self.watch.every_step)
        if isinstance(stage, Decode):
            yield "pictures"
        elif isinstance(stage, Step) and stage.index == self.shape.num_steps - 1:
            yield latents_before(self.shape.num_steps)
        elif self.watch.show is not None and isinstance(stage, Step) and stage.index + 1 in self.previewed:
            yield latents_before(stage.index)
            yield latents_before(stage.index + 1)

    def preview(self, step: int, step_sizes: NDArray[np.float32]) -> dict[str, Array]:
        """Show what is expected after a step that may be previewed, and return the latents to go on from.

        It is decoded from where the result will be, so it takes neither memory nor a graph of its own.
        """
        if self.watch.show is None or step not in self.previewed:
            return {}
        before, after = (self.outputs[latents_before(one)] for one in (step - 1, step))
        place = latents_before(self.shape.num_steps)
        with self.clock.stage("preview"):
            expected = straight_on(before, after, step_sizes[step - 1 :])
            decoded = self.executor.perform(self.shape, (Decode(),), {place: expected}, ("pictures",))
            self.watch.show(self.previewed.index(step), decoded.outputs["pictures"])
        return {place: after} if place == latents_before(step) else {}


class Flow:
    """Runs requests of one bundle on an executor, one after another, and remembers what was encoded."""

    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self._bundle, self._executor = bundle, executor
        self._precisions = {name: bundle.graph(name).precision for name in bundle.components}
        self.encodings, self.loading = Encodings(bundle), Loading(bundle, executor)

    def run(self, request: PreparedRequest, watch: Watch, clock: Clock) -> Generated:
        """Make the pictures of a request, and let `clock` know how long each stage took.

        Raises Cancelled, NotFiniteError, ExecutorError for want of memory, and what the executor raises.
        """
        try:
            return self._run(request, watch, clock)
        except MemoryError as error:
            count, (width, height) = len(request.jobs), request.size
            raise ExecutorError(
                f"there is not enough memory for {count} picture{'s'[: count > 1]} of {width}x{height} in "
                f"{request.steps} steps; ask for fewer or smaller ones, or for fewer steps"
            ) from error

    def _run(self, request: PreparedRequest, watch: Watch, clock: Clock) -> Generated:
        watch.check(0, request.num_steps)
        with clock.stage("tokenize"):
            token_ids = self.encodings.tokenize(request)
        with clock.stage("prepare"):
            conditions = self.encodings.conditions(request, token_ids)
            channels = self._bundle.manifest.model.dims.channels
            noise = request_noise(request, channels, transformer_precision(self._bundle))
        shape = conditions.shape
        under_way = _UnderWay(
            request=request,
            executor=self._executor,
            shape=shape,
            specs=request_tensors(self._bundle, shape),
            precisions=self._precisions,
            watch=watch,
            clock=clock,
            previewed=preview_steps(watch.previews, shape.num_steps),
            phases=None if watch.progress is None else Phases(watch.progress, self.loading),
        )
        if request.begins_late and 0 in conditions.new_references:  # the flow begins with what the encoder gives
            part = (EncodeReference(0),)
            under_way.perform(part, {image_name(0): conditions.inputs[image_name(0)]})
            self._keep(under_way, part)
            conditions = self.encodings.conditions(request, token_ids)
        stages = request_stages(
            shape,
            new_prompts=conditions.new_prompts,
            new_references=conditions.new_references,
            step_mask=request.step_mask,
        )
        under_way.left = stages
        inputs = conditions.inputs | _started(request, conditions.inputs, noise)
        for part in watch.parts(stages):
            steps = [stage for stage in part if isinstance(stage, Step)]
            if not any(isinstance(stage, Decode) for stage in part):  # the last step is done: decode what is there
                watch.check(steps[0].index if steps else 0, shape.num_steps)
            under_way.perform(part, inputs)
            inputs = {}
            self._keep(under_way, part)
            for step in steps:
                if watch.on_step is not None:
                    watch.on_step(step.index + 1, shape.num_steps)
                inputs |= under_way.preview(step.index + 1, conditions.inputs["step_sizes"][:, 0])
        outputs = under_way.outputs
        return Generated(latents=outputs[latents_before(shape.num_steps)], pictures=outputs["pictures"])

    def _keep(self, under_way: _UnderWay, stages: Sequence[Stage]) -> None:
        """Keep what was encoded; it has been checked."""
        for stage in stages:
            if isinstance(stage, EncodeText):
                self.encodings.keep_text(under_way.request, stage.prompt, under_way.outputs)
            elif isinstance(stage, EncodeReference):
                self.encodings.keep_reference(under_way.request, stage.reference, under_way.outputs)


def _started(request: PreparedRequest, inputs: Mapping[str, Array], noise: NDArray[np.float32]) -> dict[str, Array]:
    """Return what the flow starts from: noise, or if it begins late the first reference noised to there."""
    started = {latents_before(0): noise}
    if request.begins_late:
        sigma = inputs["timesteps"][0]
        started[latents_before(0)] = (1 - sigma) * inputs[reference_name(0)] + sigma * noise
    if request.mask is not None:
        started |= {"noise": noise, "keep": np.broadcast_to(request.mask.keep, noise.shape)}
    return started
