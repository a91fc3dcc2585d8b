"""One request on an executor: whole, or step by step, with everything checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.components import COMPONENTS, Precision
from ...engine.errors import Cancelled, ExecutorError
from ..inputs.request import Request
from .clock import Clock
from .encodings import Encodings
from .executor import Array, Executor, Workspace
from .guards import check, checked_tensors
from .stages import Decode, EncodeReference, EncodeText, Stage, Step, request_stages
from .tensors import TensorSpec, latents_before, request_tensors, transformer_precision

OnStep = Callable[[int, int], None]
"""Called after each step with the number of steps done and of all."""

Draw = Callable[[Request], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What makes a request run in parts: someone who is told of each step, may cancel between two, or wants every
    stage checked by itself. Without any of them it is handed to the executor in one piece."""

    on_step: OnStep | None = None
    cancel: threading.Event | None = None
    every_step: bool = False

    def check(self, done: int, steps: int) -> None:
        """Raise Cancelled if it is."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled(f"cancelled after step {done} of {steps}")

    def parts(self, stages: Sequence[Stage]) -> list[tuple[Stage, ...]]:
        if self.every_step:
            return [(stage,) for stage in stages]
        if self.on_step is None and self.cancel is None:
            return [tuple(stages)]
        keys = groupby(stages, key=lambda stage: stage if isinstance(stage, Step) else isinstance(stage, Decode))
        return [tuple(part) for _, part in keys]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`latents` (b, n, channels) float32, packed; `pictures` (b, H, W, 3) uint8."""

    latents: NDArray[np.float32]
    pictures: NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class Run:
    """A request on its way."""

    request: Request
    workspace: Workspace
    specs: Mapping[str, TensorSpec]
    precisions: Mapping[str, Precision]
    watch: Watch
    clock: Clock
    outputs: dict[str, Array] = field(default_factory=dict)

    def perform(self, stages: Sequence[Stage], inputs: Mapping[str, Array]) -> None:
        """Run stages together, and keep and check what they give."""
        names = dict.fromkeys(name for stage in stages for name in self._wanted(stage))
        performed = self.workspace.perform(stages, inputs, tuple(names))
        self.outputs |= performed.outputs
        for stage, milliseconds in zip(stages, performed.milliseconds, strict=True):
            self.clock.add(stage, milliseconds)
            check(
                stage,
                self.workspace.shape,
                self.outputs,
                self.specs,
                self.precisions,
                every_step=self.watch.every_step,
            )

    def _wanted(self, stage: Stage) -> Iterator[str]:
        yield from checked_tensors(stage, self.workspace.shape, every_step=self.watch.every_step)
        if isinstance(stage, Decode):
            yield "pictures"
        elif stage == Step(self.workspace.shape.num_steps - 1):
            yield latents_before(self.workspace.shape.num_steps)


class Server:
    """Serves requests one after another."""

    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self._bundle, self._executor = bundle, executor
        self._precisions = {name: bundle.graph(name).precision for name in COMPONENTS}
        self.encodings = Encodings(bundle)

    def serve(self, request: Request, draw: Draw, watch: Watch, clock: Clock) -> Served:
        """`draw` gives a request's noise, (b, n, channels) float32.

        Raises Cancelled, NotFiniteError, ExecutorError for want of memory, and what the executor raises.
        """
        try:
            return self._serve(request, draw, watch, clock)
        except MemoryError as error:
            count, (width, height) = len(request.jobs), request.size
            raise ExecutorError(
                f"there is not enough memory for {count} picture{'s'[: count > 1]} of {width}x{height} in "
                f"{request.steps} steps; ask for fewer or smaller ones, or for fewer steps"
            ) from error

    def _serve(self, request: Request, draw: Draw, watch: Watch, clock: Clock) -> Served:
        watch.check(0, request.steps)
        with clock.stage("tokenize"):
            token_ids = self.encodings.tokenize(request)
        with clock.stage("prepare"):
            conditions = self.encodings.conditions(request, token_ids)
            noise = draw(request)
        shape = conditions.shape
        run = Run(
            request=request,
            workspace=self._executor.workspace(shape),
            specs=request_tensors(shape, self._bundle.manifest.model, transformer_precision(self._bundle)),
            precisions=self._precisions,
            watch=watch,
            clock=clock,
        )
        stages = request_stages(shape, new_prompts=conditions.new_prompts, new_reference=conditions.new_reference)
        inputs = conditions.inputs | {latents_before(0): noise}
        for part in watch.parts(stages):
            steps = [stage for stage in part if isinstance(stage, Step)]
            if not any(isinstance(stage, Decode) for stage in part):  # the last step is done: decode what is there
                watch.check(steps[0].index if steps else 0, shape.num_steps)
            run.perform(part, inputs)
            inputs = {}
            self._keep(run, part)
            if watch.on_step is not None:
                for step in steps:
                    watch.on_step(step.index + 1, shape.num_steps)
        return Served(latents=run.outputs[latents_before(shape.num_steps)], pictures=run.outputs["pictures"])

    def _keep(self, run: Run, stages: Sequence[Stage]) -> None:
        """Remember what was encoded; it has been checked."""
        for stage in stages:
            if isinstance(stage, EncodeText):
                self.encodings.keep_text(run.request, stage.prompt, run.outputs)
            elif isinstance(stage, EncodeReference):
                self.encodings.keep_reference(run.request, run.outputs)
