"""Chooses items of a benchmark: by language, categories, a number, and a share of several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....engine.errors import BenchmarkError, OptionError
from .layouts import Bench, Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Says which items of a benchmark are run.

    Attributes:
        language: The language of instructions; None for whichever there is.
        categories: The categories, in the benchmark's words; empty for all.
        count: The first so many of these; None for all.
        shard: (k, n) for the k-th of n shares, from 1, every n-th item of what is chosen by the others.

    Raises:
        OptionError: The count or the share is out of range.
    """

    language: str | None = None
    categories: tuple[str, ...] = ()
    count: int | None = None
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise OptionError(f"--count must be 1 or more, not {self.count}")
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise OptionError(f"--shard is K/N with K from 1 to N, not {self.shard[0]}/{self.shard[1]}")

    def of(self, bench: Bench) -> tuple[Item, ...]:
        """Return the chosen items of a benchmark, in its order.

        Raises:
            OptionError: It has no such category or language, or no item is left.
            BenchmarkError: Two items of different languages have one key, and no language is chosen.
        """
        items: Sequence[Item] = bench.items
        if self.language is not None:
            items = self._in_language(bench)
        if self.categories:
            unknown = [name for name in self.categories if name not in bench.categories]
            if unknown:
                raise OptionError(
                    f"--categories: {bench.path} has no {', '.join(map(repr, unknown))}; it has "
                    f"{', '.join(map(repr, bench.categories))}"
                )
            items = [item for item in items if item.category in self.categories]
        keys = [item.key for item in items]
        if len(set(keys)) != len(keys):
            languages = ", ".join(dict.fromkeys(item.language for item in items))
            raise BenchmarkError(
                f"{bench.path} has keys in several languages ({languages}); choose one with --language"
            )
        items = items[: self.count][self.shard[0] - 1 :: self.shard[1]]
        if not items:
            raise OptionError(f"of {len(keys)} items of {bench.path} none is left to run")
        return tuple(items)

    def _in_language(self, bench: Bench) -> list[Item]:
        found = dict.fromkeys(item.language for item in bench.items)
        if bench.layout.language is None:
            raise OptionError(f"--language: {bench.path} is laid out as {bench.layout.name}, which says no language")
        if self.language not in found:
            raise OptionError(f"--language: {bench.path} has no {self.language!r}; it has {', '.join(found)}")
        return [item for item in bench.items if item.language == self.language]


def parse_shard(text: str) -> tuple[int, int]:
    """Return (k, n) of K/N. Raises OptionError for anything else."""
    one, _, of = text.partition("/")
    if not (one.isdecimal() and of.isdecimal()):
        raise OptionError(f"--shard is K/N, such as 1/4, not {text!r}")
    return int(one), int(of)
