"""The session: opens a bundle, edits and generates pictures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.bundle.bundle import Bundle
from ..engine.components import COMPONENTS
from ..engine.errors import BusyError, Cancelled, KontextError, RequestError
from ..engine.sizes import Size, squarest
from .executors.open import open_executor
from .executors.options import AnyExecutor, ExecutorOptions, WhenBusy
from .flow.clock import Clock
from .flow.executor import Executor
from .flow.noise import starting_noise
from .flow.run import OnStep, Server, Watch
from .inputs.pictures import Picture, read_picture
from .inputs.placement import Fit, nearest_size, place
from .inputs.request import Reference, Request, make_request
from .outputs.result import Output, Result

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]
Choice = TypeVar("Choice", bound=Enum)

SECONDS_BETWEEN_LOOKS = 0.02
"""At whether a request that waits for its turn is cancelled."""


class Kontext:
    """A bundle, opened to run. A context manager; calls from several threads take turns, or are refused."""

    def __init__(self, bundle: Bundle, executor: Executor, *, when_busy: WhenBusy | str = WhenBusy.WAIT) -> None:
        self._when_busy = _chosen(WhenBusy, "when_busy", when_busy)
        self.bundle = bundle
        self.executor = executor
        self._fingerprint = bundle.fingerprint
        self._server = Server(bundle, executor)
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread whose turn it is
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        *,
        executor: ExecutorOptions | None = None,
        when_busy: WhenBusy | str = WhenBusy.WAIT,
    ) -> Kontext:
        """Open a bundle. Networks are loaded when they are first needed; `load` does it now.

        Args:
            executor: who runs it; see `AnyExecutor` for the default.
            when_busy: whether a request waits while another thread's runs ("wait"), or is refused with BusyError
                ("refuse").

        Raises BundleError if the bundle is not sound, PlanError, BudgetError, ExecutorError or MissingDependencyError
        if it cannot be run as asked, RequestError for another `when_busy`.
        """
        chosen = _chosen(WhenBusy, "when_busy", when_busy)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        runner = open_executor(opened, executor or AnyExecutor())
        try:
            return cls(opened, runner, when_busy=chosen)
        except BaseException:
            runner.close()
            raise

    def __enter__(self) -> Kontext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what the executor holds. Closing twice is allowed."""
        with self._turn(closing=True):
            self._closed = True
            self.executor.close()
            self._server.encodings.clear()

    @contextmanager
    def _turn(self, *, closing: bool = False, cancel: threading.Event | None = None) -> Iterator[None]:
        """One thread at a time; `cancel` ends the waiting. Raises KontextError on a closed session, or from within a
        request's own callback."""
        if self._owner == threading.get_ident():
            raise KontextError("a request's on_step must not call the Kontext that is serving it")
        if closing or self._when_busy is WhenBusy.WAIT:
            while not self._lock.acquire(timeout=-1 if cancel is None else SECONDS_BETWEEN_LOOKS):
                if cancel is not None and cancel.is_set():
                    raise Cancelled("cancelled while another request was running")
        elif not self._lock.acquire(blocking=False):
            raise BusyError("another thread's request is running, and this Kontext was opened to refuse a second one")
        try:
            if self._closed and not closing:
                raise KontextError("this Kontext is closed; open the bundle again")
            self._owner = threading.get_ident()
            yield
        finally:
            self._owner = None
            self._lock.release()

    def load(self) -> None:
        """Load every network now, so that the first request does not wait for it."""
        with self._turn():
            for name in COMPONENTS:
                self.executor.load(name)

    def forget(self) -> None:
        """Empty the caches of prompts and references, so that the next request encodes its own."""
        with self._turn():
            self._server.encodings.clear()

    @property
    def residency(self) -> list[str]:
        """What lies in the GPU's memory, or will when it is needed: a line a network and the sum. Empty on the CPU."""
        plan = getattr(self.executor, "residency", None)
        return [] if plan is None else plan.describe()

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The (width, height) that the model was trained at."""
        return self.bundle.manifest.model.sizes

    def edit(
        self,
        image: Picture,
        prompt: str | Sequence[str],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int] | None = None,
        size: Size | None = None,
        fit: Fit | str = Fit.RESIZE,
        noise: Array | None = None,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        debug_nan: bool = False,
    ) -> Result:
        """Edit `image` as `prompt` says. Several prompts or seeds give every combination, in one batch.

        Args:
            image: a path, encoded bytes, PIL image or uint8 array.
            prompt: an instruction; beyond 512 T5 tokens it is cut, with a PromptCutWarning.
            steps: of the flow; the bundle's default is 28.
            guidance: embedded guidance strength; the bundle's default is 2.5.
            seed: 0 to 2^64 - 1; drawn and reported if None. The noise is the one diffusers draws with a CPU generator.
            size: (width, height) of the output, multiples of 16. Default: the reference's trained size.
            fit: how the reference is brought to its trained size ("resize", "pad" or "crop").
            noise: (b, n, channels) float32, packed, in the place of what the seeds would draw.
            on_step: called after each step with steps done and steps in all.
            cancel: an event that ends the request between two steps, before its encoders, or while it waits.
            debug_nan: check every component and step for NaN and infinity, each run by itself. Slower.

        Raises RequestError for an argument out of range, ImageError for an unusable picture, Cancelled, NotFiniteError,
        ExecutorError.
        """
        original = read_picture(image)
        target = nearest_size(original.size, self.sizes)
        placed, placement = place(original, target, _chosen(Fit, "fit", fit))
        logger.info("reference %s", placement.describe())
        request = make_request(
            self.bundle.manifest.model,
            prompt,
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=target if size is None else size,
            reference=Reference(pixels=np.asarray(placed), placement=placement),
            noise=noise,
        )
        return self._serve(request, Watch(on_step=on_step, cancel=cancel, every_step=debug_nan))

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        size: Size | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int] | None = None,
        noise: Array | None = None,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        debug_nan: bool = False,
    ) -> Result:
        """Make a picture from a prompt alone. As `edit`, but the default size is the squarest trained one."""
        request = make_request(
            self.bundle.manifest.model,
            prompt,
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=squarest(self.sizes) if size is None else size,
            reference=None,
            noise=noise,
        )
        return self._serve(request, Watch(on_step=on_step, cancel=cancel, every_step=debug_nan))

    def _serve(self, request: Request, watch: Watch) -> Result:
        clock = Clock()
        with self._turn(cancel=watch.cancel), clock.stage("total"):
            served = self._server.serve(request, self._noise, watch, clock)
        return Result(
            outputs=tuple(
                Output(
                    image=Image.fromarray(picture),
                    latents=final,
                    prompt=prompt,
                    seed=None if request.noise is not None else seed,
                )
                for picture, final, (prompt, seed) in zip(served.pictures, served.latents, request.jobs, strict=True)
            ),
            size=request.size,
            reference=None if request.reference is None else request.reference.placement,
            steps=request.steps,
            guidance=request.guidance,
            milliseconds=clock.milliseconds,
            step_milliseconds=tuple(clock.step_milliseconds),
            bundle=self._fingerprint,
            executor=self.executor.name,
        )

    def _noise(self, request: Request) -> Array:
        if request.noise is not None:
            return request.noise.astype(np.float32)
        channels = self.bundle.manifest.model.dims.channels
        precision = self.bundle.graph("denoiser").precision
        drawn = {seed: starting_noise(seed, request.grid, channels, precision) for seed in request.seeds}
        return np.concatenate([drawn[seed] for _, seed in request.jobs])


def _chosen(choices: type[Choice], name: str, value: object) -> Choice:
    try:
        return choices(value)
    except ValueError:
        allowed = ", ".join(choice.value for choice in choices)
        raise RequestError(f"{name} must be one of {allowed}, not {value!r}") from None
