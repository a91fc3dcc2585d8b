"""Makes the measured case a request."""

from __future__ import annotations

from PIL import Image

from ...engine.lora.choice import LoraChoice
from ...runtime.inputs.request import Request, Sampling
from .records import Case


def request_of(case: Case, image: Image.Image | None) -> Request:
    """Return the request of a case; `image` is decoded, as peers get it. Raises what `Request` and `Sampling` do."""
    sampling = Sampling(size=case.size, steps=case.steps, guidance=case.guidance, seed=case.seeds)
    loras = tuple(LoraChoice.parse(text) for text in case.loras)
    return Request(prompt=case.prompt, image=image, sampling=sampling, loras=loras)
