"""Opens a bundle: the folder that a user builds and the runtime opens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..components import COMPONENTS, KNOWN_COMPONENTS, Component
from ..errors import BundleError, CheckpointError
from ..system.files import sha256_of
from .folder import Folder, require_folder
from .graph_file import GraphFile, misplaced_weights
from .identity import FileIdentity, HeldFiles
from .manifest import MAX_MANIFEST_BYTES, GraphRecord, Manifest, TokenizerRecord, parse_manifest
from .problems import file_problems, size_problems, weights_problems
from .tensor_file import SAMPLE_BYTES, TensorFile

MANIFEST = "manifest.json"
GRAPHS = "graphs"
WEIGHTS = "graphs/weights"
"""The folder of weights, under the graphs: ONNX allows external data beside or below the graph only."""
TOKENIZERS = "tokenizers"
NETWORKS = "networks.json"
"""The file of the checkpoint's configuration, for what makes the networks anew: calibration and comparison."""
OTHER_WEIGHTS = "holds other weights than were exported"
MAX_TENSORS = 200_000
"""The most tensors that verifying reads where they lie; FLUX.1 Kontext has 1,600."""
BUILT = ("plans", "caches")
"""The folders of what was built from the graphs; `plans.store` and `plans.caches` say what lies in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Says how a bundle compares with its manifest, in words.

    Attributes:
        problems: What is not as the manifest says; there are none in a sound bundle.
        checked: What was compared.
        unchecked: What was not.
    """

    problems: tuple[str, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Holds an opened bundle.

    Opening reads the manifest, graphs, tokenizers and the weights' headers, but no weights. Networks are read later, so
    what was opened is noted: a file that has changed since is refused when it is read.
    """

    path: Path
    manifest: Manifest
    _opened: dict[str, FileIdentity] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open the bundle at `path`.

        Raises:
            BundleError: The bundle is missing, incomplete, altered, or of another schema; the message names the file.
        """
        path = Path(path)
        require_folder(path)
        with Folder.open(path) as root:
            try:
                data = root.read(MANIFEST, MAX_MANIFEST_BYTES)
            except FileNotFoundError:
                raise BundleError(
                    f"{path} is not a bundle: it has no {MANIFEST}; make one with: kontext-trt export CHECKPOINT DIR"
                ) from None
            bundle = cls(path=path, manifest=parse_manifest(data, str(path / MANIFEST)))
            missing = [name for name in COMPONENTS if name not in bundle.manifest.graphs]
            if missing:
                raise BundleError(f"{path / MANIFEST} lists no graph for {', '.join(missing)}; export the bundle again")
            for place in bundle._sizes:
                with suppress(FileNotFoundError):  # which is among the problems
                    bundle._opened[place] = FileIdentity.of(root.status(place))
            for problem in bundle._quick_problems(root):
                raise bundle._refusal(problem)
        return bundle

    def _refusal(self, problem: str) -> BundleError:
        return BundleError(f"{self.path}: {problem}; export it again from {self.manifest.source}")

    @property
    def _sizes(self) -> dict[str, int]:
        return {record.path: record.size_bytes for record in (*self.manifest.files, *self.manifest.weights)}

    @classmethod
    def of(cls, bundle: Bundle | Path | str) -> Bundle:
        """Return the bundle itself, or open the one at a path; for functions that take either."""
        return bundle if isinstance(bundle, Bundle) else cls.open(bundle)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 over the bytes of every file, weights by their samples: what a picture's metadata refers to."""
        manifest = self.manifest
        lines = [f"{one.path}\0{one.sha256}\n" for one in sorted(manifest.files, key=lambda one: one.path)]
        for weights in sorted(manifest.weights, key=lambda record: record.path):
            lines.append(f"{weights.path}\0{weights.size_bytes}\0{weights.sample_sha256}\n")
        lines += [f"{one.sha256}\0{one.scale}\n" for one in manifest.loras]  # a weak one may change no sampled byte
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def component(self, name: str) -> Component:
        """Return a component with the ports that this bundle's graph of it has: every reader of ports asks here."""
        manifest, branches = self.manifest, self.manifest.branches
        found = KNOWN_COMPONENTS[name].of_schema(manifest.schema, manifest.features)
        return found if branches is None else found.with_kept(one.port for one in branches.packed(name))

    @property
    def components(self) -> tuple[str, ...]:
        """The names of the components that it has, in the order of the table."""
        return tuple(name for name in KNOWN_COMPONENTS if name in self.manifest.graphs)

    def require(self, feature: str) -> None:
        """Raise BundleError unless the bundle has a feature, one of `manifest.FEATURES`."""
        if feature not in self.manifest.features:
            has = ", ".join(self.manifest.features) or "none"
            raise BundleError(
                f"{self.path} does not have the feature {feature}, which a request needs (it has {has}); export it "
                f"again from {self.manifest.source}"
            )

    def graph(self, component: Component | str) -> GraphRecord:
        name = component if isinstance(component, str) else component.name
        return self.manifest.graphs[name]

    def file(self, place: str) -> Path:
        """Return the path of a file that the manifest lists, for whoever reads it now.

        Raises:
            BundleError: The manifest does not list it, it is no regular file of the bundle's own, of the listed size,
                any more, or it has changed since the bundle was opened.
        """
        sizes = self._sizes
        if place not in sizes:
            raise BundleError(f"{self.path} lists no {place}; export the bundle again")
        with Folder.open(self.path) as root:
            for problem in size_problems(root, place, sizes[place]):
                raise self._refusal(problem)
            opened = self._opened.get(place)
            change = opened.change(FileIdentity.of(root.status(place))) if opened is not None else ""
        if change:
            raise BundleError(f"{self.path / place} {change}; open the bundle again")
        return self.path / place

    def open_graph(self, component: Component | str) -> GraphFile:
        """Read a component's graph, whose weights lie where they may: in files that the manifest lists for it.

        Whoever gives a graph's path to a library, which opens the weights itself, takes it from here.

        Raises:
            BundleError: As `read_graph`, or its weights are not those exported, or have changed.
        """
        graph = self.read_graph(component)
        self.check_weights(component)
        return graph

    def check_weights(self, component: Component | str) -> None:
        """Sample the weights of a component.

        Raises:
            BundleError: They are not those exported, or a file has changed since the bundle was opened.
        """
        for weights in self.manifest.weights:
            if weights.path not in self.graph(component).weights:
                continue
            if TensorFile.open(self.file(weights.path)).sample_sha256() != weights.sample_sha256:
                raise BundleError(
                    f"{self.path}: {weights.path} {OTHER_WEIGHTS}; a checkpoint whose files a bundle shares must "
                    "not be written into: export again, with --copy for files of its own"
                )

    def hold(self, component: Component | str) -> HeldFiles:
        """Hold the weights of a component, whose graph a library has opened and mapped them for.

        Raises:
            BundleError: One of them has changed since the bundle was opened.
        """
        return HeldFiles(self.file(place) for place in self.graph(component).weights)

    def read_graph(self, component: Component | str) -> GraphFile:
        """Read a component's graph as `open_graph` does, but sample no weights: for who looks at the graph alone.

        Raises:
            BundleError: An initializer lies elsewhere, or the graph is no ONNX graph, or has changed since opening.
        """
        record = self.graph(component)
        graph = GraphFile.read(self.file(record.path))
        sizes = {self.file(one.path): one.size_bytes for one in self.manifest.weights if one.path in record.weights}
        for name, place in graph.weights.items():
            end = place.offset + place.size_bytes
            if end > sizes.get(place.file, -1):
                raise BundleError(
                    f"{graph.path}: {name} lies at bytes {place.offset:,} to {end:,} of {place.file}, which the "
                    "manifest does not give to this graph; do not use this bundle"
                )
        return graph

    def tokenizer(self, name: str) -> tuple[Path, TokenizerRecord]:
        """Return the path of a text encoder's tokenizer, and what the manifest says of it."""
        record = self.manifest.tokenizers[name]
        return self.file(record.path), record

    def own_folder(self, place: str) -> Path:
        """Return the path of a folder in the bundle, which is made if there is none.

        Raises:
            BundleError: It is a link, or a file, or a part of the way to it is.
        """
        with Folder.open(self.path) as root, root.folder(place, create=True) as folder:
            return folder.path

    def _quick_problems(self, root: Folder) -> Iterator[str]:
        for record in self.manifest.files:
            yield from file_problems(root, record)
        for weights in self.manifest.weights:
            yield from weights_problems(root, weights)

    def verify(self, *, whole: bool = False, on_bytes: Callable[[int], None] | None = None) -> Verification:
        """Compare the bundle with its manifest.

        Samples every tensor of the weights, and reads where the graphs point; with `whole`, reads every byte of the
        weights whose full hash was recorded.

        Args:
            whole: Whether those bytes are read.
            on_bytes: Is told the size of every chunk read.

        Returns:
            What was checked, what was not, and what was found.
        """
        with Folder.open(self.path) as root:
            problems = list(self._quick_problems(root))
            if not problems:
                problems = list(self._deep_problems(root, whole, on_bytes))
        return Verification(
            problems=tuple(problems), checked=tuple(self._checked(whole)), unchecked=tuple(self._unchecked(whole))
        )

    def _deep_problems(self, root: Folder, whole: bool, on_bytes: Callable[[int], None] | None) -> Iterator[str]:
        files: dict[Path, TensorFile] = {}
        for weights in self.manifest.weights:
            if sum(len(file.tensors) for file in files.values()) > MAX_TENSORS:
                yield f"the weights files have more than {MAX_TENSORS:,} tensors"
                return
            try:
                files[self.path / weights.path] = TensorFile.open(self.file(weights.path))
            except (BundleError, CheckpointError) as error:
                yield str(error)
                return
        for component in self.manifest.graphs:
            try:
                graph = self.read_graph(component)
            except BundleError as error:
                yield str(error)
                continue
            misplaced = misplaced_weights(graph, files)
            if misplaced:
                yield f"{self.graph(component).path} reads weights where its files hold none: " + (
                    ", ".join(misplaced[:3]) + (f" and {len(misplaced) - 3} more" if len(misplaced) > 3 else "")
                )
        for weights in self.manifest.weights:
            if files[self.path / weights.path].sample_sha256() != weights.sample_sha256:
                yield f"{weights.path} {OTHER_WEIGHTS}"
            elif whole and weights.sha256 is not None:
                with root.reader(weights.path) as file:
                    if sha256_of(file, on_bytes) != weights.sha256:
                        yield f"{weights.path} was altered (SHA-256 differs)"

    def _checked(self, whole: bool) -> Iterator[str]:
        files, weights, graphs = self.manifest.files, self.manifest.weights, self.manifest.graphs
        yield f"every byte of {len(files)} graphs, tokenizers and configurations"
        yield f"the headers of {len(weights)} weights files, and {SAMPLE_BYTES} bytes of each of their tensors"
        yield f"that {len(graphs)} graphs read no other bytes than tensors of these files"
        hashed = [record for record in weights if record.sha256 is not None]
        if whole and hashed:
            yield f"every byte of {len(hashed)} weights files"

    def _unchecked(self, whole: bool) -> Iterator[str]:
        unhashed = self.unhashed
        if not whole:
            yield "the other bytes of the weights; --full reads those of files that were exported with --hash-weights"
        elif unhashed:
            yield f"the other bytes of {', '.join(unhashed)}, of which the export recorded no hash (--hash-weights)"
        yield "plans, which kontext-trt plans verify reads"
        yield "who made the bundle: all of this is as its own manifest says"

    @property
    def unhashed(self) -> tuple[str, ...]:
        """The weights files of which no hash of every byte was recorded."""
        return tuple(record.path for record in self.manifest.weights if record.sha256 is None)
