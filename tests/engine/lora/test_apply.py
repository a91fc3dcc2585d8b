"""Several files, and weights of more rows than are changed at a time."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import random, wide

from kontext_trt.engine.lora import apply
from kontext_trt.engine.lora.apply import apply_changes
from kontext_trt.engine.lora.changes import Difference, LowRank, Magnitude, Place
from kontext_trt.engine.lora.products import Hadamard, Kronecker, RowsOf

PLACE = Place(part="transformer", tensor="proj_out.weight")


def change(name: str, rank: int = 3) -> LowRank:
    return LowRank(place=PLACE, down=random(f"{name}d", rank, 32), up=random(f"{name}u", 40, rank), scale=0.5)


@pytest.mark.parametrize("rows", [7, 1024])
def test_files_are_summed_whatever_the_rows_at_a_time(rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apply, "ROWS", rows)
    base, one, two = random("base", 40, 32), change("one"), change("two", 5)
    product = Kronecker(small=random("small", 5, 4), large=random("large", 8, 8))
    made = apply_changes(
        base.copy(), [([one, Difference(place=PLACE, values=product, scale=1.5, kind="LoKr")], 1.0), ([two], -2.0)]
    )
    wanted = wide(base) + 0.5 * wide(one.up) @ wide(one.down) - wide(two.up) @ wide(two.down)
    wanted += 1.5 * np.kron(wide(product.small), wide(product.large))
    assert np.abs(made - wanted).max() < 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("axis", [0, 1])
def test_norms_are_summed_whatever_the_rows_at_a_time(axis: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apply, "ROWS", 7)
    base, norms = random("base", 40, 32), np.abs(random("norms", *((1, 32) if axis == 0 else (40, 1)))) + 1
    made = apply_changes(base.copy(), [([Magnitude(place=PLACE, values=norms)], 1.0)])
    assert np.allclose(np.linalg.norm(wide(made), axis=axis, keepdims=True), norms, rtol=1e-6)


def test_a_row_of_zeros_stays_one():
    """Its norm cannot be divided by; PEFT makes NaN of it."""
    made = apply_changes(
        np.zeros((2, 3), np.float32), [([Magnitude(place=PLACE, values=np.ones((2, 1), np.float32))], 1.0)]
    )
    assert np.array_equal(made, np.zeros((2, 3)))


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (3, 5), (5, 7), (11, 12)])
def test_rows_of_factors_are_those_of_the_whole(start: int, stop: int):
    kron = Kronecker(small=random("a", 3, 2), large=random("b", 4, 5))
    whole = np.kron(kron.small, kron.large)
    assert np.array_equal(kron.rows(start, stop), whole[start:stop])
    hada = Hadamard(ups=(random("c", 12, 2), random("d", 12, 2)), downs=(random("e", 2, 5), random("f", 2, 5)))
    assert np.allclose(
        hada.rows(start, stop), ((hada.ups[0] @ hada.downs[0]) * (hada.ups[1] @ hada.downs[1]))[start:stop]
    )
    part = RowsOf(whole=kron, first=2, last=12)
    assert part.shape == (10, 10)
    assert np.array_equal(part.rows(1, 4), whole[3:6])
