"""One tiny checkpoint, its bundles and diffusers' pipeline of it, made once for the whole run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from PIL import Image

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.components import Component, Precision
from kontext_trt.engine.errors import MissingDependencyError
from kontext_trt.export.environment import require_export

if TYPE_CHECKING:
    import onnx_ir as ir
    from diffusers import FluxKontextPipeline

    from kontext_trt.export.configs import ModelConfig

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# torch and what needs it are imported where they are used: GPU tests also run where they are not installed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from kontext_trt.engine.system.gpus import find_gpus

    gpus, reason = find_gpus()
    if not gpus and os.environ.get("KONTEXT_TRT_REQUIRE_GPU"):
        raise pytest.UsageError(f"these tests need a GPU: {reason}")
    if not gpus:
        skip = pytest.mark.skip(reason=f"needs a GPU: {reason}")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """Exports in this process share the graphs that depend on nothing else: one of each component, configuration and
    options is traced, which takes seconds, and every export gets a copy. `traced_anew` is for tests of tracing."""
    try:
        require_export()
    except MissingDependencyError:
        yield
        return
    from kontext_trt.export import export
    from kontext_trt.export.graphs import trace

    traced: dict[tuple[str, bytes, trace.TraceOptions], ir.Model] = {}

    def cached(component: Component, config: ModelConfig, options: trace.TraceOptions) -> ir.Model:
        key = (component.name, msgspec.json.encode(config), options)
        if key not in traced:
            traced[key] = trace.trace(component, config, options)
        return traced[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "trace", cached)
        yield


@pytest.fixture
def traced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from kontext_trt.export import export
    from kontext_trt.export.graphs import trace

    monkeypatch.setattr(export, "trace", trace.trace)


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny diffusers folder in float32, saved by diffusers."""
    from kontext_trt.export.environment import quiet_libraries
    from kontext_trt.export.tiny import write_tiny_checkpoint

    quiet_libraries()
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_tiny_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def bundle_path(checkpoint_path: Path) -> Path:
    """The tiny checkpoint's bundle. Not to be altered: `bundle_copy` is for that."""
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle

    path = checkpoint_path.parent / "bundle"
    export_bundle(open_checkpoint(checkpoint_path), path, ExportOptions(hash_weights=True))
    return path


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture
def bundle_copy(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, to damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


@pytest.fixture
def checkpoint_copy(checkpoint_path: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own, to damage."""
    return Path(shutil.copytree(checkpoint_path, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def kontext(bundle_path: Path) -> Iterator[Kontext]:
    with Kontext.open(bundle_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def wide_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision], Bundle]:
    """By precision: the tiny checkpoint with heads of 128, as in FLUX.1. Not to be altered."""
    folder = tmp_path_factory.mktemp("wide")
    made: dict[Precision, Bundle] = {}

    def bundle(precision: Precision) -> Bundle:
        from kontext_trt.export.checkpoint import open_checkpoint
        from kontext_trt.export.environment import quiet_libraries
        from kontext_trt.export.export import ExportOptions, export_bundle
        from kontext_trt.export.tiny import tiny_pipeline

        checkpoint = folder / "checkpoint"
        if not checkpoint.exists():
            quiet_libraries()
            tiny_pipeline(head_width=128).save_pretrained(checkpoint)
        if precision not in made:
            opened, options = open_checkpoint(checkpoint), ExportOptions(precision=precision)
            made[precision] = export_bundle(opened, folder / precision.value, options)
        return made[precision]

    return bundle


@pytest.fixture(scope="session")
def pipeline(checkpoint_path: Path) -> FluxKontextPipeline:
    """diffusers' pipeline of the checkpoint, on the CPU in float32."""
    from diffusers import FluxKontextPipeline

    opened = FluxKontextPipeline.from_pretrained(checkpoint_path)
    opened.set_progress_bar_config(disable=True)
    return opened


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """Makes a smooth colourful picture of a size: what a photo is to the tiny VAE."""

    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture(scope="session")
def tokenizers():
    """The small model's, for CLIP and T5."""
    from kontext_trt.examples.small_kontext.vocabulary import corpus, train_clip_tokenizer, train_t5_tokenizer

    sentences = corpus(3000)
    return train_clip_tokenizer(sentences), train_t5_tokenizer(sentences)
