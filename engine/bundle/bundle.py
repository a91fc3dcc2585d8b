"""Opens a bundle: the folder that a user builds and the runtime opens."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..components import COMPONENTS, Component
from ..errors import BundleError
from ..system.files import sha256_file
from .graph_file import GraphFile, misplaced_weights
from .manifest import FileRecord, GraphRecord, Manifest, TokenizerRecord, WeightsRecord, parse_manifest
from .tensor_file import TensorFile, read_header_sha256

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
GRAPHS = "graphs"
WEIGHTS = "graphs/weights"
"""The folder of weights, under the graphs: ONNX allows external data beside or below the graph only."""
TOKENIZERS = "tokenizers"
NETWORKS = "networks.json"
"""The file of the checkpoint's configuration, for what makes the networks anew: calibration and comparison."""
BUILT = ("plans", "caches")
"""The folders of what was built from the graphs; `plans.store` and `plans.caches` say what lies in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Holds an opened bundle.

    Opening reads the manifest, graphs, tokenizers and the weights' headers, but no weights.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open the bundle at `path`.

        Raises:
            BundleError: The bundle is missing, incomplete, altered, or of another schema; the message names the file.
        """
        path = Path(path)
        file = path / MANIFEST
        if not path.is_dir():
            raise BundleError(f"bundle {path} does not exist; make it with: kontext-trt export CHECKPOINT {path}")
        if not file.is_file():
            raise BundleError(
                f"{path} is not a bundle: it has no {MANIFEST}; make one with: kontext-trt export CHECKPOINT DIR"
            )
        bundle = cls(path=path, manifest=parse_manifest(file.read_bytes(), str(file)))
        missing = [name for name in COMPONENTS if name not in bundle.manifest.graphs]
        if missing:
            raise BundleError(f"{file} lists no graph for {', '.join(missing)}; export the bundle again")
        for problem in bundle._quick_problems():
            raise BundleError(f"{path}: {problem}; export it again from {bundle.manifest.source}")
        return bundle

    @classmethod
    def of(cls, bundle: Bundle | Path | str) -> Bundle:
        """Return the bundle itself, or open the one at a path; for functions that take either."""
        return bundle if isinstance(bundle, Bundle) else cls.open(bundle)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 over the bytes of every file, weights by their samples: what a picture's metadata refers to."""
        manifest = self.manifest
        digest = hashlib.sha256()
        for record in sorted(manifest.files, key=lambda record: record.path):
            digest.update(f"{record.path}\0{record.sha256}\n".encode())
        for weights in sorted(manifest.weights, key=lambda record: record.path):
            digest.update(f"{weights.path}\0{weights.size_bytes}\0{weights.sample_sha256}\n".encode())
        return digest.hexdigest()

    def graph(self, component: Component | str) -> GraphRecord:
        name = component if isinstance(component, str) else component.name
        return self.manifest.graphs[name]

    def graph_path(self, component: Component | str) -> Path:
        return self.path / self.graph(component).path

    def tokenizer(self, name: str) -> tuple[Path, TokenizerRecord]:
        record = self.manifest.tokenizers[name]
        return self.path / record.path, record

    def _quick_problems(self) -> Iterator[str]:
        for record in self.manifest.files:
            yield from _file_problems(self.path, record, whole=True)
        for weights in self.manifest.weights:
            yield from _weights_problems(self.path, weights)

    def verify(self, *, whole: bool = False, on_bytes: Callable[[int], None] | None = None) -> list[str]:
        """Return every problem found, in words; an empty list for a sound bundle.

        Samples every tensor of the weights, and reads where the graphs point, which needs the onnx package; with
        `whole`, reads every byte of the weights whose full hash was recorded.

        Args:
            whole: Whether those bytes are read.
            on_bytes: Is told the size of every chunk read.
        """
        problems = list(self._quick_problems())
        if problems:
            return problems
        files = {
            self.path / weights.path: TensorFile.open(self.path / weights.path) for weights in self.manifest.weights
        }
        problems += self._graph_problems(files)
        for weights in self.manifest.weights:
            file = self.path / weights.path
            if files[file].sample_sha256() != weights.sample_sha256:
                problems.append(f"{weights.path} holds other weights than were exported")
            elif whole and weights.sha256 is not None and sha256_file(file, on_bytes) != weights.sha256:
                problems.append(f"{weights.path} was altered (SHA-256 differs)")
        return problems

    def _graph_problems(self, files: Mapping[Path, TensorFile]) -> Iterator[str]:
        if importlib.util.find_spec("onnx") is None:
            logger.warning("where graphs point was not checked; for that: pip install onnx")
            return
        for graph in self.manifest.graphs.values():
            misplaced = misplaced_weights(GraphFile.read(self.path / graph.path), files)
            if misplaced:
                yield f"{graph.path} reads weights where its files hold none: {', '.join(misplaced[:3])}" + (
                    f" and {len(misplaced) - 3} more" if len(misplaced) > 3 else ""
                )


def _file_problems(root: Path, record: FileRecord, *, whole: bool) -> Iterator[str]:
    file = root / record.path
    if not file.is_file():
        yield f"{record.path} is missing"
    elif file.stat().st_size != record.size_bytes:
        yield f"{record.path} is cut short or altered: {file.stat().st_size:,} bytes of {record.size_bytes:,}"
    elif whole and sha256_file(file) != record.sha256:
        yield f"{record.path} was altered (SHA-256 differs)"


def _weights_problems(root: Path, record: WeightsRecord) -> Iterator[str]:
    file = root / record.path
    if not file.is_file():
        yield f"{record.path} is missing"
    elif file.stat().st_size != record.size_bytes:
        yield f"{record.path} is cut short or altered: {file.stat().st_size:,} bytes of {record.size_bytes:,}"
    elif read_header_sha256(file) != record.header_sha256:
        yield f"{record.path} is another safetensors file than was exported (its header differs)"
