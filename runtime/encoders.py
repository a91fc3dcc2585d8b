"""From a request to what its latents depend on: prompts and reference encoded, or found in the caches."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle import Bundle
from .cache import LruCache
from .clock import Clock
from .executor import Executor
from .flow import Conditions, require_finite
from .prompts import PromptTokenizer, warn_if_cut
from .request import Reference, Request
from .rope import rope_tables
from .schedule import noise_levels

Array = NDArray[np.float32]
PROMPTS_CACHED = 32
REFERENCES_CACHED = 8


class Encoders:
    """Text and image encoders with their caches. Each prompt and picture is encoded alone, so that a batch gives what
    its requests give one by one."""

    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self._model = bundle.manifest.model
        self._executor = executor
        self._tokenizers = {name: PromptTokenizer(*bundle.tokenizer(name)) for name in ("clip", "t5")}
        self._prompts: LruCache[str, tuple[Array, Array]] = LruCache(PROMPTS_CACHED)
        self._references: LruCache[bytes, Array] = LruCache(REFERENCES_CACHED)

    def conditions(self, request: Request, clock: Clock) -> Conditions:
        """Everything that the flow of a request depends on but the noise."""
        model = self._model
        texts = {prompt: self._text(prompt, clock) for prompt in request.prompts}
        reference = self._reference(request.reference, clock)
        grid = request.grid
        cos, sin = rope_tables(
            model.dims.text_length,
            grid,
            None if request.reference is None else request.reference.grid,
            model.rope_axes,
            model.rope_theta,
        )
        batch = len(request.jobs)
        return Conditions(
            pooled=np.concatenate([texts[prompt][0] for prompt, _ in request.jobs]),
            text=np.concatenate([texts[prompt][1] for prompt, _ in request.jobs]),
            reference=np.repeat(reference, batch, axis=0),
            guidance=np.full(batch, request.guidance, np.float32),
            sigmas=noise_levels(request.steps, grid[0] * grid[1], model.flow),
            cos=cos,
            sin=sin,
        )

    def clear(self) -> None:
        self._prompts.clear()
        self._references.clear()

    def _text(self, prompt: str, clock: Clock) -> tuple[Array, Array]:
        """Pooled (1, pooled) and text (1, 512, text)."""
        return self._prompts.get(
            prompt,
            lambda: (self._encode(prompt, "clip", "pooled", clock), self._encode(prompt, "t5", "text", clock)),
        )

    def _encode(self, prompt: str, name: str, output: str, clock: Clock) -> Array:
        with clock.stage("tokenize"):
            tokenizer = self._tokenizers[name]
            ids, cut = tokenizer(prompt)
        warn_if_cut(cut, name, tokenizer.length)
        with clock.stage("text"):
            values = self._executor.fetch(self._executor.run(name, {"input_ids": ids})[output])
        require_finite(values, name)
        return values

    def _reference(self, reference: Reference | None, clock: Clock) -> Array:
        """Packed latents (1, m, channels), m = 0 without a reference."""
        if reference is None:
            return np.zeros((1, 0, self._model.dims.channels), np.float32)
        pixels = reference.pixels

        def encode() -> Array:
            with clock.stage("encode"):
                values = self._executor.fetch(self._executor.run("vae_encoder", {"image": pixels[None]})["reference"])
            require_finite(values, "vae_encoder")
            return values

        key = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        return self._references.get(key, encode)
