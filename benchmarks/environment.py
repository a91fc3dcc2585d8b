"""Asserts that what charts, pages and comparisons need is installed."""

from __future__ import annotations

from collections.abc import Mapping

from ..engine.system.packages import require
from ..export.environment import EXPORT_PACKAGES

REPORT_PACKAGES: Mapping[str, str] = {"matplotlib": "matplotlib", "jinja2": "jinja2"}
"""The modules of the extra `report`, and the packages that have them."""


def require_report() -> None:
    """Raise MissingDependencyError unless charts and pages can be made. For the start of whatever takes long before."""
    require("a report", REPORT_PACKAGES, "report")


def require_compare() -> None:
    """Raise MissingDependencyError unless bundles can be compared, which takes torch and a report."""
    require("comparing", {**EXPORT_PACKAGES, **REPORT_PACKAGES}, "export,report")
