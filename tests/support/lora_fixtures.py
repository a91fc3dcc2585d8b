"""The tiny checkpoint with branches for LoRAs, exported once per run, and LoRA files for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lora_pictures import fuse_by_hand, random_pairs, write_lora
from once_per_run import OncePerRun

from kontext_trt import Bundle
from kontext_trt.engine.components import Operators

RANK = 4


@pytest.fixture(scope="session")
def branched_bundle(checkpoint_path: Path, once_per_run: OncePerRun) -> Callable[..., Bundle]:
    """By operators: the tiny checkpoint in float32 with branches of rank 4. Not to be altered."""

    def bundle(operators: Operators = Operators.SINGLE) -> Bundle:
        from kontext_trt.export.checkpoint import open_checkpoint
        from kontext_trt.export.export import ExportOptions, export_bundle

        options = ExportOptions(operators=operators, lora_rank=RANK, copy=True)
        name = f"branched-{operators.value}"
        return Bundle.open(
            once_per_run.make(name, lambda path: export_bundle(open_checkpoint(checkpoint_path), path, options))
        )

    return bundle


@pytest.fixture(scope="session")
def fused_by_hand(branched_bundle: Callable[..., Bundle], checkpoint_path: Path, once_per_run: OncePerRun) -> Bundle:
    """A bundle without branches whose weights have the LoRA of seed 1 at 0.5 and that of seed 2 at -1.5."""

    def write(path: Path) -> None:
        from kontext_trt.export.export import ExportOptions, export_bundle

        with tempfile.TemporaryDirectory() as folder:
            copied = Path(shutil.copytree(checkpoint_path, Path(folder) / "checkpoint"))
            for seed, scale in ((1, 0.5), (2, -1.5)):
                fuse_by_hand(copied, random_pairs(branched_bundle(), 2, seed), scale)
            export_bundle(copied, path, ExportOptions(copy=True))

    return Bundle.open(once_per_run.make("fused-by-hand", write))


@pytest.fixture(scope="session")
def lora_file(branched_bundle: Callable[..., Bundle], once_per_run: OncePerRun) -> Callable[[int], Path]:
    """By seed: a LoRA of rank 2 for every layer, random. Not to be altered."""

    def file(seed: int) -> Path:
        pairs = random_pairs(branched_bundle(), 2, seed)
        return once_per_run.make(f"lora-{seed}.safetensors", lambda path: write_lora(path, pairs))

    return file
