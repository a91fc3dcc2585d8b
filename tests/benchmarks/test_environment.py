"""Without the extra `report`, what would end in one is refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt import Bundle, MissingDependencyError
from kontext_trt.benchmarks.bench import bench, full_size
from kontext_trt.benchmarks.bench.options import BenchOptions
from kontext_trt.benchmarks.environment import require_compare
from kontext_trt.engine.system import packages

COMMAND = r"install it with: pip install 'kontext-trt\[report\]'"


@pytest.fixture(params=["matplotlib", "jinja2"])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    find = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == request.param else find(name))
    return request.param


def test_bench(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even the bundle is looked at."""
    monkeypatch.setattr(Bundle, "open", _never)
    with pytest.raises(MissingDependencyError, match=f"a report needs {missing}; {COMMAND}"):
        bench.run_bench(BenchOptions(bundle=tmp_path, out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_full_size(missing: str, tmp_path: Path):
    with pytest.raises(MissingDependencyError, match=f"a report needs {missing}; {COMMAND}"):
        full_size.run(tmp_path, BenchOptions(bundle=tmp_path, out=tmp_path / "out"))


def test_what_compare_needs_is_named_at_once(missing: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(MissingDependencyError, match=rf"comparing needs {missing}; .*'kontext-trt\[export,report\]'"):
        require_compare()
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r"comparing needs torch, diffusers, .*, matplotlib, jinja2; install it"
    ):
        require_compare()


def test_compare(missing: str, bundle: Bundle):
    from kontext_trt.benchmarks.quality.compare import compare_bundles

    with pytest.raises(MissingDependencyError, match=f"a report needs {missing}; {COMMAND}"):
        compare_bundles(bundle, bundle, ())


def _never(*_: object) -> None:
    raise AssertionError("nothing was to be opened")
