"""Tests give files back: a process may hold 1,024 as a rule, and whoever runs the whole suite comes to what leaks."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import pytest

MOST = 256


def num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def cycles_of_this_block() -> Iterator[None]:
    """Cycles are looked for among what is made in the block, not among millions of objects of traced graphs."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@pytest.fixture
def without_looking_for_cycles() -> Iterator[None]:
    """What closes a file meanwhile is that nobody has it any more."""
    gc.disable()
    yield
    gc.enable()


def opened() -> Counter[str]:
    """What this process holds open, and how often; numbers in names are left out."""
    found: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the list itself
            found[re.sub(r"\d+", "N", os.readlink(f"/proc/self/fd/{descriptor}"))] += 1
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail the test after which there are too many, once."""
    yield
    if num_descriptors() <= MOST or item.config.stash.get(TOLD, False):
        return
    gc.collect()  # which takes seconds; what cycles hold is not lost
    if num_descriptors() <= MOST:
        return
    item.config.stash[TOLD] = True
    most = "\n".join(f"{number} {name}" for name, number in opened().most_common(10))
    pytest.fail(f"by now tests of this process hold more than {MOST} files open, which nobody closed:\n{most}")


TOLD = pytest.StashKey[bool]()
