"""Asserts that what charts and pages need is installed."""

from __future__ import annotations

from importlib.util import find_spec

from ..engine.errors import MissingDependencyError


def require_report() -> None:
    """Raise MissingDependencyError unless charts and pages can be made. For the start of whatever takes long before."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"a report needs {' and '.join(missing)}; install it with: pip install 'kontext-trt[report]'"
        )
