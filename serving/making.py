"""Makes pictures for requests: waits for turns, runs in the thread, and tells what became of them."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from PIL import Image

from ..engine.errors import CheckpointError
from ..engine.lora.choice import LoraChoice
from ..engine.progress import Progress
from ..runtime.flow.previews import Previews
from ..runtime.flow.run import OnStep
from ..runtime.inputs.prompts import PromptCutWarning
from ..runtime.inputs.references import ReferenceSource
from ..runtime.inputs.request import Request, Sampling
from ..runtime.keywords import TurnKeywords
from ..runtime.outputs.result import Result
from ..runtime.runner import Runner
from ..runtime.session import Session
from .desk import Desk
from .health import Health
from .loras import lora_refusal
from .metrics import Metrics
from .turns import Place
from .work import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Holds a picture that was made, and what a client is told of it.

    Attributes:
        image: The picture.
        seed: The seed of its noise.
        usage: The tokens of text, references and picture, as OpenAI counts them.
        warnings: What the client should know, such as the end of a prompt that did not fit.
        turn: The number of the session's turn, None outside one.
        session: The session that has the turn, None outside one.
        request: What made it, as `Result.request` says.
        inputs: What it was made from, what was edited first.
    """

    image: Image.Image = field(repr=False)
    seed: int | None
    usage: dict[str, Any]
    warnings: tuple[str, ...]
    turn: int | None = None
    session: Session | None = field(default=None, repr=False)
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    inputs: tuple[ReferenceSource, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Says which picture is to be made.

    Attributes:
        prompt: What to do.
        pictures: Encoded pictures: what is edited and further references; of a session the references alone.
        mask: An encoded mask, None for none.
        sampling: How it is drawn.
        session: The session whose picture is edited, None outside one.
        of: The turn of it whose result is edited, None for the current one.
        previews: What is shown on the way, None for nothing.
        on_step: A function that is told of each step, in the thread.
        loras: The LoRAs that it is made with, None for those that are set.
    """

    prompt: str
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    mask: bytes | None = field(default=None, repr=False)
    sampling: Sampling = field(default_factory=Sampling)
    session: Session | None = None
    of: int | None = None
    previews: Previews | None = None
    on_step: OnStep | None = None
    loras: tuple[LoraChoice, ...] | None = None

    def seeded(self, seeds: Sequence[int]) -> Order:
        """Return the same with other seeds, a picture for each."""
        return replace(self, sampling=replace(self.sampling, seed=tuple(seeds)))

    def request(self) -> Request:
        """Return the request outside a session. Raises RequestError for what no request may be."""
        return Request(
            prompt=self.prompt,
            image=list(self.pictures) or None,
            sampling=self.sampling,
            mask=self.mask,
            loras=self.loras,
        )


class Observed:
    """Runs requests as another runner does, counts them, and remembers the last result of its one thread."""

    def __init__(self, runner: Runner, metrics: Metrics) -> None:
        self.bundle = runner.bundle
        self._runner, self._metrics = runner, metrics
        self.last: Result | None = None

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
        """Make the pictures that a request asks for, as `Kontext.run` does."""
        start = time.perf_counter()
        self.last = self._runner.run(
            request, on_step=on_step, cancel=cancel, debug_nan=debug_nan, previews=previews, progress=progress
        )
        self._metrics.made(self.last, time.perf_counter() - start)
        return self.last


class Maker:
    """Makes one picture at a time.

    Args:
        runner: Who runs requests; sessions are of it, too.
        worker: Whose thread it does that in.
        health: What says whether pictures can be made at all, when the turn of one has come.
        desk: Where pictures wait for a person, None if they do not.
        hides_previews: Whether no picture on the way is shown.
    """

    def __init__(
        self, runner: Observed, worker: Worker, health: Health, *, desk: Desk | None, hides_previews: bool
    ) -> None:
        self.runner, self.desk = runner, desk
        self._worker, self._health, self._hides_previews = worker, health, hides_previews

    async def make(self, place: Place, order: Order) -> tuple[Made, ...]:
        """Wait for a turn, make a picture for each seed, and wait until a person approves where one is to.

        A session is not touched before that: the turn is made in a branch of it.

        Raises:
            Refusal: The server stops before the first turn, has lost what it computes with before this one, or a LoRA
                cannot be used.
            KontextError: What the runtime raises, or ContentRefused by a person.
        """
        if self._hides_previews:
            order = replace(order, previews=None)
        if self.desk is not None and order.session is not None:
            order = replace(order, session=order.session.branch())
        async with place.turn():
            self._health.check()  # whoever had the turn before may have lost the device
            mades = await self._worker.run(lambda cancel: self._make(order, cancel))
        if self.desk is not None:
            await self.desk.approve([(made.image, order.prompt) for made in mades])
        return mades

    def _make(self, order: Order, cancel: threading.Event) -> tuple[Made, ...]:
        try:
            return self._made(order, cancel)
        except CheckpointError as error:  # a bundle's checkpoint was read long ago
            raise lora_refusal(error, order.loras) from error

    def _made(self, order: Order, cancel: threading.Event) -> tuple[Made, ...]:
        with warnings.catch_warnings(record=True) as caught:  # the only thread that changes filters
            warnings.simplefilter("always", PromptCutWarning)
            if order.session is None:
                result = self.runner.run(order.request(), cancel=cancel, previews=order.previews, on_step=order.on_step)
                pictures = [(output.image, output.seed, result.request(output)) for output in result.outputs]
                turn, inputs = None, order.pictures
            else:
                inputs = (_edited(order.session, order.of), *order.pictures)
                made = order.session.edit(order.prompt, **_turn(order, cancel))
                pictures, turn = [(made.picture(), made.seed, made.request)], made.number
        last = self.runner.last
        assert last is not None
        words = tuple(str(one.message) for one in caught if issubclass(one.category, PromptCutWarning))
        return tuple(
            Made(
                image=image,
                seed=seed,
                usage=_usage(last),
                warnings=words,
                turn=turn,
                session=order.session,
                request=request,
                inputs=inputs,
            )
            for image, seed, request in pictures
        )


def _edited(session: Session, of: int | None) -> Image.Image:
    """Return the picture that a turn edits. Raises RequestError if it is not there."""
    looked_at = session.branch()
    if of is not None:
        looked_at.go_to(of)
    return looked_at.image


def _turn(order: Order, cancel: threading.Event) -> TurnKeywords:
    """Return what a session is asked for; what nobody said is left out, since some of it speaks against latents."""
    sampling = order.sampling
    given: dict[str, Any] = {
        "of": order.of,
        "beside": order.pictures or None,
        "mask": order.mask,
        "seed": sampling.seed,
        "steps": sampling.steps,
        "solver": sampling.solver,
        "sigmas": sampling.sigmas,
        "step_mask": sampling.step_mask,
        "guidance": sampling.guidance,
        "size": sampling.size,
        "cancel": cancel,
        "previews": order.previews,
        "on_step": order.on_step,
        "loras": order.loras,
    }
    return cast(TurnKeywords, {name: value for name, value in given.items() if value is not None})


def _usage(result: Result) -> dict[str, Any]:
    tokens = result.tokens
    images, text = sum(tokens.references), tokens.text
    return {
        "input_tokens": images + text,
        "input_tokens_details": {"image_tokens": images, "text_tokens": text},
        "output_tokens": tokens.target,
        "total_tokens": tokens.total,
    }
