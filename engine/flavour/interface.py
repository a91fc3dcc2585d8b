"""What a flavour answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class ContextMaker(Protocol):
    """Makes execution contexts whose memory the caller manages."""

    def create(self, engine: Any) -> Any:
        """None if that failed."""
        ...

    def recordable(self, context: Any, stream: int) -> bool:
        """Whether an execution may be recorded in a CUDA graph now."""
        ...

    def close(self) -> None:
        """Keep what the contexts have learned."""
        ...


class Flavour(Protocol):
    """One of the two libraries, imported."""

    name: str
    version: str
    """Exact: plans open with no other."""
    trt: Any
    """The library's module."""
    ahead_of_time: bool
    """Builds without the GPU that the plan is for."""
    times_tactics: bool
    """Measures kernels while it builds, so a timing cache shortens the next build."""
    needs_driver: tuple[str, ...]
    """Build options that fail where there is no CUDA driver."""

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """The compute capabilities that it compiles for ("sm_89"), by the library's own word. None: its GPU's."""
        ...

    @property
    def weights_by_pointer(self) -> bool:
        """The parser takes weights where they lie, so that they need not be read into memory first."""
        ...

    @property
    def stream_writer(self) -> type:
        """The base class of what plans are written to."""
        ...

    def serialize(self, builder: Any, network: Any, config: Any, writer: Any) -> bool:
        """Build, and give the plan to `writer.write`: in pieces where the library can. False if that failed."""
        ...

    def set_capability(self, config: Any, capability: str) -> None:
        """Compile for "sm_89", or, for "portable", for the library's own default."""
        ...

    def allow_decomposed_attention(self, network: Any) -> int:
        """Let attention without a dedicated kernel become several; returns how many attention layers there are.

        Where a dedicated kernel exists it is still taken.
        """
        ...

    def refusal(self, plan: memoryview) -> str:
        """Why the library itself would not open a plan here; "" if it would, or cannot tell beforehand."""
        ...

    def contexts(self, cache: Path) -> ContextMaker:
        """`cache` is where kernels that were finished at first run are kept, by a flavour that does so."""
        ...

    def compatibility_flags(self) -> Mapping[str, Any]:
        """Hardware compatibility levels by the names that build options use; empty where the flavour has none."""
        ...
