"""Things that cost seconds to make, made once per run for all of its processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kontext_trt.engine.system.locks import exclusive


class OncePerRun:
    """Folders and files by name, in a folder that all processes of a run share. They are not to be altered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """The path of `name`, which `write` makes if no process of this run has. One process writes at a time; what
        a writer that failed has left behind is removed before the next."""
        path, finished = self.folder / name, self.folder / f".{name}.finished"
        with exclusive(os.open(self.folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)):
            if not finished.exists():
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                write(path)
                finished.touch()
        return path


@pytest.fixture(scope="session")
def once_per_run(tmp_path_factory: pytest.TempPathFactory) -> OncePerRun:
    """The workers' own temporary folders lie in the run's."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return OncePerRun(folder)
