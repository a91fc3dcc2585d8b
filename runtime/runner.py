"""Says what sessions need of who runs their requests."""

from __future__ import annotations

import threading
from typing import Protocol

from ..engine.bundle.bundle import Bundle
from ..engine.progress import Progress
from .flow.previews import Previews
from .flow.run import OnStep
from .inputs.request import Request
from .outputs.result import Result


class Runner(Protocol):
    """Runs requests of one bundle: what a session needs of a `Kontext`."""

    bundle: Bundle

    def run(
        self,
        request: Request,
        *,
        on_step: OnStep | None = None,
        cancel: threading.Event | None = None,
        debug_nan: bool = False,
        previews: Previews | None = None,
        progress: Progress | None = None,
    ) -> Result: ...
