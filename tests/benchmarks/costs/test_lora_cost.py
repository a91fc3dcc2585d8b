"""The LoRA that fusing is measured with changes what it should."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_files import DOUBLE, SINGLE, model_shapes

from kontext_trt.benchmarks.costs.lora_cost import lora_layers, row, write_lora
from kontext_trt.benchmarks.costs.measure import ProcessCost
from kontext_trt.engine.lora.changes import LowRank
from kontext_trt.engine.lora.read import read_lora

SHAPES = {name: shape for (part, name), shape in model_shapes().items() if part == "transformer"}


@pytest.mark.parametrize(("share", "blocks"), [(1.0, {"0", "1"}), (0.5, {"0"})])
def test_every_linear_of_the_blocks_is_changed(share: float, blocks: set[str], tmp_path: Path):
    layers = lora_layers(SHAPES, share)
    changed = write_lora(tmp_path / "lora.safetensors", layers, 3)
    read = read_lora(tmp_path / "lora.safetensors")
    wanted = {
        name
        for name, shape in SHAPES.items()
        if len(shape) == 2 and name.startswith((f"{DOUBLE}.", f"{SINGLE}.")) and name.split(".")[1] in blocks
    }
    assert {change.place.tensor for change in read.changes} == wanted
    assert {change.rank for change in read.changes if isinstance(change, LowRank)} == {3}
    assert changed == sum(SHAPES[name][0] * SHAPES[name][1] for name in wanted)


def test_a_row_has_seconds_per_gigabyte():
    cost = ProcessCost(
        seconds=9.0,
        processor_seconds=8.0,
        peak_anonymous_bytes=1_500_000_000,
        report={"seconds": 4.0, "written_bytes": 1},
    )
    made = row("x", cost, 2_000_000_000, 3_000_000_000)
    assert (made["seconds_per_GB"], made["peak_anonymous_GB"], made["disk_GB"]) == (2.0, 1.5, 3.0)
