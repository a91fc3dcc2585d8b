"""What was encoded before is found again, until more than is kept was used since."""

from __future__ import annotations

import numpy as np
import pytest

from kontext_trt import Bundle
from kontext_trt.runtime.flow.encodings import PROMPTS_CACHED, REFERENCES_CACHED, Encodings
from kontext_trt.runtime.inputs.placement import Fit, place
from kontext_trt.runtime.inputs.prepared import PreparedRequest
from kontext_trt.runtime.inputs.references import Reference

SIZE = (32, 32)


@pytest.fixture
def encodings(bundle: Bundle) -> Encodings:
    return Encodings(bundle)


def encode(encodings: Encodings, bundle: Bundle, prompt: str, reference: Reference | None = None) -> tuple[bool, bool]:
    """Serve a request with made-up encodings: whether prompt and reference had to be encoded."""
    request = PreparedRequest(
        prompts=(prompt,),
        seeds=(0,),
        size=SIZE,
        steps=1,
        guidance=2.5,
        references=() if reference is None else (reference,),
    )
    found = encodings.conditions(request, encodings.tokenize(request))
    dims = bundle.manifest.model.dims
    if found.new_prompts:
        keep_text(encodings, request, dims.pooled_width, (dims.text_length, dims.text_width))
    if found.new_references:
        encodings.keep_reference(request, 0, {"reference_0": np.zeros((1, 4, dims.channels), np.float32)})
    return bool(found.new_prompts), bool(found.new_references)


def keep_text(encodings: Encodings, request: PreparedRequest, pooled: int, text: tuple[int, int]) -> None:
    outputs = {"prompt_pooled": np.zeros((1, pooled), np.float32), "prompt_text": np.zeros((1, *text), np.float32)}
    encodings.keep_text(request, 0, outputs)


def test_the_prompts_used_last_are_kept(encodings: Encodings, bundle: Bundle):
    prompts = [f"prompt {number}" for number in range(PROMPTS_CACHED)]
    assert PROMPTS_CACHED == 32
    assert all(encode(encodings, bundle, prompt)[0] for prompt in prompts)
    assert not any(encode(encodings, bundle, prompt)[0] for prompt in prompts)
    assert not encode(encodings, bundle, prompts[0])[0], "used again, so the second is the oldest"
    assert encode(encodings, bundle, "one more")[0]
    assert not encode(encodings, bundle, prompts[0])[0]
    assert encode(encodings, bundle, prompts[1])[0]


def test_the_references_used_last_are_kept(encodings: Encodings, bundle: Bundle, picture):
    references = []
    for seed in range(REFERENCES_CACHED + 1):
        placed, placement = place(picture(*SIZE, seed=seed), SIZE, Fit.RESIZE)
        references.append(Reference(pixels=np.asarray(placed), placement=placement))
    assert REFERENCES_CACHED == 32
    *kept, more = references
    assert all(encode(encodings, bundle, "x", reference)[1] for reference in kept)
    assert not encode(encodings, bundle, "x", kept[0])[1]
    assert encode(encodings, bundle, "x", more)[1]
    assert not encode(encodings, bundle, "x", kept[0])[1]
    assert encode(encodings, bundle, "x", kept[1])[1]


def test_nothing_is_left_after_clearing(encodings: Encodings, bundle: Bundle):
    assert encode(encodings, bundle, "x")[0]
    assert not encode(encodings, bundle, "x")[0]
    encodings.clear()
    assert encode(encodings, bundle, "x")[0]
