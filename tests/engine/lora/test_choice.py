"""FILE and FILE:SCALE, and what is no scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kontext_trt import OptionError
from kontext_trt.engine.lora.choice import LoraChoice, lora_choices


@pytest.mark.parametrize(
    ("text", "file", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a:b:0.8", "a:b", 0.8),
        ("dir/a:-1", "dir/a", -1.0),
        ("a:1e-1", "a", 0.1),
        (f"{'x' * 300}:0.5", "x" * 300, 0.5),  # longer than a name may be, which reading says
    ],
)
def test_a_choice_is_read(text: str, file: str, scale: float):
    assert LoraChoice.parse(text) == LoraChoice(path=Path(file), scale=scale)


def test_a_file_that_has_the_colon_in_its_name_is_taken(tmp_path: Path):
    (tmp_path / "a:2").touch()
    assert LoraChoice.parse(str(tmp_path / "a:2")) == LoraChoice(path=tmp_path / "a:2")


@pytest.mark.parametrize("scale", ["0", "nan", "inf", "-1000", "1e400"])
def test_a_scale_out_of_range(scale: str):
    with pytest.raises(OptionError, match=r"the scale of a is .*; it must be a number between -100 and 100"):
        LoraChoice.parse(f"a:{scale}")


def test_a_scale_that_is_none():
    with pytest.raises(
        OptionError, match=r"a:b is no FILE:SCALE, such as style\.safetensors:0\.8, and there is no file"
    ):
        LoraChoice.parse("a:b")


@pytest.mark.parametrize("text", ["", ":0.8", "a\0b", "a\0b:1"])
def test_a_path_that_is_none(text: str):
    with pytest.raises(OptionError, match="is no path of a LoRA file"):
        LoraChoice.parse(text)


def test_choices_in_any_form():
    one = LoraChoice(path=Path("a"), scale=2.0)
    assert lora_choices([one, ("a", 2), ["a", np.float32(2)], "b"]) == (one, one, one, LoraChoice(path=Path("b")))
    assert type(lora_choices([("a", np.float32(2))])[0].scale) is float, "it is written down"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("style.safetensors", r"LoRAs are given as a list, such as \['style.safetensors'\] for one"),
        (Path("a"), "LoRAs are given as a list"),
        (LoraChoice(path="a"), "LoRAs are given as a list"),
        (5, "LoRAs are given as a list"),
        ({"a": 0.5}, "LoRAs are given as a list"),
        (("a", 0.5), "0.5 is no path of a LoRA file"),
        ([None], "None is no path of a LoRA file"),
        ([("a", "x")], "the scale of a is 'x', which is no number"),
        ([("a", True)], "the scale of a is True, which is no number"),
        ([("a", None)], "the scale of a is None, which is no number"),
        ([("a", 10**400)], "must be a number between -100 and 100"),
        ([("a", 1, 2)], r"\('a', 1, 2\) is no \(file, scale\)"),
        ([("a",)], r"is no \(file, scale\)"),
    ],
)
def test_what_is_no_choice(given: Any, words: str):
    with pytest.raises(OptionError, match=words):
        lora_choices(given)
