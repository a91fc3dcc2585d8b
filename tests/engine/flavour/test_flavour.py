"""Which of the two libraries is installed, and which version."""

from __future__ import annotations

import sys

import pytest

from kontext_trt.engine.errors import MissingDependencyError
from kontext_trt.engine.flavour import Flavour, FlavourName, installed_flavours, load_flavour


def test_a_missing_library_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        MissingDependencyError, match=r"tensorrt is not installed .*pip install 'kontext-trt\[tensorrt\]'"
    ):
        load_flavour(FlavourName.TENSORRT)


def test_what_is_installed_is_seen_without_an_import() -> None:
    assert FlavourName.TENSORRT_RTX in installed_flavours()


def test_the_version_is_exact(rtx: Flavour) -> None:
    assert rtx.version.count(".") == 3
    assert rtx.ahead_of_time
    assert rtx.weights_by_pointer
