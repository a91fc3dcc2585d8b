"""The case, asked of a session."""

from __future__ import annotations

from pathlib import Path

from ...runtime.kontext import Kontext
from ...runtime.result import Result
from .records import Case


def ask(kontext: Kontext, case: Case, image: Path | None) -> Result:
    """Raises what `Kontext.edit` and `Kontext.generate` do."""
    seeds = tuple(range(case.seed, case.seed + case.batch))
    if image is None:
        return kontext.generate(case.prompt, size=case.size, steps=case.steps, guidance=case.guidance, seed=seeds)
    return kontext.edit(image, case.prompt, size=case.size, steps=case.steps, guidance=case.guidance, seed=seeds)
