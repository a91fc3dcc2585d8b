"""Places the weights of a bundle: shared with the checkpoint's files where graphs can read them, else converted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...engine.bundle.graph_file import WeightPlace
from ...engine.components import Precision
from ...engine.progress import Progress
from ...engine.system.files import free_path, share_file
from ..checkpoint.nvfp4 import Nvfp4View
from ..checkpoint.views import TensorView, View
from ..fp4 import BLOCK
from .quantized_weights import SCALE, TENSOR_SCALE
from .weights import FileTensor, usable_as_stored, write_converted, write_tensors


class WeightPlacer:
    """Fills the folder of a bundle's weights, and keeps what it has put there.

    Args:
        folder: The folder.
        progress: What is told of the work.
        copy: Gives the bundle weights of its own.
    """

    def __init__(self, folder: Path, progress: Progress, *, copy: bool) -> None:
        self._folder, self._progress, self._copy = folder, progress, copy
        self._shared: dict[Path, Path] = {}  # checkpoint file -> its file in the bundle
        self.origins: dict[Path, str] = {}
        """The way that each weights file of the bundle came, by its path."""

    def place(
        self,
        stem: str,
        views: Mapping[str, TensorView],
        precision: Precision,
        *,
        as_stored: Collection[str] = (),
    ) -> dict[str, WeightPlace]:
        """Return where each tensor lies in the bundle, after what must be converted is written.

        Args:
            stem: The begin of new files' names: the part of the checkpoint.
            views: The tensors by name.
            precision: What graphs read.
            as_stored: The tensors that graphs read as they lie, whatever type they have. NVFP4 among them is left for
                `repack`.
        """
        placed: dict[str, WeightPlace] = {}
        convert: dict[str, TensorView] = {}
        for name, view in views.items():
            if name in as_stored and isinstance(view, Nvfp4View):
                continue
            if usable_as_stored(view, precision) or (name in as_stored and isinstance(view, View)):
                file = self._share(stem, view.path)
                placed[name] = WeightPlace(file=file, offset=view.offset, size_bytes=view.size_bytes)
            else:
                convert[name] = view
        if convert:
            self._progress.start(
                f"converting {stem} to {precision.value}",
                sum(view.num_items for view in convert.values()) * precision.item_bytes,
            )
            file = free_path(self._folder / f"{stem}.{precision.value}.safetensors")
            placed |= write_converted(convert, precision, file, self._progress.advance)
            self.origins[file] = "converted"
        return placed

    def repack(self, stem: str, layers: Mapping[str, Nvfp4View]) -> dict[str, WeightPlace]:
        """Return where each tensor of NVFP4 layers lies in the bundle, after they are written as graphs read them.

        Args:
            stem: The begin of the new file's name.
            layers: The weights by the names of their layers.
        """
        if not layers:
            return {}
        specs: dict[str, FileTensor] = {}
        for name, view in layers.items():
            rows, columns = view.shape
            specs[f"{name}.weight"] = FileTensor(dtype="F4", shape=(rows, columns))
            specs[f"{name}.{SCALE}"] = FileTensor(dtype="F8_E4M3", shape=(rows, columns // BLOCK))
            specs[f"{name}.{TENSOR_SCALE}"] = FileTensor(dtype="F32", shape=())

        def pieces() -> Iterator[tuple[str, Tensor]]:
            for name, view in layers.items():
                yield f"{name}.{TENSOR_SCALE}", torch.tensor(view.tensor_scale)
                yield f"{name}.{SCALE}", view.block_scales()
                for packed in view.packed():
                    yield f"{name}.weight", packed

        self._progress.start(f"repacking {stem}", sum(spec.size_bytes for spec in specs.values()))
        file = free_path(self._folder / f"{stem}.nvfp4.safetensors")
        placed = write_tensors(file, specs, pieces(), self._progress.advance)
        self.origins[file] = "converted"
        return placed

    def _share(self, stem: str, source: Path) -> Path:
        if source not in self._shared:
            target = free_path(self._folder / f"{stem}.{source.name}")
            self.origins[target] = share_file(source, target, copy=self._copy)
            self._shared[source] = target
        return self._shared[source]


def row_scales(views: Mapping[str, TensorView], layers: Iterable[str]) -> dict[str, View]:
    """Return the scales of those `layers` whose weights have one per row, under the names that graphs have for them."""
    scales: dict[str, View] = {}
    for layer in layers:
        weight = views[f"{layer}.weight"]
        if isinstance(weight, View) and weight.row_scales is not None:
            scales[f"{layer}.{SCALE}"] = weight.row_scales
    return scales


def nvfp4_weights(views: Mapping[str, TensorView], layers: Iterable[str]) -> dict[str, Nvfp4View]:
    """Return the weights of those `layers` that are NVFP4."""
    weights = {layer: views[f"{layer}.weight"] for layer in layers}
    return {layer: weight for layer, weight in weights.items() if isinstance(weight, Nvfp4View)}
