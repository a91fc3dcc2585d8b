"""Divides the tokens of a request among ranks: each holds a part of the text, the target and the references.

Attention does not see in which order tokens are, so a rank's part of the joint sequence is its part of each, one after
another. Numbers that the ranks do not divide are not padded: some ranks hold one token more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Holds how many tokens each rank has, in the order of the ranks.

    Attributes:
        text: The tokens of the prompt.
        target: Those of the picture that is made.
        reference: Those of all references together.
    """

    text: tuple[int, ...]
    target: tuple[int, ...]
    reference: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of ranks."""
        return len(self.text)

    @property
    def joint(self) -> tuple[int, ...]:
        """The tokens of the joint sequence that each rank holds."""
        return tuple(map(sum, zip(self.text, self.target, self.reference, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Says which tokens a rank holds."""

    rank: int
    shares: Shares

    @property
    def text(self) -> slice:
        """The tokens of the prompt that this rank holds."""
        return _part(self.shares.text, self.rank)

    @property
    def target(self) -> slice:
        """The target tokens that this rank holds."""
        return _part(self.shares.target, self.rank)

    @property
    def reference(self) -> slice:
        """The reference tokens that this rank holds, of all references one after another."""
        return _part(self.shares.reference, self.rank)


def divide(text: int, target: int, reference: int, size: int) -> Shares:
    """Divide tokens among `size` ranks.

    What a rank holds of the text depends on nothing but the text and `size`, and no rank holds two tokens more of all
    than another.
    """
    first = 0
    parts: list[tuple[int, ...]] = []
    for tokens in (text, target, reference):
        each, left = divmod(tokens, size)
        parts.append(tuple(each + ((rank - first) % size < left) for rank in range(size)))
        first = (first + left) % size  # the next ones go to those that have none of these
    return Shares(text=parts[0], target=parts[1], reference=parts[2])


def _part(counts: Sequence[int], rank: int) -> slice:
    start, stop = list(pairwise(accumulate(counts, initial=0)))[rank]
    return slice(start, stop)
