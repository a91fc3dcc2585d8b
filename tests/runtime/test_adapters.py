"""Which LoRAs are set, read and held; whole pictures are in tests/whole/test_swapped_loras.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from kontext_trt import Bundle, BundleError, ExecutorError, LoraError
from kontext_trt.engine.lora.choice import LoraChoice
from kontext_trt.runtime import adapters
from kontext_trt.runtime.adapters import NOTHING, Adapters

Branched = Callable[..., Bundle]


class Holding:
    """An executor that notes what it is given."""

    def __init__(self) -> None:
        self.kept: list[object] = []
        self.fails = False

    def keep(self, values: object) -> None:
        if self.fails:
            raise ExecutorError("simulated")
        self.kept.append(values)


def test_a_bundle_without_branches_says_how_it_gets_some(bundle: Bundle, tmp_path: Path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(
        BundleError, match=r"exported without --lora-rank, .* with --lora-rank 16, or fuse: kontext-trt"
    ):
        Adapters(bundle).choose([LoraChoice(path=tmp_path / "a")])
    assert Adapters(bundle).choose([]) is NOTHING


def test_a_file_that_is_not_there_is_named(branched_bundle: Branched, tmp_path: Path):
    with pytest.raises(
        LoraError, match=r"none.safetensors cannot be read: No such file or directory; give a LoRA file"
    ):
        Adapters(branched_bundle()).choose([LoraChoice(path=tmp_path / "none.safetensors")])


def test_files_are_read_once_and_again_when_they_change(
    branched_bundle: Branched, lora_file: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[Path] = []
    original = adapters.read_lora
    monkeypatch.setattr(adapters, "read_lora", lambda path: read.append(path) or original(path))
    held, file = Adapters(branched_bundle()), tmp_path / "one.safetensors"
    shutil.copy(lora_file(1), file)
    first = held.choose([LoraChoice(path=file)])
    assert held.choose([LoraChoice(path=file)]) is first
    assert held.choose([LoraChoice(path=file, scale=0.5)]) is not first
    assert len(read) == 2
    shutil.copy(lora_file(2), file)
    assert held.choose([LoraChoice(path=file)]).used[0].sha256 != first.used[0].sha256
    held.choose([LoraChoice(path=file, scale=0.5)])
    held.choose([LoraChoice(path=file)])
    assert len(read) == 4, "two are kept"


def test_an_executor_gets_what_it_does_not_hold(branched_bundle: Branched, lora_file: Callable[[int], Path]):
    held, executor = Adapters(branched_bundle()), Holding()
    one, two = (held.choose([LoraChoice(path=lora_file(seed))]) for seed in (1, 2))
    for wanted in (NOTHING, one, one, two, NOTHING):
        held.swap(wanted, cast(Any, executor))
    assert executor.kept == [one.matrices, two.matrices, {}]


def test_after_a_failure_nothing_is_taken_for_granted(branched_bundle: Branched, lora_file: Callable[[int], Path]):
    held, executor = Adapters(branched_bundle()), Holding()
    one = held.choose([LoraChoice(path=lora_file(1))])
    executor.fails = True
    with pytest.raises(ExecutorError):
        held.swap(one, cast(Any, executor))
    executor.fails = False
    held.swap(NOTHING, cast(Any, executor))
    assert executor.kept == [{}]
