"""Says which packages are missing, all at once, and the one command that installs them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from ..errors import MissingDependencyError


def require(what: str, packages: Mapping[str, str], extras: str) -> None:
    """Raise MissingDependencyError unless all packages are there. Nothing is imported.

    Args:
        what: The subject of the message, such as "exporting".
        packages: The modules that are needed, and for each the package that has it.
        extras: The extras that install all of them, with commas.
    """
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(
            f"{what} needs {', '.join(missing)}; install it with: pip install 'kontext-trt[{extras}]'"
        )
