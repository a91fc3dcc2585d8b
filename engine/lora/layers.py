"""Turns the tensors of one layer of a LoRA file into changes of the layers here, each by its method's own rule.

Sources: peft 0.21.2 (tuners/lora/layer.py), lycoris-lora 4.1.3 (modules/lokr.py, loha.py, base.py), ComfyUI's
comfy/weight_adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LoraError
from ..tensor_names import Target
from .changes import Change, Difference, Factors, LowRank, Magnitude, Matrix, Place, Replacement
from .products import Hadamard, Kronecker, Product, RowsOf

MLP_RATIO = 4
"""The MLP's width in hidden widths of every FLUX.1; the rows of a fused bias without a weight are counted with it."""

MAX_ITEMS = 1 << 27
"""The most numbers that factors may be multiplied out to before shapes are compared; layers have up to 66 million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Holds what a file has of one layer.

    Attributes:
        source: The file, for messages.
        name: The layer's name in the file.
        part: The network that it is of.
        targets: The layers here that it is.
        slots: Its tensors' values by slot.
        configured: Returns the scale of a rank that PEFT's configuration says; None without a configuration.
        zero_alpha: Whether an alpha of 0 stands for the rank, as in sd-scripts.
    """

    source: str
    name: str
    part: str
    targets: tuple[Target, ...]
    slots: Mapping[str, Matrix]
    configured: Callable[[int], float] | None = None
    zero_alpha: bool = False

    def fail(self, words: str) -> LoraError:
        return LoraError(f"{self.source}: {self.name:.200} {words}")

    def matrix(self, slot: str) -> Matrix:
        """Return a slot's matrix; a 1x1 convolution's counts as one."""
        if slot not in self.slots:
            raise self.fail(f"has {', '.join(self.slots)}, and no {slot}; the file is incomplete")
        values = self.slots[slot]
        if values.ndim > 2 and set(values.shape[2:]) == {1}:
            values = values.reshape(values.shape[:2])
        if values.ndim != 2 or 0 in values.shape:
            raise self.fail(f"has {slot} {list(values.shape)}, which should be a matrix")
        return values

    def scale(self, rank: int) -> float:
        """Return what a change of a rank is multiplied by.

        Raises:
            LoraError: Alpha is no positive number, or differs from what the configuration says.
        """
        configured = None if self.configured is None else self.configured(rank)
        if "alpha" not in self.slots:
            return 1.0 if configured is None else configured
        values = self.slots["alpha"]
        if values.size != 1:
            raise self.fail(f"has alpha {list(values.shape)}, which should be one number")
        alpha = float(values.reshape(-1)[0])
        if alpha == 0 and self.zero_alpha:
            return 1.0
        if not alpha > 0:
            raise self.fail(f"has alpha {alpha}; it must be a positive number")
        if configured is not None and abs(configured - alpha / rank) > 1e-6 * configured:
            raise self.fail(
                f"has alpha {alpha} and rank {rank}, and the file's configuration says a scale of {configured}; which "
                "is meant cannot be told"
            )
        return alpha / rank


def layer_changes(layer: Layer) -> Iterator[Change]:
    """Yield what a layer of a file changes.

    Raises:
        LoraError: Tensors are missing, do not fit together, or cannot be what they are called.
    """
    slots, inputs = layer.slots, None
    scale = 1.0
    if "set_weight" in slots and not set(slots) <= {"set_weight", "diff_b", "alpha", "reshape_weight"}:
        raise layer.fail(f"has set_weight, which takes the place of the weight, beside {', '.join(slots)}")
    if "down" in slots or "up" in slots:
        down, up = layer.matrix("down"), layer.matrix("up")
        if down.shape[0] != up.shape[1]:
            raise layer.fail(f"has a down of rank {down.shape[0]} and an up of rank {up.shape[1]}")
        inputs, scale = down.shape[1], layer.scale(down.shape[0])
        yield from _low_rank(layer, down, up, scale)
    for factors, kind, factor in _products(layer):
        inputs = factors.shape[1]
        yield from _differences(layer, factors, factor, kind)
    if "diff" in slots:
        values = slots["diff"]
        inputs = values.shape[1] if values.ndim > 1 else inputs
        yield from _differences(layer, values, 1.0, ".diff")
    if "set_weight" in slots:
        for place, start, stop in _places(layer, slots["set_weight"], ".weight", None):
            yield Replacement(place=place, values=slots["set_weight"][start:stop])
    for slot, kind, factor in (("diff_b", ".diff_b", 1.0), ("up_bias", "bias", scale)):
        if slot in slots:
            values = slots[slot].reshape(-1)
            for place, start, stop in _places(layer, values, ".bias", inputs):
                yield Difference(place=place, values=values[start:stop], scale=factor, kind=kind)
    yield from _magnitudes(layer, inputs)
    _check_reshape(layer)


def _low_rank(layer: Layer, down: Matrix, up: Matrix, scale: float) -> Iterator[Change]:
    for place, start, stop in _places(layer, up, ".weight", down.shape[1]):
        rows, columns = up[start:stop], down
        if len(layer.targets) > 1:
            # sd-scripts' split_qkv joins the layers' ranks: columns that are zero here are another layer's
            used: NDArray[np.bool_] = np.asarray(np.any(rows != 0, axis=0))
            if not used.all():
                used[:1] |= not used.any()
                rows, columns = np.ascontiguousarray(rows[:, used]), np.ascontiguousarray(down[used])
        yield LowRank(place=place, down=columns, up=rows, scale=scale)


def _products(layer: Layer) -> Iterator[tuple[Factors, str, float]]:
    if any(slot.startswith("lokr_") for slot in layer.slots):
        ranks: set[int] = set()
        small, large = (_factor(layer, f"lokr_{one}", ranks) for one in ("w1", "w2"))
        if len(ranks) > 1:
            raise layer.fail(f"has LoKr factors of ranks {' and '.join(map(str, sorted(ranks)))}, which must be one")
        # without a decomposed factor alpha means nothing: LyCORIS writes one all the same
        yield Kronecker(small=small, large=large), "LoKr", layer.scale(ranks.pop()) if ranks else 1.0
    if any(slot.startswith("hada_") for slot in layer.slots):
        ups = (layer.matrix("hada_w1_a"), layer.matrix("hada_w2_a"))
        downs = (layer.matrix("hada_w1_b"), layer.matrix("hada_w2_b"))
        shapes = {(up.shape[0], down.shape[1]) for up, down in zip(ups, downs, strict=True)}
        inner = [(up.shape[1], down.shape[0]) for up, down in zip(ups, downs, strict=True)]
        if len(shapes) > 1 or any(one != other for one, other in inner):
            raise layer.fail(f"has LoHa factors whose shapes do not fit: {_shapes(layer)}")
        yield Hadamard(ups=ups, downs=downs), "LoHa", layer.scale(downs[0].shape[0])


def _factor(layer: Layer, slot: str, ranks: set[int]) -> Matrix | Product:
    """Return one of LoKr's factors; the rank of one that is decomposed is added to `ranks`."""
    if slot in layer.slots:
        if f"{slot}_a" in layer.slots or f"{slot}_b" in layer.slots:
            raise layer.fail(f"has {slot} whole and decomposed")
        return layer.matrix(slot)
    up, down = layer.matrix(f"{slot}_a"), layer.matrix(f"{slot}_b")
    if up.shape[1] != down.shape[0]:
        raise layer.fail(f"has {slot} of ranks {up.shape[1]} and {down.shape[0]}")
    if up.shape[0] * down.shape[1] > MAX_ITEMS:
        raise layer.fail(f"has {slot} of {up.shape[0]:,} x {down.shape[1]:,}, which is larger than any layer")
    ranks.add(down.shape[0])
    return Product(up=up, down=down)


def _differences(layer: Layer, values: Matrix | Factors, scale: float, kind: str) -> Iterator[Change]:
    shape: tuple[int, ...] = values.shape
    for place, start, stop in _places(layer, values, ".weight", shape[1] if len(shape) > 1 else None):
        whole = (start, stop) == (0, *shape[:1])
        if isinstance(values, np.ndarray):
            yield Difference(place=place, values=values[start:stop], scale=scale, kind=kind)
        else:
            rows = values if whole else RowsOf(whole=values, first=start, last=stop)
            yield Difference(place=place, values=rows, scale=scale, kind=kind)


def _magnitudes(layer: Layer, inputs: int | None) -> Iterator[Change]:
    for slot, blended in (("magnitude", False), ("dora_scale", True)):
        if slot not in layer.slots:
            continue
        values = layer.slots[slot]
        if values.ndim > 2 and set(values.shape[2:]) == {1}:
            values = values.reshape(values.shape[:2])
        values = values.reshape(-1, 1) if values.ndim == 1 else values
        shape: tuple[int, ...] = values.shape
        if len(shape) != 2 or 1 not in shape or inputs is None:
            raise layer.fail(f"has {slot} {list(shape)}, which should be one norm per output or per input")
        if shape[1] == 1 and shape[0] > 1:
            for place, start, stop in _places(layer, values, ".weight", inputs):
                yield Magnitude(place=place, values=values[start:stop], blended=blended)
        elif shape[1] == inputs and len(layer.targets) == 1 and layer.targets[0].start is None:
            yield Magnitude(place=_place(layer, layer.targets[0], ".weight"), values=values, blended=blended)
        else:
            raise layer.fail(
                f"has {slot} {list(values.shape)}: norms of the inputs of several layers that are one in the file "
                "(q, k and v), which are not read; train DoRA with norms of the outputs"
            )


def _check_reshape(layer: Layer) -> None:
    """Raise LoraError for a ComfyUI file that makes a layer larger; one that names the layer's own shape is let be."""
    if "reshape_weight" not in layer.slots:
        return
    shape = tuple(int(extent) for extent in layer.slots["reshape_weight"].reshape(-1))
    if "up" not in layer.slots or (layer.matrix("up").shape[0], layer.matrix("down").shape[1]) != shape:
        raise layer.fail(f"has reshape_weight {list(shape)}, which is not the shape of what it adds")


def _place(layer: Layer, target: Target, suffix: str) -> Place:
    return Place(part=layer.part, tensor=target.layer + suffix)


def _places(
    layer: Layer, values: Matrix | Factors, suffix: str, inputs: int | None
) -> Iterator[tuple[Place, int, int]]:
    """Yield the tensors here that rows of values are, with the first row and the one after the last.

    Raises:
        LoraError: The rows are not as many as the layers have.
    """
    if not values.shape:
        raise layer.fail("has one number where a tensor should be")
    total, targets = values.shape[0], layer.targets
    if len(targets) == 1 and targets[0].start is None:
        yield _place(layer, targets[0], suffix), 0, total
        return
    last = max(target.stop or (target.start or 0) + MLP_RATIO for target in targets)
    is_open = any(target.stop is None for target in targets)
    hidden = inputs or total // last
    if hidden == 0 or (total <= (last - MLP_RATIO) * hidden if is_open else total != last * hidden):
        raise layer.fail(
            f"changes {total} rows; it is {len(targets)} layers in one, whose rows are "
            f"{'more than ' if is_open else ''}{(last - MLP_RATIO if is_open else last)} times its inputs, {hidden}"
        )
    for target in sorted(targets, key=lambda target: target.start or 0):
        start = (target.start or 0) * hidden
        yield _place(layer, target, suffix), start, total if target.stop is None else target.stop * hidden


def _shapes(layer: Layer) -> str:
    return ", ".join(f"{slot} {list(values.shape)}" for slot, values in layer.slots.items())
