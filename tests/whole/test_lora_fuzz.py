"""Whatever a file says, reading it ends well or in this project's own errors, and what was read can be applied."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_cases import CASES
from lora_files import model_shapes, write_file

from kontext_trt.engine.errors import KontextError
from kontext_trt.engine.lora.apply import apply_changes
from kontext_trt.engine.lora.changes import Place
from kontext_trt.engine.lora.fit import check_fit
from kontext_trt.engine.lora.read import read_lora

SHAPES = {Place(part=part, tensor=name): shape for (part, name), shape in model_shapes().items()}
ODD: list[Any] = [
    None,
    -1,
    0,
    1,
    2**63,
    1e309,
    "",
    "x" * 5000,
    [],
    [0],
    {},
    True,
    [[1]],
    "F4",
    "BF16",
    "I64",
    [2**40, 2],
]
PARTS = (
    "lora_A",
    "lora_B",
    "alpha",
    "lokr_w1",
    "lokr_w2_a",
    "hada_w1_b",
    "dora_scale",
    "diff",
    "diff_b",
    "weight",
    "0",
    "99",
)


def altered(header: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The header with some of its entries as no trainer writes them."""
    made = json.loads(json.dumps(header))
    for _ in range(chance.randint(1, 4)):
        names = [name for name in made if name != "__metadata__"]
        name = chance.choice(names)
        match chance.randint(0, 5):
            case 0 if isinstance(made[name], dict):
                made[name][chance.choice(("dtype", "shape", "data_offsets"))] = chance.choice(ODD)
            case 1:
                made[name] = chance.choice(ODD)
            case 2:
                pieces = name.split(".")
                pieces[chance.randrange(len(pieces))] = chance.choice(PARTS)
                made[".".join(pieces)] = made.pop(name)
            case 3:
                shape = made[name].get("shape") if isinstance(made[name], dict) else None
                if isinstance(shape, list) and shape:
                    chance.shuffle(shape)
                    shape[0:1] = chance.choice(([shape[0]], [1, shape[0]], [], [shape[0], 1]))
            case 4:
                other = chance.choice(names)
                made[name], made[other] = made[other], made[name]
            case _:
                made["__metadata__"] = {
                    "lora_adapter_metadata": chance.choice(
                        (
                            "{}",
                            "[]",
                            '{"transformer.r": -1}',
                            '{"r": 4, "lora_alpha": "NaN"}',
                            '{"transformer.r": 4, "transformer.lora_alpha": 1e400}',
                        )
                    )
                }
    return made


def try_one(seed: int, folder: Path) -> str:
    chance = random.Random(seed)
    case = chance.choice(CASES)
    tensors = dict(case.tensors)
    if len(tensors) > 1 and chance.random() < 0.25:  # with its bytes, which are of no tensor without
        tensors.pop(chance.choice(list(tensors)))
    path = write_file(folder / f"{seed}.safetensors", tensors, case.metadata)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(altered(json.loads(data[8 : 8 + length]), chance)).encode()
    body = bytearray(data[8 + length :])
    for _ in range(chance.randint(0, 3)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    try:
        read = read_lora(path, allow_unused=chance.random() < 0.5)
        check_fit(read, SHAPES)
    except KontextError:
        return "refused"
    with np.errstate(over="ignore", invalid="ignore"):  # a flipped bit makes 1e38
        for change in read.changes:
            shape = SHAPES[change.place]
            assert apply_changes(np.ones(shape, np.float32), [([change], 1.0)]).shape == shape
    return "applied"


@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.check) for start in range(60, 660, 60))])
def test_altered_files_end_in_words(start: int, tmp_path: Path):
    ends = [try_one(seed, tmp_path) for seed in range(start, start + 60)]
    assert 10 < ends.count("refused") < 60, "some are refused, some are still good"
