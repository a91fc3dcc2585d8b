"""The full-size run, at the tiny model's size: prepared without weights, filled, measured."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from kontext_trt import Bundle, BundleError
from kontext_trt.benchmarks.bench.diffusers_folder import WEIGHT_FILES, link_weights, write_configs
from kontext_trt.benchmarks.bench.full_size import BUNDLE, CHECKPOINT, UNPRUNED_GRAPH, main
from kontext_trt.benchmarks.bench.records import Agreement, Case, EngineRun, Record, decode_lines
from kontext_trt.benchmarks.costs.measure import disk_bytes
from kontext_trt.benchmarks.fixtures.bare_bundle import strip
from kontext_trt.export.tiny import tiny_config

CASE = Case(size=(64, 64), reference=None, steps=2, batch=1, seed=0, guidance=2.5, prompt="x")


def invoke(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(arguments)
    return printed.getvalue()


def of(kind: type, records: list[Record]) -> list:
    return [record for record in records if isinstance(record, kind)]


@pytest.fixture
def prepared(bundle: Bundle, tmp_path: Path) -> Path:
    """As `prepare --tiny` leaves it."""
    strip(bundle, tmp_path / "full" / BUNDLE)
    write_configs(tmp_path / "full" / CHECKPOINT, tiny_config())
    return tmp_path / "full"


@pytest.mark.check  # a minute and a half
def test_one_fill_serves_both_and_they_agree(prepared: Path, tmp_path: Path):
    report = tmp_path / "report"
    quick = ("--peer", "diffusers", "--steps", "2", "--repeat", "1")
    output = invoke("run", str(prepared), "--out", str(report), *quick)
    assert re.search(r"^fill with random weights: \d+ s$", output, re.MULTILINE)
    assert re.search(r"^all measurements: \d+ s$", output, re.MULTILINE)
    records = decode_lines((report / "bench.jsonl").read_bytes())
    assert [run.engine for run in of(EngineRun, records)] == ["kontext-trt", "diffusers"]
    (pictures,) = of(Agreement, records)
    assert pictures.agree
    assert pictures.psnr_db > 60
    for part, name in WEIGHT_FILES.items():
        (weights,) = (prepared / BUNDLE / "graphs/weights").glob(f"{part}.*.safetensors")
        assert weights.samefile(prepared / CHECKPOINT / name)


def test_a_part_without_its_own_file_cannot_be_linked(bundle_copy: Path, tmp_path: Path):
    (transformer,) = (bundle_copy / "graphs/weights").glob("transformer.*")
    transformer.unlink()
    with pytest.raises(BundleError, match="has 0 weights files of transformer, one is needed"):
        link_weights(tmp_path / "folder", bundle_copy)


@pytest.mark.check  # a minute: everything is traced twice
def test_prepared_folder_is_small_and_opens_when_filled(tmp_path: Path):
    output = invoke("prepare", str(tmp_path / "full"), "--tiny", "--operators", "fused", "--recipe", "fp8")
    assert [line.partition(":")[0] for line in output.splitlines()] == [
        "sparse checkpoint",
        "export",
        "strip",
        "quantize to fp8",
        "unpruned denoiser, for the ablation",
        "diffusers folder",
    ]
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == [BUNDLE, CHECKPOINT, "fp8", UNPRUNED_GRAPH]
    assert disk_bytes(tmp_path / "full") < 12e6
    invoke("run", str(tmp_path / "full"), "--out", str(tmp_path / "report"), "--peer", "diffusers", "--steps", "2")
    records = decode_lines((tmp_path / "report/bench.jsonl").read_bytes())
    assert of(Agreement, records)[0].agree
    invoke(
        "run", str(tmp_path / "full"), "--out", str(tmp_path / "fp8"), "--recipe", "fp8", "--skip-fill", "--steps", "2"
    )
    (ours,) = of(EngineRun, decode_lines((tmp_path / "fp8/bench.jsonl").read_bytes()))
    assert ours.bundle == Bundle.open(tmp_path / "full/fp8").fingerprint
