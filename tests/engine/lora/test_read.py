"""Files of every family change exactly the tensors that they should, by the amount that their own rules say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lora_cases import CASES
from lora_files import Case, model_shapes, random, wide, write_file

from kontext_trt.engine.lora.apply import apply_changes
from kontext_trt.engine.lora.changes import Change, LowRank, Place
from kontext_trt.engine.lora.families import FAMILIES
from kontext_trt.engine.lora.fit import check_fit
from kontext_trt.engine.lora.read import read_lora

SHAPES = {Place(part=part, tensor=name): shape for (part, name), shape in model_shapes().items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_family_is_applied_as_in_float64(case: Case, tmp_path: Path):
    read = read_lora(write_file(tmp_path / "lora.safetensors", case.tensors, case.metadata))
    assert read.family.startswith(case.family)
    assert read.unused == ()
    check_fit(read, SHAPES)
    changes: dict[Place, list[Change]] = {}
    for change in read.changes:
        changes.setdefault(change.place, []).append(change)
    assert {(place.part, place.tensor) for place in changes} == set(case.wanted)
    for user in (1.0, -0.6):
        for place, found in changes.items():
            base = random(place.tensor, *SHAPES[place])
            wanted = case.wanted[(place.part, place.tensor)](wide(base), user)
            made = apply_changes(base.copy(), [(found, user)])
            assert made.dtype == np.float32
            error = np.linalg.norm(wide(made) - wanted) / np.linalg.norm(wanted)
            assert error < 1e-6, (place, user)
            assert not np.allclose(wide(base), wanted, rtol=1e-3), "the case changes something"


def test_every_family_has_a_case():
    missing = [one.name for one in FAMILIES if not any(one.name.startswith(case.family) for case in CASES)]
    assert missing == []


def test_joined_ranks_are_parted(tmp_path: Path):
    """sd-scripts' split_qkv saves three LoRAs of rank 2 as one of rank 6: a swap needs two columns each, not six."""
    case = next(one for one in CASES if one.name == "kohya, split_qkv")
    read = read_lora(write_file(tmp_path / "lora.safetensors", case.tensors))
    assert [one.rank for one in read.changes if isinstance(one, LowRank)] == [2, 2, 2]
    assert {one.scale for one in read.changes if isinstance(one, LowRank)} == {0.5}
