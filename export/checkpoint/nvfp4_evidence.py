"""Tells from an NVFP4 file's own numbers how its codes and block scales lie, or says that it cannot.

Scales: within a block the largest code is 6 whatever the scale is, so a block with a large scale has small other codes.
Where a weight's own rows and columns are taken out, the logarithms of a block's scale and of its codes' norm are
therefore correlated at about -0.5; beside another block's scale, at 0.

Order in a byte: it exchanges neighbouring columns of a weight, which no weight alone can tell. But columns of an MLP's
second layer are rows of its first, and the norms of the two are correlated in trained networks. The sign and size of
that correlation is read off sums over pairs of neighbours, which an exchange leaves as they are; differences within
pairs have the same correlation if the order is right, and its negative if it is not, because the number that a hidden
unit bears means nothing: training treats all of them alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fp4 import BLOCK, fp4_values, unpack
from .nvfp4 import Nvfp4Layout, Nvfp4View, stored_bytes
from .views import TensorView

ROWS = 1024
"""The rows of a weight that are looked at for its scales."""
LAYERS = 8
"""The layers of a kind that are looked at, spread over the network's depth."""
LEAST_BLOCKS = 2000
LEAST_CORRELATION = 0.1
"""The least negative correlation of block scales and codes that counts; that in the other order must be half of it."""
LEAST_EVIDENCE = 30.0
"""The difference in log likelihood between the two orders in a byte from which one is taken to be found."""
EVIDENCE_PER_ROOT = 8.0
"""The same, by the square root of the number of layers: without any correlation the evidence of one varies by 1."""
MLPS = (
    ("transformer_blocks", "ff.net.0.proj", "ff.net.2"),
    ("transformer_blocks", "ff_context.net.0.proj", "ff_context.net.2"),
    ("single_transformer_blocks", "proj_mlp", "proj_out"),
    ("encoder.block", "layer.1.DenseReluDense.wi_1", "layer.1.DenseReluDense.wo"),
)
"""The first and second layers of MLPs, whose hidden units are the last columns of the second."""
Views = Mapping[str, TensorView]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleEvidence:
    """Holds how block scales and codes are correlated in both orders; NaN where shapes rule an order out.

    Attributes:
        swizzled: The correlation if scales lie in tiles.
        linear: The correlation if they lie row by row.
        num_blocks: The blocks that were looked at.
    """

    swizzled: float
    linear: float
    num_blocks: int

    @property
    def decided(self) -> bool | None:
        """True if scales are swizzled, None if it cannot be told."""
        if math.isnan(self.swizzled) != math.isnan(self.linear):
            return math.isnan(self.linear)
        best, other = sorted((self.swizzled, self.linear))
        if not (self.num_blocks >= LEAST_BLOCKS and best <= -LEAST_CORRELATION and other > best / 2):
            return None
        return self.swizzled < self.linear

    def __str__(self) -> str:
        found = [
            f"{what} {'not possible by their shapes' if math.isnan(value) else f'{value:+.2f}'}"
            for what, value in (("swizzled", self.swizzled), ("row by row", self.linear))
        ]
        return f"correlation of block scales with codes: {', '.join(found)} ({self.num_blocks:,} blocks)"


@dataclass(frozen=True, slots=True, kw_only=True)
class NibbleEvidence:
    """Holds how much likelier one order in a byte is than the other.

    Attributes:
        high_first: The log likelihood of the high half first, less that of the low half first.
        num_layers: The MLPs that were looked at.
    """

    high_first: float
    num_layers: int

    @property
    def decided(self) -> bool | None:
        """True if the high half is first, None if it cannot be told."""
        needed = max(LEAST_EVIDENCE, EVIDENCE_PER_ROOT * math.sqrt(self.num_layers))
        return self.high_first > 0 if self.num_layers and abs(self.high_first) >= needed else None

    def __str__(self) -> str:
        if not self.num_layers:
            return "order in a byte: there is no MLP whose second layer is NVFP4 to tell it from"
        return (
            f"order in a byte: the high half first is likelier by e^{self.high_first:+.0f} ({self.num_layers} MLPs, "
            f"from e^{max(LEAST_EVIDENCE, EVIDENCE_PER_ROOT * math.sqrt(self.num_layers)):.0f} on it counts)"
        )


def scale_evidence(views: Views) -> ScaleEvidence:
    """Return how block scales and codes are correlated in both orders, over a sample of the NVFP4 weights."""
    whole = spread([view for view in views.values() if isinstance(view, Nvfp4View)], 4 * LAYERS)
    found: dict[bool, float] = {}
    counted = 0
    for swizzled in (True, False):
        if not all(view.fits(swizzled=swizzled) for view in whole):
            found[swizzled] = math.nan
            continue
        layout = Nvfp4Layout(swizzled=swizzled, high_first=True)
        results = [_scale_correlation(replace(view, layout=layout)) for view in whole]
        counted = sum(count for _, count in results)
        found[swizzled] = sum(value * count for value, count in results) / counted if counted else 0.0
    return ScaleEvidence(swizzled=found[True], linear=found[False], num_blocks=counted)


def nibble_evidence(views: Views, *, swizzled: bool) -> NibbleEvidence:
    """Return which order in a byte is likelier, from MLPs spread over the network whose second layer is NVFP4."""
    total, count = 0.0, 0
    layout = Nvfp4Layout(swizzled=swizzled, high_first=True)
    for first, second in _mlps(views):
        hidden = first.shape[0]
        rows = _squares(_in(first, layout), lambda values: values.square().sum(1))
        columns = _squares(_in(second, layout), lambda values: values.square().sum(0, keepdim=True))
        evidence = pair_evidence(torch.cat(rows), torch.cat(columns).sum(0)[-hidden:])
        if evidence is not None:
            total, count = total + evidence, count + 1
    return NibbleEvidence(high_first=total, num_layers=count)


def pair_evidence(known: Tensor, columns: Tensor) -> float | None:
    """Return the log likelihood that columns lie in the order of `known`, less that of neighbours being exchanged.

    Both are squared norms per hidden unit. With Fisher's transform z of a correlation, a common mean of sums and
    differences is likelier than opposite ones by z(sums) * z(differences). None if there are too few.
    """
    pairs = torch.stack([known, columns]).to(torch.float64).unflatten(-1, (-1, 2))
    pairs = pairs[:, (pairs > 0).all(-1).all(0)].log()
    num_pairs = pairs.shape[1]
    if num_pairs < 16:
        return None
    sums, differences = pairs.sum(-1), pairs[..., 0] - pairs[..., 1]
    sums = sums - sums.mean(1, keepdim=True)
    return _fisher(sums, num_pairs) * _fisher(differences, num_pairs)


def _fisher(both: Tensor, count: int) -> float:
    x, y = both
    norms = float(x.norm() * y.norm())
    correlation = float(x @ y) / norms if norms else 0.0
    return math.atanh(max(-0.999, min(0.999, correlation))) * math.sqrt(count - 3)


def _mlps(views: Views) -> Iterator[tuple[TensorView, Nvfp4View]]:
    for stem, first, second in MLPS:
        found = []
        for name, view in views.items():
            if name.startswith(f"{stem}.") and name.endswith(f".{second}.weight") and isinstance(view, Nvfp4View):
                other = views.get(f"{name.removesuffix(f'.{second}.weight')}.{first}.weight")
                if other is not None and other.shape[0] % 2 == 0 and other.shape[0] <= view.shape[1]:
                    found.append((other, view))
        yield from spread(found, LAYERS)


def spread(found: Sequence, count: int) -> list:
    """Return at most `count` of them, evenly spread."""
    return [found[i * len(found) // count] for i in range(count)] if len(found) > count else list(found)


def _in(view: TensorView, layout: Nvfp4Layout) -> TensorView:
    return replace(view, layout=layout) if isinstance(view, Nvfp4View) else view


def _squares(view: TensorView, reduce: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Return what `reduce` gives for some rows at a time."""
    step = max(1, (4 << 20) // view.shape[1])
    return [reduce(view.rows(i, min(i + step, view.shape[0])).read()) for i in range(0, view.shape[0], step)]


def _scale_correlation(view: Nvfp4View) -> tuple[float, int]:
    """Return the correlation of the blocks' scales and codes, and the number of blocks that have both."""
    view = view.rows(0, min(view.shape[0], ROWS))
    stored = stored_bytes(view.codes, view.start, view.stop)
    squares = fp4_values(unpack(torch.arange(256, dtype=torch.uint8)[:, None])).square().sum(1)
    norms = squares[stored.to(torch.int32)].reshape(view.shape[0], -1, BLOCK // 2).sum(-1)
    scales = view.block_scales().to(torch.float32)
    used = (scales > 0) & (norms > 0)
    x, y = (_centred(torch.where(used, values, 1.0).log(), used)[used] for values in (scales, norms))
    product = float(x.norm() * y.norm())
    return (float(x @ y) / product if product else 0.0), int(used.sum())


def _centred(values: Tensor, used: Tensor) -> Tensor:
    """Return values without the means of rows and columns, where they are `used`."""
    for axis in (1, 0):
        mean = (values * used).sum(axis, keepdim=True) / used.sum(axis, keepdim=True).clamp(min=1)
        values = values - mean
    return values
