"""Tensors that are decoded some rows at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kontext_trt.export.checkpoint.decoded import DecodedView

VALUES = torch.arange(60.0).reshape(12, 5)


def decoded(calls: list[tuple[int, int]]) -> DecodedView:
    def decode(start: int, stop: int) -> torch.Tensor:
        calls.append((start, stop))
        return VALUES[start:stop]

    return DecodedView(path=Path("x"), dtype="BF16", shape=(12, 5), decode=decode, num_rows=12)


def test_it_is_decoded_in_whole_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kontext_trt.export.checkpoint.views.CHUNK_ITEMS", 23)
    calls: list[tuple[int, int]] = []
    assert torch.equal(decoded(calls).read(), VALUES)
    assert calls == [(0, 4), (4, 8), (8, 12)]


def test_rows_of_rows_and_other_shapes():
    view = decoded([]).rows(3, 11)
    assert torch.equal(view.read(), VALUES[3:11])
    assert torch.equal(view.rows(2, 4).read(), VALUES[5:7])
    assert torch.equal(view.rows(2, 4).reshaped((2, 5, 1, 1)).read(), VALUES[5:7, :, None, None])
    assert (view.num_items, view.size_bytes) == (40, 80)
