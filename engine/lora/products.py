"""Computes the rows of matrices that LoRA files hold as factors other than two: LoKr's and LoHa's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .changes import Factors, Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Describes the product of two narrow matrices, which is far larger than they are.

    Attributes:
        up: (outputs, rank).
        down: (rank, inputs).
    """

    up: Matrix
    down: Matrix

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.up.shape[0], self.down.shape[1])

    def rows(self, start: int, stop: int) -> Matrix:
        return self.up[start:stop] @ self.down


@dataclass(frozen=True, slots=True, kw_only=True)
class Kronecker:
    """Describes the Kronecker product of two matrices (LoKr): `large` times each item of `small`.

    Attributes:
        small: (outputs 1, inputs 1).
        large: (outputs 2, inputs 2).
    """

    small: Matrix | Product
    large: Matrix | Product

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.small.shape[0] * self.large.shape[0], self.small.shape[1] * self.large.shape[1])

    def rows(self, start: int, stop: int) -> Matrix:
        """Return rows `start` to `stop`: those of `small` that reach there, times `large`, cut."""
        height = self.large.shape[0]
        first, last = start // height, -(-stop // height)
        whole: Matrix = np.kron(_rows(self.small, first, last), _rows(self.large, 0, height))
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
        product: Matrix = self.ups[0][start:stop] @ self.downs[0]
        product *= self.ups[1][start:stop] @ self.downs[1]
        return product


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


def _rows(matrix: Matrix | Product, start: int, stop: int) -> Matrix:
    return matrix[start:stop] if isinstance(matrix, np.ndarray) else matrix.rows(start, stop)
