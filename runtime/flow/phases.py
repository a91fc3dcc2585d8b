"""Tells who watches a request which part of it is under way: what is loaded, encoded, denoised and decoded."""

from __future__ import annotations

from collections.abc import Sequence

from ...engine.bundle.bundle import Bundle
from ...engine.byte_sizes import human_bytes
from ...engine.errors import ExecutorError
from ...engine.progress import Progress
from .executor import Executor
from .stages import Stage

WORDS = {
    "text": "encoding text",
    "encode": "encoding pictures",
    "condition": "conditioning",
    "denoise": "denoising",
    "decode": "decoding",
}
"""The words for the stages of each name while they run."""


class Loading:
    """Loads the components of a bundle, and tells of each once; what does not stay is loaded again for its turn."""

    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self._bundle, self._executor = bundle, executor
        self._loaded: set[str] = set()

    def load(self, names: Sequence[str], progress: Progress) -> None:
        """Load components; tell the bytes of each, and that they are there.

        Args:
            names: The components.
            progress: What is told.

        Raises:
            ExecutorError: A component cannot be loaded, or the executor is lost, whatever was loaded before.
        """
        if lost := self._executor.lost:
            words = "open the bundle again, after a CUDA error in a new process"
            raise ExecutorError(f"nothing can be loaded any more: {lost}; {words}")
        for name in names:
            if name not in self._loaded:
                size_bytes = self._bundle.graph(name).weight_bytes
                progress.start(f"loading {name}, {human_bytes(size_bytes)}", size_bytes)
                self._executor.load(name)
                progress.advance(size_bytes)
                self._loaded.add(name)


class Phases:
    """Tells of a request's stages: a task for all of one name, and a piece of it for each that is done."""

    def __init__(self, progress: Progress, loading: Loading) -> None:
        self._progress, self._loading = progress, loading
        self._name = ""

    def begin(self, part: Sequence[Stage], stages: Sequence[Stage]) -> None:
        """Load what a part needs that is not there, and tell what begins.

        Args:
            part: Stages of one name, which run together.
            stages: All stages that are left, the part first.
        """
        self._loading.load(list(dict.fromkeys(name for stage in part for name in stage.components)), self._progress)
        if part[0].name != self._name:
            self._name = part[0].name
            self._progress.start(WORDS[self._name], sum(stage.name == self._name for stage in stages))

    def end(self, part: Sequence[Stage]) -> None:
        """Tell that a part is done."""
        self._progress.advance(len(part))
