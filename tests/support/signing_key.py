"""The key that signs plans in tests."""

from __future__ import annotations

import os

import pytest
from once_per_run import OncePerRun

from kontext_trt.engine.system.signing import VARIABLE


@pytest.fixture(scope="session", autouse=True)
def signing_key(once_per_run: OncePerRun) -> None:
    """One key for the run, as its processes share plans; the user's own is not touched."""
    os.environ[VARIABLE] = str(once_per_run.folder / "plans.key")
