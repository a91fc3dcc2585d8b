"""FILE and FILE:SCALE, and what is no scale."""

from __future__ import annotations

from pathlib import Path

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
    ],
)
def test_a_choice_is_read(text: str, file: str, scale: float):
    assert LoraChoice.parse(text) == LoraChoice(path=Path(file), scale=scale)


def test_a_file_that_has_the_colon_in_its_name_is_taken(tmp_path: Path):
    (tmp_path / "a:2").touch()
    assert LoraChoice.parse(str(tmp_path / "a:2")) == LoraChoice(path=tmp_path / "a:2")


@pytest.mark.parametrize("scale", ["0", "nan", "inf", "-1000"])
def test_a_scale_out_of_range(scale: str):
    with pytest.raises(OptionError, match=r"the scale of a is .*; it must be a number between -100 and 100"):
        LoraChoice.parse(f"a:{scale}")


def test_a_scale_that_is_none():
    with pytest.raises(OptionError, match=r"a:b is no FILE:SCALE, such as style\.safetensors:0\.8"):
        LoraChoice.parse("a:b")


def test_choices_in_any_form():
    one = LoraChoice(path=Path("a"), scale=2.0)
    assert lora_choices([one, ("a", 2), "b"]) == (one, one, LoraChoice(path=Path("b")))
