"""Says whether a server can make pictures at all, so that one that cannot is taken away and started anew."""

from __future__ import annotations

import logging

from ..runtime.runner import Runner
from .refusals import Refusal

LOST = "device_lost"
"""The code of what is refused since a GPU, or the process of a device, is gone."""

logger = logging.getLogger(__name__)


class Health:
    """Looks whether who makes the pictures still can.

    Args:
        runner: Who makes them; one that cannot lose its device has no `lost`.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._told = ""

    def check(self) -> None:
        """Do nothing while pictures can be made. The reason why they cannot be is logged once.

        Raises:
            Refusal: The device is lost (503).
        """
        lost: str = getattr(self._runner, "lost", "")
        if not lost:
            return
        if lost != self._told:
            logger.error("nothing can be made until this server is started again: %s", lost)
            self._told = lost
        raise Refusal(
            "this server has lost what it computes with, and must be started again; its log says why",
            status=503,
            code=LOST,
        )
