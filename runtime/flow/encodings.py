"""Turns a request into what its tensors start from: prompts and reference from the caches, or for the encoders."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.components import COMPONENTS
from ..inputs.prepared import PreparedRequest
from ..inputs.prompts import PromptTokenizer, warn_if_cut
from ..inputs.references import MAX_REFERENCES, Reference
from .rope import rope_tables
from .schedule import request_levels
from .solvers import velocity_weights
from .tensors import RequestShape, blends, image_name, reference_name
from .workspace import Array

PROMPTS_CACHED = 32
REFERENCES_CACHED = 2 * MAX_REFERENCES


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Holds a request's shape, its input tensors but for the noise, and what has to be encoded."""

    shape: RequestShape
    inputs: dict[str, Array]
    new_prompts: tuple[int, ...]
    new_references: tuple[int, ...]


class Encodings:
    """Keeps what was encoded before: text by prompt, references by their pixels.

    Each is encoded alone, so that a batch gives what its requests give one by one.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._tokenizers = {
            name: PromptTokenizer(*bundle.tokenizer(name))
            for name, component in COMPONENTS.items()
            if component.tokenizer
        }
        self._prompts: LRUCache[str, tuple[Array, Array]] = LRUCache(PROMPTS_CACHED)
        self._references: LRUCache[bytes, Array] = LRUCache(REFERENCES_CACHED)
        self._cuts: LRUCache[str, dict[str, str]] = LRUCache(PROMPTS_CACHED)  # by prompt and tokenizer

    def tokenize(self, request: PreparedRequest) -> dict[str, Array]:
        """Return the token ids of the prompts that have to be encoded, by tensor; nothing if there are none.

        There is one row per prompt of the request; those that are encoded already are zero. Warns of every prompt that
        is cut, encoded now or before.
        """
        new = tuple(index for index, prompt in enumerate(request.prompts) if self._prompts.get(prompt) is None)
        cuts = {prompt: dict(self._cuts.get(prompt) or {}) for prompt in request.prompts}
        ids = {f"{name}_ids": self._ids(name, request.prompts, new, cuts) for name in self._tokenizers if new}
        for prompt, by_tokenizer in cuts.items():
            self._cuts[prompt] = by_tokenizer
            for name, cut in by_tokenizer.items():
                warn_if_cut(cut, name, self._tokenizers[name].length)
        return ids

    def conditions(self, request: PreparedRequest, token_ids: dict[str, Array]) -> Conditions:
        """Return what a request's tensors start from. `token_ids` are as `tokenize` gives them."""
        shape = RequestShape(
            num_prompts=len(request.prompts),
            num_seeds=len(request.seeds),
            grid=request.grid,
            references=tuple(reference.grid for reference in request.references),
            num_steps=request.num_steps,
            masked=request.mask is not None,
        )
        known = [self._prompts.get(prompt) for prompt in request.prompts]
        new = tuple(index for index, encoding in enumerate(known) if encoding is None)
        inputs = schedule_inputs(self._bundle, shape, request) | token_ids
        if len(new) < len(known):
            inputs |= self._cached_text(known)
        encoded = [self.encoded(reference) for reference in request.references]
        for number, (reference, latents) in enumerate(zip(request.references, encoded, strict=True)):
            if latents is not None:
                inputs[reference_name(number)] = latents
            else:
                assert reference.pixels is not None
                inputs[image_name(number)] = reference.pixels[None]
        return Conditions(
            shape=shape,
            inputs=inputs,
            new_prompts=new,
            new_references=tuple(number for number, latents in enumerate(encoded) if latents is None),
        )

    def encoded(self, reference: Reference) -> Array | None:
        """Return a reference's latents (1, m, channels) float32 if they are known: given, or encoded before."""
        return self._references.get(reference.key) if reference.latents is None else reference.latents[None]

    def _cached_text(self, known: list[tuple[Array, Array] | None]) -> dict[str, Array]:
        """Return the text that is known, by tensor.

        Rows of what is to be encoded are zero; the encoders write over them.
        """
        dims = self._bundle.manifest.model.dims
        pooled = np.zeros((len(known), dims.pooled_width), np.float32)
        text = np.zeros((len(known), dims.text_length, dims.text_width), np.float32)
        for row, encoding in enumerate(known):
            if encoding is not None:
                pooled[row], text[row] = encoding
        return {"prompt_pooled": pooled, "prompt_text": text}

    def _ids(
        self, name: str, prompts: tuple[str, ...], new: tuple[int, ...], cuts: dict[str, dict[str, str]]
    ) -> NDArray[np.int32]:
        """Return rows of ids, and note in `cuts`, by prompt and tokenizer, what of the new ones is cut."""
        tokenizer = self._tokenizers[name]
        rows = np.zeros((len(prompts), tokenizer.length), np.int32)
        for index in new:
            ids, cut = tokenizer(prompts[index])
            cuts[prompts[index]][name] = cut
            rows[index] = ids[0]
        return rows

    def keep_text(self, request: PreparedRequest, prompt: int, outputs: dict[str, Array]) -> None:
        """Keep what the encoders gave for one of a request's prompts."""
        pooled, text = outputs["prompt_pooled"], outputs["prompt_text"]
        # a row alone: the others are not to stay with it
        self._prompts[request.prompts[prompt]] = (
            (pooled[0], text[0]) if len(text) == 1 else (pooled[prompt].copy(), text[prompt].copy())
        )

    def keep_reference(self, request: PreparedRequest, number: int, outputs: dict[str, Array]) -> None:
        """Keep what the encoder gave for one of a request's references."""
        self._references[request.references[number].key] = outputs[reference_name(number)]

    def clear(self) -> None:
        self._prompts.clear()
        self._cuts.clear()
        self._references.clear()


def schedule_inputs(bundle: Bundle, shape: RequestShape, request: PreparedRequest) -> dict[str, Array]:
    """Return the inputs that depend on sizes, noise levels, solver and guidance alone, for the shape of a request."""
    model = bundle.manifest.model
    sigmas = request_levels(request, model.flow)
    step_sizes = np.diff(sigmas)
    cos, sin = rope_tables(
        model.dims.text_length, shape.grid, shape.references, model.rope_axes, model.rope_theta, request.method
    )
    inputs = {
        "timesteps": sigmas[:-1],
        "step_sizes": step_sizes[:, None],
        "guidance": np.full(shape.batch, request.guidance, np.float32),
        "cos": cos,
        "sin": sin,
    }
    if blends(bundle):
        tokens = (shape.batch, prod(shape.grid), model.dims.channels)
        inputs |= {
            "velocity_weights": velocity_weights(request.solver, step_sizes),
            "next_sigmas": sigmas[1:, None],
            "zeros": np.zeros(tokens, np.float32),
        }
    return inputs
