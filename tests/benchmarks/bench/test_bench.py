"""`kontext-trt bench`: what it measures, what it prints, what it refuses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from command_line import run
from made_runs import made_run
from PIL import Image, ImageColor

from kontext_trt import ExecutorError, Kontext, Request, RequestError, Result
from kontext_trt.benchmarks.bench import bench, engine_process
from kontext_trt.benchmarks.bench.bench import BenchOptions, made_picture, make_case
from kontext_trt.benchmarks.bench.chart import COLOURS
from kontext_trt.benchmarks.bench.engine_process import EngineJob, measure
from kontext_trt.benchmarks.bench.peers import PeerName
from kontext_trt.benchmarks.bench.records import (
    PICTURES_DIFFER,
    Agreement,
    Case,
    EngineRun,
    Host,
    Record,
    Roofline,
    Unmeasured,
    decode_lines,
)
from kontext_trt.benchmarks.bench.sections import STAGES
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.runtime.executors.options import ExecutorName


@pytest.fixture(scope="module")
def report(bundle_path: Path, checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves behind, diffusers beside our own engine."""
    out = tmp_path_factory.mktemp("bench") / "report"
    options = ("--steps", 3, "--repeat", 4, "--executor", "cpu", "--json", "--ablation")
    done = run("bench", bundle_path, "--out", out, *options, "--peer", "diffusers", "--checkpoint", checkpoint_path)
    assert done.stdout.encode() == (out / "bench.jsonl").read_bytes()
    return out


@pytest.fixture
def records(report: Path) -> list[Record]:
    return decode_lines((report / "bench.jsonl").read_bytes())


def only(records: list[Record], kind: type) -> Record:
    (found,) = (record for record in records if isinstance(record, kind))
    return found


class TestCommand:
    def test_stages_add_up_to_what_the_caller_waits(self, records: list[Record]):
        """Not of medians, whose sum is another: a request takes at least the least, at most the most of each."""
        ours = next(record for record in records if isinstance(record, EngineRun))
        assert set(ours.warm) == {"total", "step", *STAGES}
        assert ours.warm["step"].count == 3 * ours.warm["total"].count == 12
        assert ours.warm["host_gap"].least > 0
        total, stages = ours.warm["total"], [ours.warm[stage] for stage in STAGES]
        tiny = 1e-6 * total.most
        assert sum(stage.least for stage in stages) <= total.least + tiny
        assert sum(stage.most for stage in stages) >= total.most - tiny
        assert all(one.least <= one.p50 <= one.p95 <= one.p99 for one in ours.warm.values())

    def test_cold_is_apart(self, records: list[Record]):
        ours = next(record for record in records if isinstance(record, EngineRun))
        assert set(ours.cold) == {"import", "open", "load", "first request", "second request", "third request"}
        assert all(value > 0 for value in ours.cold.values())

    def test_diffusers_made_the_same_picture(self, records: list[Record], report: Path):
        agreement = only(records, Agreement)
        assert isinstance(agreement, Agreement)
        assert agreement.agree
        assert agreement.psnr_db > 50  # float32: what rounding to 8 bits leaves
        ours, theirs = (np.asarray(Image.open(report / f"{name}.png"), int) for name in ("kontext-trt", "diffusers"))
        assert abs(ours - theirs).max() <= 1
        assert ours.std() > 1

    def test_what_it_ran_on_and_what_it_ran(self, records: list[Record], bundle_path: Path):
        machine, case = only(records, Host), only(records, Case)
        assert isinstance(machine, Host)
        assert isinstance(case, Case)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", machine.date)
        assert {"onnxruntime", "numpy", "torch", "kontext-trt"} <= set(machine.packages)
        assert case.steps == 3
        assert case.size == case.reference
        ours = next(record for record in records if isinstance(record, EngineRun))
        assert ours.bundle == Bundle.open(bundle_path).fingerprint
        assert ours.memory.host_peak > ours.memory.host_anonymous > 30 << 20

    def test_without_a_gpu_there_are_no_ceilings_but_counted_work(self, records: list[Record]):
        assert any(isinstance(record, Unmeasured) and "CUDA" in record.reason for record in records)
        roofline = only(records, Roofline)
        assert isinstance(roofline, Roofline)
        assert roofline.stages["step"].work.products["fp32"] > 1e6

    def test_page_and_chart(self, report: Path):
        page = (report / "bench.html").read_text()
        assert page.count("<table>") >= 6
        for words in (
            "warm, median ms",
            "cold, ms",
            "roofline",
            "ablation",
            "times diffusers",
            "data:image/png;base64,",
        ):
            assert words in page
        with Image.open(report / "bench.png") as chart:
            colours = {colour for _, colour in chart.convert("RGB").getcolors(1 << 16) or ()}
        assert {ImageColor.getrgb(COLOURS[stage]) for stage in ("denoise", "decode", "encode")} <= colours

    def test_plan_only_runs_nothing(self, bundle_path: Path, tmp_path: Path):
        done = run("bench", bundle_path, "--plan-only", "--vram", "1GiB", cwd=tmp_path)
        assert "memory, predicted" in done.stdout
        assert not list(tmp_path.iterdir())
        refused = run("bench", bundle_path, "--plan-only", "--size", "64x64", cwd=tmp_path, code=1)
        assert "--plan-only is of one picture of the usual size, and runs nothing: leave out --size" in refused.stderr

    def test_devices_that_share_requests(self, fused_path: Path, tmp_path: Path):
        options = ("--steps", 1, "--repeat", 1, "--executor", "cpu", "--no-ceilings", "--out", tmp_path / "out")
        done = run("bench", fused_path, *options, "--devices", 2)
        words = " ".join(done.stdout.split())
        assert "devices 2" in words
        assert "memory is that of the process that asks the devices, without theirs" in words
        assert "limits was not measured: ceilings are those of one GPU, and 2 devices share each request" in words
        records = decode_lines((tmp_path / "out/bench.jsonl").read_bytes())
        ours = only(records, EngineRun)
        assert isinstance(ours, EngineRun)
        assert (ours.executor, ours.devices) == ("onnxruntime (cpu, cpu)", (0, 1))
        assert "<td>2</td>" in (tmp_path / "out/bench.html").read_text()

    @pytest.mark.check
    def test_peer_that_takes_too_long(self, bundle_path: Path, checkpoint_path: Path, tmp_path: Path):
        """The rest is measured all the same."""
        options = ("--steps", 1, "--repeat", 1, "--executor", "cpu", "--no-ceilings", "--out", tmp_path / "out")
        peer = ("--peer", "diffusers", "--checkpoint", checkpoint_path, "--peer-timeout", 1)
        done = run("bench", bundle_path, *options, *peer)
        assert "diffusers was not measured: not done after 1 s" in " ".join(done.stdout.split())
        records = decode_lines((tmp_path / "out/bench.jsonl").read_bytes())
        assert [record.engine for record in records if isinstance(record, EngineRun)] == ["kontext-trt"]
        assert isinstance(only(records, Roofline), Roofline)

    def test_refusals(self, bundle_path: Path, tmp_path: Path):
        refused = run("bench", bundle_path, "--peer", "diffusers", "--out", tmp_path / "out", code=1)
        assert "peers need --checkpoint" in refused.stderr
        refused = run("bench", bundle_path, "--repeat", 0, "--out", tmp_path / "out", code=1)
        assert "at least one picture a request and one warm request" in refused.stderr
        (tmp_path / "file").touch()
        refused = run("bench", bundle_path, "--out", tmp_path / "file", code=1)
        assert f"{tmp_path / 'file'} is a file; the report needs a folder" in refused.stderr
        refused = run("bench", bundle_path, "--out", tmp_path / "out", "--ablation", "--unpruned", "nowhere", code=1)
        assert "nowhere" in refused.stderr
        refused = run(
            *("bench", bundle_path, "--out", tmp_path / "out", "--peer", "diffusers", "--checkpoint", "gone"), code=1
        )
        assert "checkpoint gone is not a folder; peers load a diffusers folder" in refused.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.check
    def test_refusals_of_the_request(self, bundle_path: Path, tmp_path: Path):
        for option, words in (
            (("--steps", 2000), "steps must be a whole number from 1 to 1000, not 2000"),
            (("--seed", -1), "0 to 2^64 - 1"),
            (("--guidance", "nan"), "guidance"),
            (("--batch", 1001), "1000"),
            (("--prompt", ""), "prompt"),
        ):
            wrong = run("bench", bundle_path, *option, "--out", tmp_path / "out", code=1)
            assert words in wrong.stderr
            assert "the measured process" not in wrong.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"peer_timeout_s": 0.0}, "a peer's time must be positive, not 0.0 s"),
            ({"peers": (PeerName.EAGER,) * 2, "checkpoint": Path("b")}, "each peer is measured once"),
            ({"generate": True, "image": Path("a.png")}, "give --image or --generate, not both"),
            ({"unpruned": Path("b")}, "--unpruned is for --ablation"),
            ({"ablation": True, "devices": (0, 1)}, "--ablation switches gains off on one device: leave out --devices"),
            ({"checkpoint": Path("b")}, "--checkpoint is for --peer"),
        ],
    )
    def test_options_that_make_no_sense(self, options: dict, words: str):
        with pytest.raises(RequestError, match=words):
            BenchOptions(bundle=Path("a"), out=Path("b"), **options)

    def test_a_late_failure_loses_nothing(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def broken(*_: object, **__: object) -> None:
            raise ExecutorError("without caches the picture is another")

        monkeypatch.setattr(bench, "ablate", broken)
        monkeypatch.setattr(bench, "run_engine", lambda job: made_run("kontext-trt", 5.0))
        options = BenchOptions(bundle=bundle.path, out=tmp_path / "out", ceilings=False, ablation=True)
        records = bench.run_bench(options)
        assert Unmeasured(engine="ablation", reason="without caches the picture is another") in records
        assert decode_lines((tmp_path / "out/bench.jsonl").read_bytes()) == records


class TestCase:
    def test_reference_has_its_trained_size(self, bundle: Bundle, tmp_path: Path):
        Image.new("RGB", (50, 30), "red").save(tmp_path / "a.png")
        options = BenchOptions(bundle=bundle.path, out=tmp_path, image=tmp_path / "a.png", steps=2, batch=3)
        case, placed = make_case(bundle, options)
        assert placed is not None
        assert placed.size == case.reference == case.size
        assert case.reference in bundle.manifest.model.sizes
        assert (case.steps, case.batch, case.guidance) == (2, 3, 2.5)

    def test_text_to_image_has_no_reference(self, bundle: Bundle, tmp_path: Path):
        case, image = make_case(bundle, BenchOptions(bundle=bundle.path, out=tmp_path, generate=True, size=(64, 32)))
        assert (case.reference, image, case.size) == (None, None, (64, 32))

    def test_peers_need_a_checkpoint(self, tmp_path: Path):
        with pytest.raises(RequestError, match="peers need --checkpoint"):
            BenchOptions(bundle=tmp_path, out=tmp_path, peers=(PeerName.EAGER,))

    def test_made_picture_is_always_the_same(self):
        one, other = (np.asarray(made_picture((64, 48))) for _ in range(2))
        assert np.array_equal(one, other)
        assert one.std() > 20


@pytest.fixture
def job(bundle: Bundle, tmp_path: Path) -> EngineJob:
    case, _ = make_case(bundle, BenchOptions(bundle=bundle.path, out=tmp_path, generate=True, size=(32, 32), steps=1))
    return EngineJob(
        bundle=bundle.path,
        executor=ExecutorName.CPU,
        vram_bytes=None,
        graphs=True,
        case=case,
        image=None,
        repeat=1,
        picture=tmp_path / "a.png",
        result=tmp_path / "a.json",
    )


def repaint(monkeypatch: pytest.MonkeyPatch, paint: Callable[[np.ndarray, int], None]) -> None:
    """Have a decoder that paints over its pictures, told which it is."""
    run, count = Kontext.run, itertools.count()

    def painted(kontext: Kontext, request: Request) -> Result:
        result = run(kontext, request)
        pixels = np.array(result.outputs[0].image)
        paint(pixels, next(count))
        return replace(result, outputs=(replace(result.outputs[0], image=Image.fromarray(pixels)),))

    monkeypatch.setattr(Kontext, "run", painted)


def test_times_are_worth_nothing_if_a_seed_gives_other_latents(job: EngineJob, monkeypatch: pytest.MonkeyPatch):
    request_of, seeds = engine_process.request_of, iter(range(9))
    monkeypatch.setattr(
        engine_process,
        "request_of",
        lambda case, image: request_of(msgspec.structs.replace(case, seed=next(seeds)), image),
    )
    with pytest.raises(ExecutorError, match="one seed gave different pictures"):
        measure(job, 0.0)


def test_or_another_picture(job: EngineJob, monkeypatch: pytest.MonkeyPatch):
    repaint(monkeypatch, lambda pixels, index: pixels[: 16 * (index == 2)].fill(0))
    with pytest.raises(ExecutorError, match="one seed gave different pictures"):
        measure(job, 0.0)


def test_pictures_that_differ_in_a_bit_are_noted(job: EngineJob, monkeypatch: pytest.MonkeyPatch):
    assert PICTURES_DIFFER not in measure(job, 0.0).notes

    def flip(pixels: np.ndarray, index: int) -> None:
        pixels[0, 0, 0] ^= index == 2

    repaint(monkeypatch, flip)
    assert PICTURES_DIFFER in measure(job, 0.0).notes
