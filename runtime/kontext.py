"""Defines `Kontext`, an opened bundle: the one object that a caller edits and generates pictures with."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.bundle.bundle import Bundle
from ..engine.bundle.manifest import LoraRecord
from ..engine.errors import ImageError
from ..engine.lora.choice import LoraChoice, lora_choices
from ..engine.progress import Progress, Silent
from ..engine.sizes import Size
from .adapters import Adapters
from .admission import Admission
from .executors.open import open_executor
from .executors.options import ExecutorName, ExecutorOptions, WhenBusy, executor_options
from .filters.interface import ContentFilter, Stage
from .filters.screen import FilterCount, Screen
from .flow.clock import Clock
from .flow.executor import Executor
from .flow.previews import Previews
from .flow.run import Flow, OnStep
from .inputs.choices import parse_choice
from .inputs.pictures import Picture
from .inputs.prepared import prepare
from .inputs.references import ReferenceSource
from .inputs.request import Request
from .keywords import EditKeywords, GenerateKeywords, SessionKeywords, request_of
from .outputs.finish import result_of, watching
from .outputs.result import Result
from .session import Session

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Kontext(AbstractContextManager["Kontext"]):
    """Edits and generates pictures with a bundle. Calls from several threads take turns, or are refused.

    Attributes:
        bundle: The bundle that is open.
        executor: Who runs the bundle's components; it is closed with this.
    """

    def __init__(
        self,
        bundle: Bundle,
        executor: Executor,
        *,
        when_busy: WhenBusy | str = WhenBusy.WAIT,
        filters: Iterable[ContentFilter] = (),
    ) -> None:
        self._screen = Screen(filters)
        self._admission = Admission(parse_choice(WhenBusy, "when_busy", when_busy))
        self.bundle = bundle
        self.executor = executor
        self._flow = Flow(bundle, executor)
        self._adapters = Adapters(bundle)

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        *,
        executor: ExecutorOptions | ExecutorName | str | None = None,
        devices: int | Sequence[int] | None = None,
        when_busy: WhenBusy | str = WhenBusy.WAIT,
        filters: Iterable[ContentFilter] = (),
    ) -> Kontext:
        """Open a bundle. Networks are loaded when they are first needed; `load` does it now.

        Args:
            bundle: A bundle, or the folder of one.
            executor: Who runs it: options, or a name of the command line ("cuda"); see `AnyExecutor` for the default.
            devices: How many GPUs share each request, or a list of their numbers: each has a process of its own.
            when_busy: Whether a request waits while another thread's runs ("wait"), or is refused with BusyError
                ("refuse").
            filters: Who is asked about prompts and pictures, in this order; one that fails refuses.

        Returns:
            The opened bundle, which is the caller's to close.

        Raises:
            BundleError: The bundle is not sound.
            PlanError, BudgetError, ExecutorError, MissingDependencyError: It cannot be run as asked.
            RequestError, OptionError: `when_busy` or `executor` is another word, a filter none, or `devices` unfit.
        """
        chosen, options = parse_choice(WhenBusy, "when_busy", when_busy), executor_options(executor, devices)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        runner = open_executor(opened, options)
        try:
            return cls(opened, runner, when_busy=chosen, filters=filters)
        except BaseException:
            runner.close()
            raise

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Release what the executor holds, and LoRAs, after the request that is running. Closing twice is allowed.

        In a process that was forked off after opening it does nothing: what is held is the other's.

        Raises:
            KontextError: A request's own `on_step` calls it.
        """
        if self._admission.is_forked():
            return
        with self._admission.enter(closing=True):
            self._admission.closed = True
            self.executor.close()
            self._flow.encodings.clear()
            self._adapters.forget()

    def load(self, progress: Progress | None = None) -> None:
        """Load every network that stays loaded now, so that the first request does not wait for it; see `residency`.

        Args:
            progress: What is told of each network, and its bytes.

        Raises:
            PlanError, BundleError, ExecutorError: A network cannot be loaded.
            BusyError, KontextError: A request is running and this was opened to refuse, or is closed.
        """
        with self._admission.enter():
            self._flow.loading.load(self.bundle.components, progress or Silent())

    def forget(self) -> None:
        """Empty the caches of prompts and references, so that the next request encodes its own.

        Raises:
            BusyError, KontextError: A request is running and this was opened to refuse, or is closed.
        """
        with self._admission.enter():
            self._flow.encodings.clear()

    def set_lora(self, loras: Iterable[LoraChoice | tuple[Path | str, float] | Path | str]) -> None:
        """Set the LoRAs of requests that name none: those that begin from now on, on any thread.

        Nothing is built or quantized anew, and what was recorded stays. Requests that run or wait keep what they had.

        Args:
            loras: Files, or (file, scale) of each; none at all for the model as it was exported. The ranks of all
                together are at most that of the bundle, and each is low-rank: what is not can be fused.

        Raises:
            LoraError: A file cannot be read, or swapped in; what was set stays.
            BundleError, OptionError: The bundle was exported without `lora_rank`; a scale is none.
        """
        self._adapters.chosen = self._adapters.choose(lora_choices(loras))

    @property
    def loras(self) -> tuple[LoraRecord, ...]:
        """The LoRAs of requests that name none, in the order that they were set in."""
        return self._adapters.chosen.used

    @property
    def residency(self) -> list[str]:
        """The lines that say what lies in the GPU's memory, or will: one per network, and the sum. A CPU has none."""
        plan = getattr(self.executor, "residency", None)
        return [] if plan is None else plan.describe()

    @property
    def lost(self) -> str:
        """The reason that nothing can be made any more although this is open, such as a lost GPU; "" while it can."""
        return self.executor.lost

    @property
    def filter_counts(self) -> tuple[FilterCount, ...]:
        """The counts of what each filter allowed and refused at each of its stages; what was refused is not kept."""
        return self._screen.counts

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
        previews: Previews | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Make the pictures that a request asks for. Several prompts or seeds give every combination, in one batch.

        Args:
            request: What is asked for.
            on_step: A function that is called after each step with the number of steps done and of all.
            cancel: An event that ends the request between two steps, before its encoders, or while it waits.
            debug_nan: True to check every component and step for NaN and infinity, each run by itself. This is slower.
            previews: How many pictures of what is to come are shown, and to whom; none where a filter looks at outputs.
            progress: What is told of each phase from the start: what is loaded, encoded, denoised and decoded.

        Returns:
            The pictures, prompts outermost and seeds innermost, with what made them and milliseconds per stage.

        Raises:
            RequestError: The request is one that the plans or the model do not take.
            ImageError: The reference cannot be read.
            ContentRefused: A filter refuses a prompt or a picture; of several pictures then none is handed out.
            Cancelled, BusyError: The request was cancelled, or refused.
            NotFiniteError: A component returned NaN or infinity.
            ExecutorError: A component could not be loaded or run, or there is not enough memory.
            PlanError, BundleError: A network is loaded now, and its file cannot be opened.
            BundleError, LoraError: There is a mask, solver or LoRA that the bundle, as it was exported, does not take.
            KontextError: This is closed, or a request's own `on_step` calls it.
        """
        for feature in request.features:
            self.bundle.require(feature)
        files, request = request.files, self._screen.admit(request, cancel)
        previews = None if self._screen.looks_at(Stage.OUTPUT) else previews
        prepared, loras = prepare(request, self.bundle.manifest.model), self._adapters.choose(request.chosen_loras)
        clock = Clock()
        watch = watching(prepared, previews, on_step=on_step, cancel=cancel, every_step=debug_nan, progress=progress)
        with self._admission.enter(cancel=cancel), clock.stage("total"):
            self._adapters.swap(loras, self.executor)
            made, made_by = self._flow.run(prepared, watch, clock), self.executor.name
        result = result_of(prepared, made, clock, self.bundle, executor=made_by, loras=loras.used, files=files)
        self._screen.release([(output.prompt, output.image) for output in result.outputs], cancel)
        return result

    def edit(
        self,
        image: ReferenceSource | Sequence[ReferenceSource],
        prompt: str | Sequence[str],
        **keywords: Unpack[EditKeywords],
    ) -> Result:
        """Edit a picture as a prompt says: `run` with a `Request` of these arguments.

        Args:
            image: The picture to edit: a path, an encoded file's bytes, a file that is open, a data URL, a PIL image,
                an array (h, w), (h, w, 3) or (h, w, 4) uint8, or the `Latents` of an earlier result. A list adds
                further references to it.
            prompt: An instruction, or several. Beyond the 512 tokens of T5 it is cut, with a PromptCutWarning.
            **keywords: Those of `Request` (`fit`, `references`, `mask`, `loras`), of `Masking` for its mask (`crop`,
                `feather`, `margin`), of `Sampling` (`steps`, `guidance`, `seed`, `size`, `noise`, `strength`, `solver`,
                `sigmas`, `step_mask`) and of `run` (`on_step`, `cancel`, `debug_nan`, `previews`, `progress`).

        Returns:
            One picture per prompt and seed, as `run` returns them.

        Raises:
            RequestError: An argument is out of range, or the plans or the model do not take it.
            ImageError: `image` is of a type that no picture can be read from, or cannot be read.
            KontextError: Whatever else `run` raises.
        """
        if image is None:
            raise ImageError("an edit needs a picture, not None; `generate` makes one from text alone")
        request, watch = request_of(prompt, keywords, image=image)
        return self.run(request, **watch)

    def generate(self, prompt: str | Sequence[str], **keywords: Unpack[GenerateKeywords]) -> Result:
        """Make a picture from a prompt alone: `run` with a `Request` of these arguments.

        Args:
            prompt: A description, or several. Beyond the 512 tokens of T5 it is cut, with a PromptCutWarning.
            **keywords: Those of `Sampling` (`steps`, `guidance`, `seed`, `size`, `noise`, `solver`, `sigmas`,
                `step_mask`), of `run` (`on_step`, `cancel`, `debug_nan`, `previews`, `progress`), and `loras`.

        Returns:
            One picture per prompt and seed, as `run` returns them.

        Raises:
            KontextError: What `run` raises: RequestError for what is out of range, or what plans or model do not take.
        """
        request, watch = request_of(prompt, keywords)
        return self.run(request, **watch)

    def session(self, image: Picture, **keywords: Unpack[SessionKeywords]) -> Session:
        """Begin a session of edits, each of the result before it; see `Session`.

        Args:
            image: The picture that the first turn edits.
            **keywords: Those of `Session`: `carry`, `fit`, `kept_bytes`.

        Raises:
            RequestError, ImageError: An argument is out of range, or the picture cannot be read.
        """
        return Session(self, image, **keywords)

    def open_session(self, path: Path | str, **keywords: Unpack[SessionKeywords]) -> Session:
        """Go on with a session that was saved; see `Session.open`.

        Args:
            path: The file.
            **keywords: Those of `Session`; what is left out is as it was.

        Raises:
            RequestError: The file cannot be read, or is no session.
        """
        return Session.open(self, path, **keywords)
