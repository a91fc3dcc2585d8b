"""Which LoRAs are set, read and held; whole pictures are in tests/whole/test_swapped_loras.py."""

from __future__ import annotations

import hashlib
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from lora_files import D, pair, write_file

from kontext_trt import Bundle, BundleError, ExecutorError, Kontext, LoraError
from kontext_trt.engine.lora.changes import LoraFile
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


def test_a_configuration_beside_a_file_counts(branched_bundle: Branched, tmp_path: Path):
    """Its scale is from there, so what was read before it was written is not what it means."""
    held, layer = Adapters(branched_bundle()), "base_model.model.transformer_blocks.0.attn.to_q"
    file = write_file(tmp_path / "adapter_model.safetensors", pair(layer, D, 4))
    choice = [LoraChoice(path=file)]
    before = held.choose(choice)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 12}))
    after = held.choose(choice)
    assert [one.used[0].adapter_config for one in (before, after)] == [
        None,
        hashlib.sha256((tmp_path / "adapter_config.json").read_bytes()).hexdigest(),
    ]
    for name, array in before.matrices["denoiser"].items():
        assert np.array_equal(after.matrices["denoiser"][name], array * (3 if name.startswith("lora_up") else 1))
    assert held.choose(choice) is after


def test_what_is_closed_holds_no_matrices(branched_bundle: Branched, lora_file: Callable[[int], Path]):
    with Kontext.open(branched_bundle()) as opened:
        opened.set_lora([lora_file(1)])
        opened._adapters.choose([LoraChoice(path=lora_file(2))])
        kept = [
            weakref.ref(array) for one in opened._adapters._kept.values() for array in one.matrices["denoiser"].values()
        ]
        assert kept
        assert all(array() is not None for array in kept)
    assert all(array() is None for array in kept)
    assert [one.name for one in opened.loras] == [lora_file(1).name], "what was set is named still"


def test_what_was_replaced_while_it_was_read_is_not_kept(
    branched_bundle: Branched, lora_file: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "one.safetensors"
    shutil.copy(lora_file(1), file)
    original, held = adapters.read_lora, Adapters(branched_bundle())

    def replace_first(path: Path) -> LoraFile:
        shutil.copy(lora_file(2), tmp_path / "other")
        file.rename(tmp_path / "first")
        (tmp_path / "other").rename(file)
        return original(path)

    monkeypatch.setattr(adapters, "read_lora", replace_first)
    second = held.choose([LoraChoice(path=file)])
    monkeypatch.undo()
    (tmp_path / "first").rename(file)
    assert held.choose([LoraChoice(path=file)]).used[0].sha256 != second.used[0].sha256


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
