"""Defines what a flavour answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..bundle.shared_file import SharedFile


class ContextMaker(Protocol):
    """Makes execution contexts whose memory the caller manages."""

    def create(self, engine: Any) -> Any:
        """Return an execution context of `engine`; None if that failed."""
        ...

    def recordable(self, context: Any, stream: int) -> bool:
        """Return whether an execution may be recorded in a CUDA graph now."""
        ...

    def close(self) -> None:
        """Keep what the contexts have learned."""
        ...


class Flavour(Protocol):
    """Stands for one of the two libraries, imported."""

    name: str
    version: str
    """The exact version: plans open with no other."""
    trt: Any
    """The library's module."""
    ahead_of_time: bool
    """True if it builds without the GPU that the plan is for."""
    times_tactics: bool
    """True if it measures kernels while it builds, so that a timing cache shortens the next build."""
    needs_driver: tuple[str, ...]
    """The build options that fail where there is no CUDA driver."""

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """The compute capabilities that it compiles for ("sm_89"), by the library's own word.

        It is None for its GPU's.
        """
        ...

    @property
    def weights_by_pointer(self) -> bool:
        """True if the parser takes weights where they lie, so that they need not be read into memory first."""
        ...

    @property
    def stream_writer(self) -> type:
        """The base class of what plans are written to."""
        ...

    def serialize(self, builder: Any, network: Any, config: Any, writer: Any) -> bool:
        """Build, and give the plan to `writer.write`, in pieces where the library can; return False if that failed."""
        ...

    def set_capability(self, config: Any, capability: str) -> None:
        """Compile for "sm_89", or, for "portable", for the library's own default."""
        ...

    def make_recordable(self, config: Any) -> None:
        """Let the plan take all of its memory from the caller, without which no CUDA graph can record it.

        It excludes weight streaming.
        """
        ...

    def allow_decomposed_attention(self, network: Any) -> int:
        """Let attention without a dedicated kernel become several; return how many attention layers there are.

        Where a dedicated kernel exists it is still taken.
        """
        ...

    def refusal(self, plan: memoryview) -> str:
        """Return why the library itself would not open a plan here; "" if it would, or cannot tell beforehand."""
        ...

    def contexts(self, cache: SharedFile) -> ContextMaker:
        """Return a maker of contexts.

        `cache` is where kernels that were finished at first run are kept, by a flavour that does so.
        """
        ...

    def compatibility_flags(self) -> Mapping[str, Any]:
        """Return hardware compatibility levels by the names that build options use.

        There are none where the flavour has none.
        """
        ...
