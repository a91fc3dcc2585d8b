"""Writes a bundle of the same weights whose denoiser computes every token in its last block.

Pruning is measured against it.

    python -m kontext_trt.benchmarks.bench.unpruned BUNDLE TARGET [--graph FILE]

Everything but the denoiser's graph is linked, so TARGET takes megabytes. The graph is traced, which needs torch and
onnx; `--graph` takes it from another such bundle of the same model, for machines that have neither.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from ...engine.bundle.bundle import MANIFEST, Bundle
from ...engine.bundle.share import share_files
from ...engine.components import COMPONENTS, DENOISER, Operators
from ...engine.errors import BundleError
from ...engine.system.files import atomic_folder, sha256_file
from ..program import run_main


def write_unpruned(bundle: Bundle, target: Path, graph: Path | None = None) -> Bundle:
    """Write the bundle at `target` and open it, with its denoiser traced or taken from the file `graph`.

    Raises:
        BundleError: There is something at `target`, or the denoiser to trace is quantized.
        MissingDependencyError: What tracing needs is not installed.
        ExportError: The denoiser cannot be traced.
    """
    if target.exists():
        raise BundleError(f"{target} exists; choose another name for the bundle")
    record = bundle.graph(DENOISER)
    with atomic_folder(target) as folder:
        listed = (one.path for one in (*bundle.manifest.files, *bundle.manifest.weights))
        share_files(bundle.path, folder, (path for path in listed if path != record.path))
        file = folder / record.path
        if graph is not None:
            shutil.copy(graph, file)
        else:
            _trace(bundle, file)
        files = tuple(
            replace(one, size_bytes=file.stat().st_size, sha256=sha256_file(file)) if one.path == record.path else one
            for one in bundle.manifest.files
        )
        (folder / MANIFEST).write_bytes(replace(bundle.manifest, files=files).to_json())
    return Bundle.open(target)


def check_unpruned(bundle: Bundle, other: Bundle) -> None:
    """Raise BundleError unless `other` has the bundle's weights, and another denoiser in the same operators."""

    def weights(of: Bundle) -> set[tuple[str, int, str]]:
        return {(one.path, one.size_bytes, one.sample_sha256) for one in of.manifest.weights}

    def graph_file(of: Bundle) -> str:
        path = of.graph(DENOISER).path
        return next(file.sha256 for file in of.manifest.files if file.path == path)

    same = weights(bundle) == weights(other) and all(bundle.graph(name) == other.graph(name) for name in COMPONENTS)
    if not same or graph_file(bundle) == graph_file(other):
        what = "has the same denoiser" if same else "is of other weights, precisions or operators"
        raise BundleError(
            f"{other.path} {what}; make what pruning is measured against with: "
            f"python -m kontext_trt.benchmarks.bench.unpruned {bundle.path} TARGET"
        )


def _trace(bundle: Bundle, file: Path) -> None:
    """Write the graph to `file`, over the weights of the bundle's own denoiser."""
    from ...export.environment import require_export

    require_export()
    import onnx_ir as ir

    from ...export.emulate.bundle_modules import read_config, read_model
    from ...export.graphs.branches import add_branches_to
    from ...export.graphs.trace import TraceOptions, trace

    record = bundle.graph(DENOISER)
    if record.quantization is not None:
        raise BundleError(f"the denoiser of {bundle.path} is quantized; pruning is measured on an unquantized bundle")
    options = TraceOptions(precision=record.precision, operators=Operators(record.operators), prune_last_block=False)
    model = trace(DENOISER.of_schema(bundle.manifest.schema, bundle.manifest.features), read_config(bundle), options)
    if bundle.manifest.branches is not None:
        add_branches_to(model, DENOISER.name, bundle.manifest.branches, record.precision)
    own = read_model(bundle, DENOISER.name).graph.initializers
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            value.const_value = own[name].const_value
    ir.save(model, file)


def main() -> None:
    """Write the bundle and print where it is."""
    parser = argparse.ArgumentParser(description="A bundle of the same weights whose last block is whole.")
    parser.add_argument("bundle")
    parser.add_argument("target", type=Path)
    parser.add_argument("--graph", type=Path, help="the denoiser's graph of another such bundle")
    arguments = parser.parse_args()
    made = write_unpruned(Bundle.open(arguments.bundle), arguments.target, arguments.graph)
    print(f"{made.path}: {made.open_graph('denoiser').path}")


if __name__ == "__main__":
    run_main(main)
