"""The session: opens a bundle, edits and generates pictures."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.bundle import Bundle
from ..engine.components import COMPONENTS
from ..engine.errors import KontextError, RequestError
from .cache import LruCache
from .executor import Executor
from .flow import Conditions, OnStep, condition, denoise, require_finite
from .noise import starting_noise
from .onnxruntime_executor import OnnxRuntimeExecutor, OnnxRuntimeOptions
from .pictures import Picture, read_picture
from .prompts import PromptTokenizer, check_prompt, warn_if_cut
from .result import Output, Result
from .rope import rope_tables
from .schedule import noise_levels
from .sizes import Fit, Placement, Size, check_size, nearest_size, place, token_grid

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]
PROMPTS_CACHED = 32
REFERENCES_CACHED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A request whose arguments have been checked. `reference` is placed pixels (H, W, 3) uint8."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    steps: int
    guidance: float
    reference: NDArray[np.uint8] | None
    placement: Placement | None

    @property
    def jobs(self) -> list[tuple[str, int]]:
        return [(prompt, seed) for prompt in self.prompts for seed in self.seeds]


class _Clock:
    """Milliseconds a stage."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.steps: list[float] = []
        self._last_step = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._last_step = time.perf_counter()
        yield
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    def step(self) -> None:
        now = time.perf_counter()
        self.steps.append(1e3 * (now - self._last_step))
        self._last_step = now


class Kontext:
    """A bundle, opened to run. A context manager; calls from several threads take turns."""

    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self.bundle = bundle
        self.executor = executor
        self._fingerprint = bundle.fingerprint
        self._tokenizers = {name: PromptTokenizer(*bundle.tokenizer(name)) for name in ("clip", "t5")}
        self._prompts: LruCache[str, tuple[Array, Array]] = LruCache(PROMPTS_CACHED)
        self._references: LruCache[str, Array] = LruCache(REFERENCES_CACHED)
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, bundle: Bundle | Path | str, *, executor: OnnxRuntimeOptions | None = None) -> Kontext:
        """Open a bundle. Networks are loaded when they are first needed; `load` does it now.

        Raises BundleError if the bundle is not sound, ExecutorError or MissingDependencyError if nothing can run it.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return cls(opened, OnnxRuntimeExecutor(opened, executor))

    def __enter__(self) -> Kontext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what the executor holds. Closing twice is allowed."""
        with self._lock:
            self._closed = True
            self.executor.close()
            self._prompts.clear()
            self._references.clear()

    def load(self) -> None:
        """Load every network now, so that the first request does not wait for it."""
        with self._lock:
            for name in COMPONENTS:
                self.executor.load(name)

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
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
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
            on_step: called after each step with steps done and steps in all.
            cancel: an event that ends the request between two steps.

        Raises RequestError for an argument out of range, ImageError for an unusable picture, Cancelled, NotFiniteError,
        ExecutorError.
        """
        original = read_picture(image)
        target = nearest_size(original.size, self.sizes)
        placed, placement = place(original, target, _fit(fit))
        logger.info("reference %s", placement.describe())
        request = self._check(prompt, steps, guidance, seed, size or target, np.asarray(placed), placement)
        return self._serve(request, on_step, cancel)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        size: Size | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | Sequence[int] | None = None,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Make a picture from a prompt alone. Arguments and errors as in `edit`; the default size is the squarest trained."""
        request = self._check(prompt, steps, guidance, seed, size or nearest_size((1, 1), self.sizes), None, None)
        return self._serve(request, on_step, cancel)

    def _check(
        self,
        prompt: str | Sequence[str],
        steps: int | None,
        guidance: float | None,
        seed: int | Sequence[int] | None,
        size: Size,
        reference: NDArray[np.uint8] | None,
        placement: Placement | None,
    ) -> _Request:
        flow = self.bundle.manifest.model.flow
        prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
        seeds = (secrets.randbits(32),) if seed is None else (seed,) if isinstance(seed, int) else tuple(seed)
        steps = flow.steps if steps is None else steps
        guidance = flow.guidance if guidance is None else float(guidance)
        if not prompts or not seeds:
            raise RequestError(f"a request needs a prompt and a seed at least, not {len(prompts)} and {len(seeds)}")
        if not isinstance(steps, int) or steps < 1:
            raise RequestError(f"steps must be a whole number of at least 1, not {steps!r}")
        if not np.isfinite(guidance) or guidance < 0:
            raise RequestError(f"guidance must be a number of at least 0, not {guidance}")
        for value in seeds:
            if not isinstance(value, int) or not 0 <= value < 2**64:
                raise RequestError(f"a seed must be a whole number from 0 to 2^64 - 1, not {value!r}")
        return _Request(
            prompts=tuple(check_prompt(text) for text in prompts),
            seeds=seeds,
            size=check_size(size),
            steps=steps,
            guidance=guidance,
            reference=reference,
            placement=placement,
        )

    def _serve(self, request: _Request, on_step: OnStep | None, cancel: threading.Event | None) -> Result:
        with self._lock:
            if self._closed:
                raise KontextError("this Kontext is closed; open the bundle again")
            clock = _Clock()
            start = time.perf_counter()
            conditions = self._conditions(request, clock)
            with clock.stage("condition"):
                conditioned = condition(self.executor, conditions)
            noise = self._noise(request)

            def stepped(done: int, of: int) -> None:
                clock.step()
                if on_step is not None:
                    on_step(done, of)

            with clock.stage("denoise"):
                latents = denoise(self.executor, conditions, conditioned, noise, on_step=stepped, cancel=cancel)
            with clock.stage("decode"):
                pixels = self._decode(latents, request)
            clock.milliseconds["total"] = 1e3 * (time.perf_counter() - start)
        outputs = tuple(
            Output(image=Image.fromarray(picture), prompt=prompt, seed=seed)
            for picture, (prompt, seed) in zip(pixels, request.jobs, strict=True)
        )
        return Result(
            outputs=outputs,
            size=request.size,
            reference=request.placement,
            steps=request.steps,
            guidance=request.guidance,
            milliseconds=clock.milliseconds,
            step_milliseconds=tuple(clock.steps),
            bundle=self._fingerprint,
            executor=self.executor.name,
        )

    def _conditions(self, request: _Request, clock: _Clock) -> Conditions:
        model = self.bundle.manifest.model
        texts = {
            prompt: self._prompts.get(prompt, lambda p=prompt: self._encode_prompt(p, clock))
            for prompt in request.prompts
        }
        batch = len(request.jobs)
        if request.reference is None:
            reference, reference_grid = np.zeros((1, 0, model.dims.channels), np.float32), None
        else:
            reference_grid = request.reference.shape[0] // 16, request.reference.shape[1] // 16
            reference = self._encode_reference(request.reference, clock)
        grid = token_grid(request.size)
        cos, sin = rope_tables(model.dims.text_length, grid, reference_grid, model.rope_axes, model.rope_theta)
        return Conditions(
            pooled=np.concatenate([texts[prompt][0] for prompt, _ in request.jobs]),
            text=np.concatenate([texts[prompt][1] for prompt, _ in request.jobs]),
            reference=np.repeat(reference, batch, axis=0),
            guidance=np.full(batch, request.guidance, np.float32),
            sigmas=noise_levels(request.steps, grid[0] * grid[1], model.flow),
            cos=cos,
            sin=sin,
        )

    def _encode_prompt(self, prompt: str, clock: _Clock) -> tuple[Array, Array]:
        """Pooled (1, pooled) and text (1, 512, text), both float32."""
        encoded: list[Array] = []
        for name, output in (("clip", "pooled"), ("t5", "text")):
            with clock.stage("tokenize"):
                tokenizer = self._tokenizers[name]
                ids, cut = tokenizer(prompt)
            warn_if_cut(cut, name, tokenizer.length)
            with clock.stage("text"):
                values = self.executor.fetch(self.executor.run(name, {"input_ids": ids})[output])
            require_finite(values, name)
            encoded.append(values)
        return encoded[0], encoded[1]

    def _encode_reference(self, pixels: NDArray[np.uint8], clock: _Clock) -> Array:
        """Packed latents (1, m, channels) of a placed picture."""

        def encode() -> Array:
            with clock.stage("encode"):
                outputs = self.executor.run("vae_encoder", {"image": pixels[None]})
                reference = self.executor.fetch(outputs["reference"])
            require_finite(reference, "vae_encoder")
            return reference

        key = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        return self._references.get(key, encode)

    def _noise(self, request: _Request) -> Array:
        grid, channels = token_grid(request.size), self.bundle.manifest.model.dims.channels
        precision = self.bundle.graph("denoiser").precision
        return np.concatenate([starting_noise(seed, grid, channels, precision) for _, seed in request.jobs])

    def _decode(self, latents: Array, request: _Request) -> NDArray[np.uint8]:
        """(b, H, W, 3). One picture at a time: a decoder's activations are the largest of all."""
        grid = token_grid(request.size)
        pictures: list[NDArray[np.uint8]] = []
        for one in latents:
            outputs = self.executor.run("vae_decoder", {"latents": one.reshape(1, *grid, -1)})
            pictures.append(self.executor.fetch(outputs["image"])[0])
        return np.stack(pictures)


def _fit(fit: Fit | str) -> Fit:
    try:
        return Fit(fit)
    except ValueError:
        raise RequestError(f"fit must be one of {', '.join(fit.value for fit in Fit)}, not {fit!r}") from None
