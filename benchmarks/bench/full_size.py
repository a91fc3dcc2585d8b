"""Runs a benchmark at full size where no checkpoint can be had: random weights of FLUX.1 Kontext's real shapes.

    python -m kontext_trt.benchmarks.bench.full_size prepare FOLDER [--operators single]
    python -m kontext_trt.benchmarks.bench.full_size run FOLDER --out REPORT [--peer diffusers ...] [--skip-fill]

`prepare`, on any machine with the exporter, makes a few megabytes: a bundle and a diffusers folder without weights.
`run`, on the GPU machine, fills 34 GB of them (45 s on an H200) and measures; each phase prints a line, and the report
is there after each. A second call on the same machine goes on with --skip-fill, and finds what a peer has compiled.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER, Operators
from ...engine.errors import BundleError
from ...engine.system.files import is_taken
from ..environment import require_report
from ..program import run_main
from .child import run_child
from .options import BenchOptions
from .peers import TIMEOUT_S, PeerName

BUNDLE, CHECKPOINT, UNPRUNED, UNPRUNED_GRAPH = "bundle", "checkpoint", "unpruned", "unpruned-denoiser.onnx"
app = typer.Typer(add_completion=False, help=(__doc__ or "").splitlines()[0])


@app.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="New, or empty.", show_default=False)],
    operators: Annotated[Operators, typer.Option(help="What the graphs are made of.")] = Operators.SINGLE,
    tiny: Annotated[bool, typer.Option("--tiny", help="The tiny model in fp32, to try the road on a CPU.")] = False,
) -> None:
    """Make a bundle and a diffusers folder without weights, FOLDER/bundle and FOLDER/checkpoint."""
    from ...export.checkpoint import open_checkpoint
    from ...export.checkpoint.open import SIZES_FILE
    from ...export.configs import ModelConfig
    from ...export.environment import quiet_libraries, require_export
    from ...export.export import ExportOptions, export_bundle
    from ...export.tiny import TINY_SIZES, tiny_config
    from ..fixtures.bare_bundle import strip
    from ..fixtures.sparse_checkpoint import write_sparse_checkpoint
    from .diffusers_folder import write_configs
    from .unpruned import write_unpruned

    if is_taken(folder):
        raise BundleError(f"there is something in {folder}; choose another name for the folder")
    require_export()
    quiet_libraries()
    config = tiny_config() if tiny else ModelConfig()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        sparse = Path(name) / "checkpoint"
        with phase("sparse checkpoint"):
            write_sparse_checkpoint(sparse, config, dtype="F32" if tiny else "BF16")
            if tiny:
                (sparse / SIZES_FILE).write_text(str([list(size) for size in TINY_SIZES]))
        with phase("export"):
            bundle = export_bundle(open_checkpoint(sparse), Path(name) / "bundle", ExportOptions(operators=operators))
        with phase("strip"):
            strip(bundle, folder / BUNDLE)
        with phase("unpruned denoiser, for the ablation"):
            unpruned = write_unpruned(bundle, Path(name) / UNPRUNED)
            shutil.copy(unpruned.graph_path(DENOISER), folder / UNPRUNED_GRAPH)
    with phase("diffusers folder"):
        write_configs(folder / CHECKPOINT, config)


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="What `prepare` made.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder for the report.")],
    peer: Annotated[
        list[PeerName] | None, typer.Option(help="Measure this beside it; several are allowed.", show_default=False)
    ] = None,
    skip_fill: Annotated[bool, typer.Option("--skip-fill", help="The weights are there from a call before.")] = False,
    skip_ceilings: Annotated[bool, typer.Option("--skip-ceilings")] = False,
    ablation: Annotated[bool, typer.Option("--ablation", help="Switch each of the engine's gains off.")] = False,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the flow.")] = 28,
    repeat: Annotated[int, typer.Option(min=1, help="Warm requests.")] = 3,
    peer_timeout: Annotated[float, typer.Option(min=1, help="Seconds for each peer, compiling included.")] = TIMEOUT_S,
) -> None:
    """Fill, link, and measure into REPORT."""
    require_report()
    if not (folder / BUNDLE).is_dir():
        raise BundleError(f"{folder} has no {BUNDLE}; make it with: full_size prepare {folder}")
    unpruned, peers = folder / UNPRUNED, tuple(peer or ())
    options = BenchOptions(
        bundle=folder / BUNDLE,
        out=out,
        checkpoint=folder / CHECKPOINT if peers else None,
        peers=peers,
        ceilings=not skip_ceilings,
        ablation=ablation,
        unpruned=unpruned if ablation else None,
        steps=steps,
        repeat=repeat,
        peer_timeout_s=peer_timeout,
    )
    from .bench import run_bench
    from .diffusers_folder import link_weights
    from .unpruned import write_unpruned

    if not skip_fill:
        # in a process of its own, which gives the GPU's memory back
        with phase("fill with random weights"), tempfile.TemporaryDirectory() as name:
            module, bundle = "kontext_trt.benchmarks.fixtures.bare_bundle", str(folder / BUNDLE)
            run_child("-m", module, "fill", bundle, log=Path(name) / "log")
        shutil.rmtree(folder / UNPRUNED, ignore_errors=True)  # it links to what was there before
    link_weights(folder / CHECKPOINT, folder / BUNDLE)
    if ablation and not unpruned.exists():
        write_unpruned(Bundle.open(folder / BUNDLE), unpruned, folder / UNPRUNED_GRAPH)
    with phase("all measurements"):
        run_bench(options, Lines())


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Print what it took."""
    start = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


class Lines:
    """Prints progress as lines: each task with its seconds when it is done."""

    def start(self, task: str, total: float) -> None:
        self._task, self._left, self._since = task, total, time.perf_counter()

    def advance(self, amount: float) -> None:
        self._left -= amount
        if self._left <= 0:
            print(f"{self._task}: {time.perf_counter() - self._since:.0f} s", flush=True)


if __name__ == "__main__":
    run_main(app)
