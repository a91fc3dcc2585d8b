"""A validation's report: what counts as solved, and what its sheet shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kontext_trt.benchmarks.quality.editbench.samples import TEXT_TO_IMAGE, WEIGHTS
from kontext_trt.benchmarks.sheets import Layout, Sheet
from kontext_trt.examples.small_kontext.stream import Texts
from kontext_trt.examples.small_kontext.validation import Validation


class Encoder:
    """Stands for a tokenizer, whose ids a sheet does not need."""

    def encode_batch(self, texts: list[str]) -> list[Any]:
        return [type("Encoding", (), {"ids": [0]}) for _ in texts]


def test_a_sheet_shows_two_requests_of_each_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Texts, "encoders", lambda _: (Encoder(), Encoder()))
    laid_out: list[Layout] = []

    def draw(sheet: Sheet) -> Image.Image:
        laid_out.append(sheet.lay_out())
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(Sheet, "draw", draw)
    validation = Validation(3, Texts(clip="", t5=""), torch.device("cpu"))
    made = validation.targets.numpy().copy()
    made[::3] = 255 - made[::3]  # the first of each task
    report = validation._judge(made)
    assert set(report.solved) == set(WEIGHTS)
    assert all(share == pytest.approx(2 / 3) for share in report.solved.values())
    (layout,) = laid_out
    assert [right for right, _ in layout.marks] == [False, True] * len(WEIGHTS)
    assert layout.said.count("known answer") == 2
    first = next(sample for sample in validation.samples if sample.task == "recolour")
    assert f"recolour: {first.instruction}" in layout.said
    assert len(layout.pictures) == 2 * (4 * len(WEIGHTS) - len(WEIGHTS)) - 2, "no reference of what is from text alone"
    assert TEXT_TO_IMAGE in WEIGHTS
    assert np.isfinite(report.outside_db)
