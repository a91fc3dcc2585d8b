"""One tiny checkpoint, its bundles and diffusers' pipeline of it, made once per run."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command_line import run
from once_per_run import OncePerRun
from PIL import Image
from traced_graphs import load_traced

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.components import DENOISER, Component, Precision

if TYPE_CHECKING:
    import onnx_ir as ir
    from diffusers import FluxKontextPipeline

ROOT = Path(__file__).parents[2]

# torch and what needs it are imported where they are used: GPU tests also run where they are not installed


@pytest.fixture(scope="session")
def checkpoint_path(once_per_run: OncePerRun, traced_once: None) -> Path:
    """A tiny diffusers folder in float32, saved by diffusers. Not to be altered: `checkpoint_copy` is for that."""
    from kontext_trt.export.environment import quiet_libraries
    from kontext_trt.export.tiny import write_tiny_checkpoint

    quiet_libraries()
    return once_per_run.make("checkpoint", write_tiny_checkpoint)


@pytest.fixture(scope="session")
def bundle_path(checkpoint_path: Path, once_per_run: OncePerRun) -> Path:
    """The tiny checkpoint's bundle. Not to be altered: `bundle_copy` is for that."""
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle

    options = ExportOptions(hash_weights=True)
    return once_per_run.make("bundle", lambda path: export_bundle(open_checkpoint(checkpoint_path), path, options))


@pytest.fixture(scope="session")
def small_demo(once_per_run: OncePerRun) -> Path:
    """What `make demo` makes, and with it a bundle of the small Kontext in float32. Not to be altered."""

    def write(path: Path) -> None:
        words = ("--prompt", "turn the orange hexagon black", "--steps", 28)
        image = ROOT / "docs/small-kontext/before.png"
        done = run("demo", path, "--checkpoint", ROOT / "examples/small_kontext/checkpoint", "--image", image, *words)
        assert "edited.png  128x128  seed 0" in done.stdout
        assert "random" not in done.stderr
        assert "warning:" not in done.stderr

    return once_per_run.make("small-demo", write)


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


OLDER_DENOISER = Path(__file__).parent / "schema_2_denoiser.onnx.xz"


@pytest.fixture(scope="session")
def older_bundle(checkpoint_path: Path, once_per_run: OncePerRun) -> Bundle:
    """The same checkpoint's bundle of schema 2, with the denoiser's graph of then. Not to be altered."""

    def write(path: Path) -> None:
        from kontext_trt.export import export, options
        from kontext_trt.export.checkpoint import open_checkpoint

        once = export.trace

        def trace(component: Component, *options: Any) -> ir.Model:
            return once(component, *options) if component.name != DENOISER.name else load_traced(graph)

        graph = once_per_run.make(
            "schema-2-denoiser.onnx", lambda file: file.write_bytes(lzma.decompress(OLDER_DENOISER.read_bytes()))
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(options, "SCHEMA", 2)
            patch.setattr(options, "FEATURES", ())
            patch.setattr(export, "SCHEMA", 2)
            patch.setattr(export, "trace", trace)
            export.export_bundle(open_checkpoint(checkpoint_path), path)

    return Bundle.open(once_per_run.make("schema-2", write))


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
def wide_checkpoint(once_per_run: OncePerRun) -> Path:
    """The tiny checkpoint with heads of 128, as in FLUX.1. Not to be altered."""

    def write(path: Path) -> None:
        from kontext_trt.export.environment import quiet_libraries
        from kontext_trt.export.tiny import tiny_pipeline

        quiet_libraries()
        tiny_pipeline(head_width=128).save_pretrained(path)

    return once_per_run.make("wide-checkpoint", write)


@pytest.fixture(scope="session")
def wide_bundles(wide_checkpoint: Path, once_per_run: OncePerRun, traced_once: None) -> Callable[[Precision], Bundle]:
    """By precision: bundles of the checkpoint with heads of 128. Not to be altered."""

    def bundle(precision: Precision) -> Bundle:
        from kontext_trt.export.checkpoint import open_checkpoint
        from kontext_trt.export.export import ExportOptions, export_bundle

        options = ExportOptions(precision=precision)
        name = f"wide-{precision.value}"
        return Bundle.open(
            once_per_run.make(name, lambda path: export_bundle(open_checkpoint(wide_checkpoint), path, options))
        )

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
