"""Defines `Kontext`, an opened bundle: the one object that a caller edits and generates pictures with."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict, cast

from PIL import Image

from ..engine.bundle.bundle import Bundle
from ..engine.components import COMPONENTS
from ..engine.errors import BusyError, Cancelled, KontextError
from ..engine.sizes import Size
from .executors.open import open_executor
from .executors.options import AnyExecutor, ExecutorOptions, WhenBusy
from .flow.clock import Clock
from .flow.executor import Executor
from .flow.run import Flow, OnStep, Watch
from .inputs.choices import parse_choice
from .inputs.pictures import Picture, check_picture
from .inputs.placement import Fit
from .inputs.prepared import prepare
from .inputs.request import Request, Sampling, SamplingKeywords
from .outputs.result import Output, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

SECONDS_BETWEEN_LOOKS = 0.02
"""The seconds between two looks at whether a request that waits for its turn is cancelled."""


class Kontext:
    """Edits and generates pictures with a bundle.

    It is a context manager. Calls from several threads take turns, or are refused.

    Attributes:
        bundle: The bundle that is open.
        executor: Who runs the bundle's components; it is closed with this.
    """

    def __init__(self, bundle: Bundle, executor: Executor, *, when_busy: WhenBusy | str = WhenBusy.WAIT) -> None:
        self._when_busy = parse_choice(WhenBusy, "when_busy", when_busy)
        self.bundle = bundle
        self.executor = executor
        self._fingerprint = bundle.fingerprint
        self._flow = Flow(bundle, executor)
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread whose turn it is
        self._process = os.getpid()
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
            bundle: A bundle, or the folder of one.
            executor: Who runs it; see `AnyExecutor` for the default.
            when_busy: Whether a request waits while another thread's runs ("wait"), or is refused with BusyError
                ("refuse").

        Returns:
            The opened bundle, which is the caller's to close.

        Raises:
            BundleError: The bundle is not sound.
            PlanError, BudgetError, ExecutorError, MissingDependencyError: It cannot be run as asked.
            RequestError: `when_busy` is another word.
        """
        chosen = parse_choice(WhenBusy, "when_busy", when_busy)
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
        """Release what the executor holds, after the request that is running. Closing twice is allowed.

        In a process that was forked off after opening it does nothing: what is held is the other's.

        Raises:
            KontextError: A request's own `on_step` calls it.
        """
        if self._process != os.getpid():
            return
        with self._turn(closing=True):
            self._closed = True
            self.executor.close()
            self._flow.encodings.clear()

    @contextmanager
    def _turn(self, *, closing: bool = False, cancel: threading.Event | None = None) -> Iterator[None]:
        """Let one thread in at a time; `cancel` ends the waiting.

        Raises KontextError if this is closed, in a forked process, or in a request's own callback.
        """
        if self._process != os.getpid():
            raise KontextError(
                f"this Kontext was opened by process {self._process}, and its libraries do not survive a fork; open "
                f"the bundle after forking, in process {os.getpid()} itself"
            )
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
        """Load every network that stays loaded now, so that the first request does not wait for it.

        Those that the GPU's memory does not hold all the time are loaded when they are needed.

        Raises:
            PlanError, BundleError, ExecutorError: A network cannot be loaded.
            BusyError: Another thread's request is running, and this was opened to refuse.
            KontextError: This is closed, or a request's own `on_step` calls it.
        """
        with self._turn():
            for name in COMPONENTS:
                self.executor.load(name)

    def forget(self) -> None:
        """Empty the caches of prompts and references, so that the next request encodes its own.

        Raises:
            BusyError: Another thread's request is running, and this was opened to refuse.
            KontextError: This is closed, or a request's own `on_step` calls it.
        """
        with self._turn():
            self._flow.encodings.clear()

    @property
    def residency(self) -> list[str]:
        """The lines that say what lies in the GPU's memory, or will when it is needed: one per network, and the sum.

        There are none on the CPU.
        """
        plan = getattr(self.executor, "residency", None)
        return [] if plan is None else plan.describe()

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The (width, height) in pixels that the model was trained at."""
        return self.bundle.manifest.model.sizes

    def run(
        self,
        request: Request,
        *,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        debug_nan: bool = False,
    ) -> Result:
        """Make the pictures that a request asks for. Several prompts or seeds give every combination, in one batch.

        Args:
            request: What is asked for.
            on_step: A function that is called after each step with the number of steps done and of all.
            cancel: An event that ends the request between two steps, before its encoders, or while it waits.
            debug_nan: True to check every component and step for NaN and infinity, each run by itself. This is slower.

        Returns:
            The pictures, prompts outermost and seeds innermost, with what made them and the milliseconds per stage.

        Raises:
            RequestError: The request is one that the plans or the model do not take.
            ImageError: The reference cannot be read.
            Cancelled, BusyError: The request was cancelled, or refused.
            NotFiniteError: A component returned NaN or infinity.
            ExecutorError: A component could not be loaded or run, or there is not enough memory.
            PlanError, BundleError: A network is loaded now, and its file cannot be opened.
            KontextError: This is closed, or a request's own `on_step` calls it.
        """
        prepared = prepare(request, self.bundle.manifest.model)
        watch, clock = Watch(on_step=on_step, cancel=cancel, every_step=debug_nan), Clock()
        with self._turn(cancel=cancel), clock.stage("total"):
            made = self._flow.run(prepared, watch, clock)
        return Result(
            outputs=tuple(
                Output(
                    image=Image.fromarray(picture),
                    latents=latents,
                    prompt=prompt,
                    seed=None if prepared.noise is not None else seed,
                )
                for picture, latents, (prompt, seed) in zip(made.pictures, made.latents, prepared.jobs, strict=True)
            ),
            size=prepared.size,
            reference=None if prepared.reference is None else prepared.reference.placement,
            steps=prepared.steps,
            guidance=prepared.guidance,
            milliseconds=clock.milliseconds,
            step_milliseconds=tuple(clock.step_milliseconds),
            bundle=self._fingerprint,
            executor=self.executor.name,
        )

    def edit(
        self, image: Picture, prompt: str | Sequence[str], *, fit: Fit | str = Fit.RESIZE, **keywords: Unpack[Keywords]
    ) -> Result:
        """Edit a picture as a prompt says: `run` with a `Request` of these arguments.

        Args:
            image: The picture to edit: a path, an encoded file's bytes, a PIL image, or an array (h, w), (h, w, 3) or
                (h, w, 4) uint8.
            prompt: An instruction, or several. Beyond the 512 tokens of T5 it is cut, with a PromptCutWarning.
            fit: How the picture is brought to its trained size: "resize", "pad" or "crop".
            **keywords: Those of `Sampling` (`steps`, `guidance`, `seed`, `size`, `noise`) and of `run` (`on_step`,
                `cancel`, `debug_nan`).

        Returns:
            One picture per prompt and seed, as `run` returns them.

        Raises:
            RequestError: An argument is out of range, or the plans or the model do not take it.
            ImageError: `image` is of a type that no picture can be read from, or cannot be read.
            KontextError: Whatever else `run` raises.
        """
        check_picture(image)
        sampling, watch = _parted(keywords)
        return self.run(Request(prompt=prompt, image=image, sampling=sampling, fit=fit), **watch)

    def generate(self, prompt: str | Sequence[str], **keywords: Unpack[Keywords]) -> Result:
        """Make a picture from a prompt alone: `run` with a `Request` of these arguments.

        Args:
            prompt: A description, or several. Beyond the 512 tokens of T5 it is cut, with a PromptCutWarning.
            **keywords: Those of `Sampling` (`steps`, `guidance`, `seed`, `size`, `noise`) and of `run` (`on_step`,
                `cancel`, `debug_nan`).

        Returns:
            One picture per prompt and seed, as `run` returns them.

        Raises:
            RequestError: An argument is out of range, or the plans or the model do not take it.
            KontextError: Whatever else `run` raises.
        """
        sampling, watch = _parted(keywords)
        return self.run(Request(prompt=prompt, sampling=sampling), **watch)


class WatchKeywords(TypedDict, total=False):
    """Types the keywords of `Kontext.run`."""

    on_step: OnStep | None
    cancel: threading.Event | None
    debug_nan: bool


class Keywords(SamplingKeywords, WatchKeywords, total=False):
    """Types the keywords of `Kontext.edit` and `Kontext.generate`: those of `Sampling` and of `Kontext.run`."""


def _parted(keywords: Keywords) -> tuple[Sampling, WatchKeywords]:
    """Return the sampling that keywords ask for, and the rest, which `Kontext.run` takes or refuses."""
    names = SamplingKeywords.__annotations__.keys()
    sampling = {name: value for name, value in keywords.items() if name in names}
    rest = {name: value for name, value in keywords.items() if name not in names}
    return Sampling(**cast(SamplingKeywords, sampling)), cast(WatchKeywords, rest)
