"""Describes what a LoRA file changes, layer by layer and in float32, whatever family wrote it.

Every change is to one layer of this project's own names, so files that change fused layers (BFL's qkv) hold several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


class Factors(Protocol):
    """Describes a matrix by factors, whose rows are multiplied out when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def rows(self, start: int, stop: int) -> Matrix:
        """Return rows `start` to `stop`, (stop - start, inputs)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Names what a change is made to.

    Attributes:
        part: The network of the checkpoint: "transformer", "clip" or "t5", as `Component.part` names it.
        tensor: The tensor of that network under this project's name, e.g. "transformer_blocks.0.attn.to_q.weight".
            Names are diffusers' and transformers', but for `norm_out.scale` and `norm_out.shift`, which are the two
            halves of diffusers' `norm_out.linear`.
    """

    part: str
    tensor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """Adds scale * up @ down to a weight.

    Attributes:
        place: The weight, (outputs, inputs).
        down: (rank, inputs).
        up: (outputs, rank).
        scale: The family's own factor, alpha and rank in it; the user's scale is not.
    """

    place: Place
    down: Matrix
    up: Matrix
    scale: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Adds a whole tensor times `scale`, to a weight (outputs, inputs) or to a bias or norm (items,).

    Attributes:
        place: The tensor.
        values: What is added, in the tensor's own shape: the values, or the factors that they are made of.
        scale: The family's own factor; the user's scale is not in it.
        kind: What the file calls it, for messages: "LoKr", "LoHa", ".diff", "bias".
    """

    place: Place
    values: Matrix | Factors
    scale: float
    kind: str

    def rows(self, start: int, stop: int) -> Matrix:
        """Return rows `start` to `stop` of the values, without the scale."""
        return self.values[start:stop] if isinstance(self.values, np.ndarray) else self.values.rows(start, stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude:
    """Scales a weight after all other changes of its file to the magnitudes that DoRA trained.

    Attributes:
        place: The weight.
        values: (outputs, 1) or (1, inputs): the norm that each row or column gets.
        blended: What a user's scale other than 1 means. True: that much of the way from the tensor to what all changes
            of the file at 1 make of it (ComfyUI, with files of LyCORIS). False: it scales the other changes alone, and
            norms are `values` (PEFT).
        kind: What it is called, for messages.
    """

    place: Place
    values: Matrix
    blended: bool = False
    kind: str = "DoRA"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Puts values in the place of a tensor's own, whatever the user's scale is.

    Attributes:
        place: The tensor.
        values: The tensor's new values.
        kind: What the file calls it, for messages.
    """

    place: Place
    values: Matrix
    kind: str = ".set_weight"


Change = LowRank | Difference | Magnitude | Replacement


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """Holds what a LoRA file changes.

    Attributes:
        name: The file's name.
        sha256: The hash of the file's bytes, in hexadecimal.
        family: The family's name, for people.
        changes: All changes; each of the file's tensors is in one of them or in `unused`.
        unused: Tensors of the file that change nothing here, by name; only with the caller's leave.
        adapter_config: The hash of the adapter_config.json beside it, in hexadecimal, where its scales are of that.
    """

    name: str
    sha256: str
    family: str
    changes: tuple[Change, ...]
    unused: tuple[str, ...] = ()
    adapter_config: str | None = None
