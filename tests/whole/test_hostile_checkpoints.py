"""Checkpoints with odd headers: each is refused in words, or makes a bundle that opens and runs."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from checking import check
from fuzzed_checkpoints import fuzzed
from single_files import write_models_folder

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.bundle.graph_file import GraphFile, misplaced_weights
from kontext_trt.engine.bundle.tensor_file import TensorFile
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import KontextError
from kontext_trt.export.export import ExportOptions, export_bundle

PARTS = ("diffusion_models", "diffusion_models", "diffusion_models", "text_encoders", "vae")


@pytest.fixture
def quietly() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


class Fuzzing:
    """Goes through seeds, and counts what becomes of them."""

    def __init__(self, models: Path, folder: Path, picture, max_exports: int) -> None:
        self.models, self.folder, self.picture, self.max_exports = models, folder, picture, max_exports
        self.counts: Counter[str] = Counter()
        self.messages: set[str] = set()
        self.run_already: set[frozenset] = set()

    def try_seed(self, seed: int) -> None:
        files = sorted((self.models / PARTS[seed % len(PARTS)]).glob("*.safetensors"))
        base = files[seed % len(files)]
        copy = self.folder / "models"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.models, copy, copy_function=lambda a, b: Path(b).hardlink_to(a))
        file = copy / base.relative_to(self.models)
        file.unlink()
        fuzzed(base, seed).write(file)
        try:
            check(copy)
        except KontextError as error:
            self.counts["refused"] += 1
            self.messages.add(" ".join(str(error).replace(str(copy), "").split()[:6]))
            return
        self.counts["accepted"] += 1
        if self.counts["exported"] < self.max_exports:
            self._export(copy, seed)

    def _export(self, models: Path, seed: int) -> None:
        path = self.folder / "bundle"
        shutil.rmtree(path, ignore_errors=True)
        try:
            bundle = export_bundle(models, path, ExportOptions(precision=Precision.FP32))
        except KontextError:
            self.counts["not exported"] += 1
            return
        self.counts["exported"] += 1
        opened = {path / one.path: TensorFile.open(path / one.path) for one in bundle.manifest.weights}
        looks = set()
        for name in bundle.manifest.graphs:
            graph = GraphFile.read(path / bundle.graph(name).path)
            assert misplaced_weights(graph, opened) == [], seed
            looks |= {(name, one.name, one.data_type, *one.dims) for one in graph.proto.graph.initializer}
            looks |= {(name, node.op_type, *node.input) for node in graph.proto.graph.node if "antize" in node.op_type}
        if frozenset(looks) not in self.run_already:
            self.run_already.add(frozenset(looks))
            self._run(bundle, seed)

    def _run(self, bundle: Bundle, seed: int) -> None:
        self.counts["run"] += 1
        with Kontext.open(bundle) as kontext:
            result = kontext.edit(self.picture(96, 80), "x", steps=1, seed=0)
        assert result.outputs[0].latents.size, seed


def fuzz(checkpoint: Path, folder: Path, picture, seeds: range, max_exports: int) -> Fuzzing:
    write_models_folder(checkpoint, folder / "base")
    fuzzing = Fuzzing(folder / "base", folder, picture, max_exports)
    for seed in seeds:
        fuzzing.try_seed(seed)
    return fuzzing


def test_what_is_not_refused_makes_a_bundle_that_runs(checkpoint_path: Path, tmp_path: Path, picture, quietly: None):
    found = fuzz(checkpoint_path, tmp_path, picture, range(100), max_exports=6)
    assert found.counts["refused"] > 50
    assert found.counts["accepted"] > 20
    assert found.counts["run"] > 2
    assert len(found.messages) > 20


@pytest.mark.check
@pytest.mark.parametrize("first", range(1000, 3000, 250))
def test_thousands(first: int, checkpoint_path: Path, tmp_path: Path, picture, quietly: None):
    found = fuzz(checkpoint_path, tmp_path, picture, range(first, first + 250), max_exports=60)
    assert found.counts["refused"] > 100
    assert found.counts["run"] > 10
