"""Finds interpreters, and lays out the folder that newcomers type in: the checkout, a picture, a checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout that this is a part of."""
CHECKOUT, VENV, HOME, NAMES = "kontext-trt", "venv", ".home", ".names"
"""The folders in a newcomer's: the checkout's copy, the environment, a home, links named as interpreters are."""
KEPT = ("PIP_", "SSL_", "LD_", "REQUESTS_", "http_", "https_", "no_", "HTTP_", "HTTPS_", "NO_PROXY", "TMP", "PATH")
"""The beginnings of the environment variables that a newcomer's shell has, too: proxies, certificates, pip's."""
GIVEN = {
    "COLUMNS": "86",
    "CUDA_VISIBLE_DEVICES": "",
    "LANG": "C.UTF-8",
    "NO_COLOR": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_COMPILE": "0",  # pip's way to say yes to --no-compile: what is not imported is not compiled
    "PIP_QUIET": "2",
}
"""The variables that are set in a newcomer's shell: no GPU, no colours, and pip says nothing but errors."""


def candidates(version: tuple[int, int]) -> Iterator[Path]:
    """Yield the programs that may be the interpreter of a version: this one, those on the PATH, pyenv's."""
    name = f"python{version[0]}.{version[1]}"
    yield Path(getattr(sys, "_base_executable", sys.executable))
    yield from (Path(folder, name) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder)
    yield from sorted(Path.home().glob(f".pyenv/versions/*/bin/{name}"))


def find_python(version: tuple[int, int]) -> Path | None:
    """Return an interpreter of a version that runs, with its own standard library; None if there is none."""
    ask = "import ensurepip, sys, venv; print(*sys.version_info[:2], sys._base_executable)"
    for program in candidates(version):
        if not os.access(program, os.X_OK):
            continue
        done = subprocess.run([program, "-I", "-c", ask], capture_output=True, text=True, check=False)
        found = done.stdout.split(maxsplit=2)
        if done.returncode == 0 and [*map(str, version)] == found[:2]:
            return Path(found[2].strip())
    return None


def copy_checkout(target: Path) -> None:
    """Copy what git tracks, as it lies here: what a clone of the next commit holds."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def environment(folder: Path, python: Path) -> dict[str, str]:
    """Return a newcomer's environment variables: a home of their own, `python3` of this version, nothing of ours."""
    home, names = folder / HOME, folder / NAMES
    home.mkdir(parents=True, exist_ok=True)
    names.mkdir(exist_ok=True)
    for name in ("python3", python.name):
        (names / name).unlink(missing_ok=True)
        (names / name).symlink_to(python)
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    path = os.pathsep.join((str(folder / VENV / "bin"), str(names), os.environ.get("PATH", os.defpath)))
    cache = os.environ.get("PIP_CACHE_DIR") or str(_cache() / "pip")
    return {**kept, **GIVEN, "HOME": str(home), "PATH": path, "PIP_CACHE_DIR": cache}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
