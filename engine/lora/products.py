"""Computes the rows of matrices that LoRA files hold as factors other than two: LoKr's and LoHa's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .changes import Factors, Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Kronecker:
    """Describes the Kronecker product of two matrices (LoKr): `large` times each item of `small`.

    Attributes:
        small: (outputs 1, inputs 1).
        large: (outputs 2, inputs 2).
    """

    small: Matrix
    large: Matrix

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.small.shape[0] * self.large.shape[0], self.small.shape[1] * self.large.shape[1])

    def rows(self, start: int, stop: int) -> Matrix:
        """Return rows `start` to `stop`: those of `small` that reach there, times `large`, cut."""
        height = self.large.shape[0]
        first, last = start // height, -(-stop // height)
        whole: Matrix = np.kron(self.small[first:last], self.large)
        return whole[start - first * height : stop - first * height]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hadamard:
    """Describes the product, item by item, of two low-rank matrices (LoHa): (up1 @ down1) * (up2 @ down2).

    Attributes:
        ups: Two of (outputs, rank).
        downs: Two of (rank, inputs).
    """

    ups: tuple[Matrix, Matrix]
    downs: tuple[Matrix, Matrix]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.ups[0].shape[0], self.downs[0].shape[1])

    def rows(self, start: int, stop: int) -> Matrix:
        first, second = (up[start:stop] @ down for up, down in zip(self.ups, self.downs, strict=True))
        return first * second


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsOf:
    """Describes rows `first` to `last` of another matrix."""

    whole: Factors
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.last - self.first, *self.whole.shape[1:])

    def rows(self, start: int, stop: int) -> Matrix:
        return self.whole.rows(self.first + start, self.first + stop)
