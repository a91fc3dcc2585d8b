"""Runs a benchmark at full size where no checkpoint can be had: random weights of FLUX.1 Kontext's real shapes.

    python -m kontext_trt.benchmarks.bench.full_size prepare FOLDER [--operators fused] [--recipe fp8 ...]
    python -m kontext_trt.benchmarks.bench.full_size run FOLDER --out REPORT [--recipe fp8] [--peer diffusers ...]
        [--ablation] [--skip-fill]

`prepare`, on any machine with the exporter, makes a few megabytes: a bundle and a diffusers folder without weights.
`run`, on the GPU machine, fills 34 GB of them (45 s on an H200) and measures; each phase prints a line, and the report
is there after each. A second call on the same machine goes on with --skip-fill, and finds what a peer has compiled.
Quantized bundles have made-up ranges: of the right size and speed, and their pictures say nothing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...engine.bundle.bundle import MANIFEST, Bundle
from ...engine.components import DENOISER, Operators
from ...engine.errors import BundleError
from ...engine.system.files import is_taken
from ...export.graphs.recipes import RecipeName
from ..environment import require_report
from ..program import positive, run_main
from .child import run_child
from .options import BenchOptions
from .peers import TIMEOUT_S, PeerName

BUNDLE, CHECKPOINT, UNPRUNED, UNPRUNED_GRAPH = "bundle", "checkpoint", "unpruned", "unpruned-denoiser.onnx"


def prepare(
    folder: Path, operators: Operators = Operators.SINGLE, recipes: Sequence[str] = (), *, tiny: bool = False
) -> None:
    """Make a bundle and a diffusers folder without weights, FOLDER/bundle and FOLDER/checkpoint.

    The bundle quantized by each recipe is FOLDER/RECIPE.
    """
    from ...export.checkpoint import open_checkpoint
    from ...export.checkpoint.open import SIZES_FILE
    from ...export.configs import ModelConfig
    from ...export.environment import quiet_libraries, require_export
    from ...export.export import ExportOptions, export_bundle
    from ...export.graphs.recipes import make_recipe
    from ...export.tiny import TINY_SIZES, tiny_config
    from ..fixtures.bare_bundle import strip
    from ..fixtures.made_up_ranges import quantize_to_zeros
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
        for recipe in recipes:
            with phase(f"quantize to {recipe}"):
                quantized = quantize_to_zeros(bundle, Path(name) / recipe, make_recipe(recipe))
                strip(quantized, folder / recipe)
                shutil.rmtree(quantized.path)
        with phase("unpruned denoiser, for the ablation"):
            unpruned = write_unpruned(bundle, Path(name) / UNPRUNED)
            shutil.copy(unpruned.open_graph(DENOISER).path, folder / UNPRUNED_GRAPH)
    with phase("diffusers folder"):
        write_configs(folder / CHECKPOINT, config)


def run(folder: Path, options: BenchOptions, *, skip_fill: bool = False) -> None:
    """Fill, link, and measure `options.bundle` into `options.out`. `folder` is what `prepare` made."""
    require_report()
    if not (folder / BUNDLE).is_dir():
        raise BundleError(f"{folder} has no {BUNDLE}; make it with: full_size prepare {folder}")
    unpruned = folder / UNPRUNED
    from .bench import run_bench
    from .diffusers_folder import link_weights
    from .unpruned import write_unpruned

    if not skip_fill:
        # in a process of its own, which gives the GPU's memory back
        with phase("fill with random weights"), tempfile.TemporaryDirectory() as name:
            module, filled = "kontext_trt.benchmarks.fixtures.bare_bundle", str(folder / BUNDLE)
            run_child("-m", module, "fill", filled, log=Path(name) / "log")
            for other in bare_bundles(folder):
                run_child("-m", module, "fill", str(other), "--sharing", filled, log=Path(name) / "log")
        shutil.rmtree(folder / UNPRUNED, ignore_errors=True)  # it links to what was there before
    link_weights(folder / CHECKPOINT, folder / BUNDLE)
    if options.unpruned is not None and not unpruned.exists():
        write_unpruned(Bundle.open(folder / BUNDLE), unpruned, folder / UNPRUNED_GRAPH)
    with phase("all measurements"):
        run_bench(options, Lines())


def bare_bundles(folder: Path) -> list[Path]:
    """Return the folders of the quantized bundles that `prepare` made."""
    return [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}")) if path.parent.name not in (BUNDLE, UNPRUNED)]


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


def main(given: Sequence[str] | None = None) -> None:
    """Prepare a folder, or run what was prepared. `given` are arguments in place of the process's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("prepare", help="make FOLDER/bundle and FOLDER/checkpoint, without weights")
    made.add_argument("folder", type=Path, help="new, or empty")
    operators = [one.value for one in Operators]
    made.add_argument("--operators", choices=operators, default=Operators.SINGLE.value, help="what graphs are made of")
    recipes = [one.value for one in RecipeName]
    made.add_argument("--recipe", choices=recipes, action="append", help="also quantize so, to FOLDER/RECIPE; several")
    made.add_argument("--tiny", action="store_true", help="the tiny model in fp32, to try the road on a CPU")
    runs = commands.add_parser("run", help="fill, link, and measure into REPORT")
    runs.add_argument("folder", type=Path, help="what `prepare` made")
    runs.add_argument("--out", type=Path, required=True, help="the folder for the report")
    runs.add_argument("--recipe", choices=recipes, help="measure this quantized bundle instead")
    runs.add_argument("--peer", choices=[one.value for one in PeerName], action="append", help="measure this beside it")
    runs.add_argument("--skip-fill", action="store_true", help="the weights are there from a call before")
    runs.add_argument("--skip-ceilings", action="store_true")
    runs.add_argument("--ablation", action="store_true", help="switch each of the engine's gains off")
    runs.add_argument("--steps", type=positive, default=28, help="steps of the flow")
    runs.add_argument("--repeat", type=positive, default=3, help="warm requests")
    runs.add_argument("--quick-decoder", action="store_true", help="compile a peer's decoder without the search")
    runs.add_argument("--peer-timeout", type=positive, default=int(TIMEOUT_S), help="seconds per peer")
    arguments = parser.parse_args(given)
    folder: Path = arguments.folder
    if arguments.command == "prepare":
        prepare(folder, Operators(arguments.operators), arguments.recipe or (), tiny=arguments.tiny)
        return
    peers = tuple(PeerName(name) for name in arguments.peer or ())
    options = BenchOptions(
        bundle=folder / (arguments.recipe or BUNDLE),
        out=arguments.out,
        checkpoint=folder / CHECKPOINT if peers else None,
        peers=peers,
        ceilings=not arguments.skip_ceilings,
        ablation=arguments.ablation,
        unpruned=folder / UNPRUNED if arguments.ablation and arguments.recipe is None else None,
        steps=arguments.steps,
        repeat=arguments.repeat,
        peer_timeout_s=arguments.peer_timeout,
        search_decoder=not arguments.quick_decoder,
    )
    run(folder, options, skip_fill=arguments.skip_fill)


if __name__ == "__main__":
    run_main(main)
