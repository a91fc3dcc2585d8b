"""Asks the case of an open bundle."""

from __future__ import annotations

from PIL import Image

from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Result
from .records import Case


def ask(kontext: Kontext, case: Case, image: Image.Image | None) -> Result:
    """Run a case's request; `image` is decoded, as peers get it.

    Raises:
        KontextError: What `Kontext.edit` and `Kontext.generate` raise.
    """
    if image is None:
        return kontext.generate(case.prompt, size=case.size, steps=case.steps, guidance=case.guidance, seed=case.seeds)
    return kontext.edit(image, case.prompt, size=case.size, steps=case.steps, guidance=case.guidance, seed=case.seeds)
