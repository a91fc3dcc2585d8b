"""Gives sessions of ONNX Runtime on the CPU the operators that exchange with other ranks; the others are bodies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from ...flow.group import Group
from ..catalogue import DEFINITIONS
from ..definition import Definition
from ..failures import raising_whole
from ..fused import domain, operator_of
from ..kernels import Attribute, Kernel, Operator
from .attention import SharedAttend
from .bodies import TYPES
from .heads import SharedHeads

CPU = "CPUExecutionProvider"
_opening = threading.local()
"""The `SharedOperators` of the session that this thread is making."""


class SharedOperators:
    """Holds the kernels of an executor on the CPU that computes its part of a request.

    Args:
        group: The ranks that compute it.
        threads: The number of threads that a kernel computes with, 0 for one per core.
    """

    def __init__(self, group: Group, threads: int) -> None:
        self.group, self.threads = group, threads

    @contextmanager
    def opening(self, options: Any) -> Iterator[None]:
        """Give the session that is made meanwhile, with these options, the kernels."""
        domain().add_to(options, _operators())
        _opening.shared = self
        try:
            with raising_whole():
                yield
        finally:
            del _opening.shared


@cache
def _operators() -> tuple[Operator, ...]:
    """Return the operators that exchange, added to the process's domain."""
    exchanging = (definition for definition in DEFINITIONS.values() if definition.exchanges)
    made = tuple(operator_of(definition, TYPES, _make, CPU) for definition in exchanging)
    domain().add(*made)
    return made


def _make(definition: Definition, attributes: Mapping[str, Attribute]) -> Kernel:
    shared: SharedOperators = _opening.shared
    kernel = SharedAttend if definition.operator.attention else SharedHeads
    return kernel(shared.group, definition, dict(attributes), shared.threads)
