"""What commands do with a bundle whose author put links and places in it: nothing outside is read, written, deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from building import Site
from compiler_fixtures import COVERAGE
from relisted import relist
from watched import Watch, watched

from kontext_trt import Bundle, BundleError, Kontext, OnnxRuntimeOptions, UntrustedPlanError
from kontext_trt.benchmarks.quality.compare import compare_bundles
from kontext_trt.benchmarks.quality.compare_options import CompareCase, CompareOptions
from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.builder.compile import CompileJob
from kontext_trt.engine.builder.compile_process import ProcessResult
from kontext_trt.engine.builder.failures import Failure, FailureKind
from kontext_trt.engine.errors import BuildError
from kontext_trt.engine.plans.prune import prune_store
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.engine.system.signing import VARIABLE
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibrate import calibrate_bundle
from kontext_trt.export.quantize.calibration import Calibration, CalibrationOptions
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

KEY = "0" * 32


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that looks like a component's plans, of somebody who did not put it into any bundle."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in (f"{KEY}.plan", f"{KEY}.json", f".{KEY}.left", f"{KEY}.lock", "notes"):
        (folder / name).write_bytes(b"theirs")
    return folder


@pytest.fixture
def untouched(outside: Path) -> Iterator[Watch]:
    with watched(outside) as watch:
        yield watch
        assert watch.seen() == []
    assert {file.read_bytes() for file in outside.iterdir()} == {b"theirs"}


def linked(bundle: Path, place: str, target: Path) -> None:
    path = bundle / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("place", ["plans", "plans/clip", "plans/.locks"])
@pytest.mark.parametrize("everything", [False, True])
def test_prune_removes_nothing_through_a_link(
    bundle_copy: Path, outside: Path, untouched: Watch, place: str, everything: bool
) -> None:
    opened = Bundle.open(bundle_copy)
    if place == "plans/.locks":
        (bundle_copy / "plans/clip").mkdir(parents=True)
        (bundle_copy / "plans/clip" / f"{KEY}.plan").write_bytes(b"x")
    linked(bundle_copy, place, outside)
    with pytest.raises(BundleError, match=f"{place} is a symbolic link"):
        prune_store(PlanStore.of(bundle_copy), opened, everything=everything)


def test_prune_removes_only_what_it_knows(bundle_copy: Path, outside: Path, untouched: Watch) -> None:
    """Links in the store go themselves; what has no plan's name, or more in it than a build leaves, stays."""
    clip = bundle_copy / "plans/clip"
    (clip / f".{KEY}.left").mkdir(parents=True)
    (clip / f".{KEY}.left/plan").symlink_to(outside / "notes")
    (clip / f".{KEY}.more").mkdir()
    (clip / f".{KEY}.more/plan").write_bytes(b"x")
    (clip / f".{KEY}.more/letters").write_bytes(b"x")
    (clip / "letters.plan").write_bytes(b"x")
    (clip / f"{KEY}.plan").symlink_to(outside / f"{KEY}.plan")
    (bundle_copy / "plans/.locks").mkdir()
    (bundle_copy / "plans/.locks" / f"{KEY}.lock").touch()
    (removal,) = prune_store(PlanStore.of(bundle_copy), Bundle.open(bundle_copy), everything=True)
    assert (removal.path, removal.in_use) == (clip / f"{KEY}.plan", False)
    assert sorted(os.listdir(clip)) == [f".{KEY}.left", f".{KEY}.more", "letters.plan"]


@pytest.mark.parametrize("place", ["plans", "plans/clip", "plans/.locks", "plans/logs"])
def test_build_writes_nothing_through_a_link(
    site: Callable[..., Site], outside: Path, untouched: Watch, place: str
) -> None:
    building = site()
    linked(building.bundle.path, place, outside)
    with pytest.raises(BundleError, match=f"{place} is a symbolic link"):
        building.build("clip", COVERAGE)


def test_a_log_that_is_a_link_is_replaced(
    site: Callable[..., Site], clip_plan: Built, outside: Path, untouched: Watch
) -> None:
    building = site()
    log = f"plans/logs/clip.{clip_plan.manifest.key}.log"
    linked(building.bundle.path, log, outside / "notes")
    building.build("clip", COVERAGE)
    assert not (building.bundle.path / log).is_symlink()
    assert (building.bundle.path / log).stat().st_size > 0


@pytest.mark.parametrize("number", [1, 2])
def test_the_log_of_a_retry_that_is_a_link_is_replaced(
    site: Callable[..., Site], clip_plan: Built, outside: Path, untouched: Watch, number: int
) -> None:
    def fails(job: CompileJob, *_: object, **__: object) -> ProcessResult:
        with job.log.open("a") as log:
            log.write("compiler output")
        failure = Failure(kind=FailureKind.GPU_MEMORY, words="no memory")
        return ProcessResult(compiled=None, failure=failure, peak_bytes=0)

    building = site(compile_plan=fails)
    log = f"plans/logs/clip.{clip_plan.manifest.key}.retry{number}.log"
    linked(building.bundle.path, log, outside / "notes")
    with pytest.raises(BuildError, match="could not be built"):
        building.build("clip", COVERAGE)
    assert (building.bundle.path / log).read_text() == "compiler output"


@pytest.mark.parametrize("place", ["plans", "plans/clip", "caches/timing"])
def test_export_over_a_bundle_takes_nothing_from_outside(
    bundle_copy: Path, checkpoint_path: Path, outside: Path, untouched: Watch, place: str
) -> None:
    linked(bundle_copy, place, outside)
    with pytest.raises(BundleError, match=f"{place} is a symbolic link"):
        export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
    assert Bundle.open(bundle_copy)


def test_a_bundle_of_links_is_refused_with_the_cure(bundle_path: Path, tmp_path: Path) -> None:
    """Hub caches lay downloads so."""
    shutil.copytree(bundle_path, tmp_path / "cache", copy_function=os.symlink)
    with pytest.raises(BundleError, match=r"manifest.json is a symbolic link.*Hub caches.*--local-dir FOLDER"):
        Bundle.open(tmp_path / "cache")


@pytest.fixture
def reaching(bundle_copy: Path, outside: Path) -> Callable[..., Bundle]:
    """Makes a bundle whose denoiser's largest weight lies at a place, everything else as its manifest says."""

    def make(location: str) -> Bundle:
        file = bundle_copy / "graphs/denoiser.onnx"
        model = onnx.load(file, load_external_data=False)
        tensors = [tensor for tensor in model.graph.initializer if tensor.external_data]
        largest = max(tensors, key=lambda tensor: next(int(e.value) for e in tensor.external_data if e.key == "length"))
        next(entry for entry in largest.external_data if entry.key == "location").value = location
        relist(bundle_copy, "graphs/denoiser.onnx", model.SerializeToString())
        return Bundle.open(bundle_copy)

    return make


def _edit(bundle: Bundle, tmp_path: Path, samples: Path) -> None:
    with Kontext.open(bundle, executor=OnnxRuntimeOptions()) as kontext:
        kontext.generate("x", steps=1, seed=0, size=(32, 32))


def _build(bundle: Bundle, tmp_path: Path, samples: Path) -> None:
    from kontext_trt import build_plans

    build_plans(bundle, gpus=["sm_89"], flavour="tensorrt_rtx", components=["denoiser"])


def _calibrate(bundle: Bundle, tmp_path: Path, samples: Path) -> None:
    calibrate_bundle(bundle, samples, tmp_path / "made.json", CalibrationOptions(steps=1, device=TorchDevice.CPU))


def _compare(bundle: Bundle, tmp_path: Path, samples: Path) -> None:
    cases = (CompareCase(prompt="a red fox", seed=0, size=(64, 48)),)
    compare_bundles(bundle, bundle, cases, CompareOptions(steps=1, device=TorchDevice.CPU))


@pytest.mark.parametrize("use", [_edit, _build, _calibrate, _compare])
@pytest.mark.parametrize("location", ["absolute", "up", "linked", "pipe", "unlisted"])
def test_no_weight_is_read_from_elsewhere(
    reaching: Callable[[str], Bundle], bundle_copy: Path, outside: Path, untouched: Watch, samples: Path,
    tmp_path: Path, use: Callable, location: str,
) -> None:  # fmt: skip
    weights = bundle_copy / "graphs/weights"
    (weights / "linked").symlink_to(outside / "notes")
    os.mkfifo(weights / "pipe")
    shutil.copy(next(weights.glob("transformer.*")), weights / "unlisted")
    places = {"absolute": str(outside / "notes"), "up": "../../outside/notes"}
    bundle = reaching(places.get(location, f"weights/{location}"))
    (problem,) = bundle.verify().problems
    assert "is no place inside" in problem or "the manifest does not give to this graph" in problem
    with pytest.raises(BundleError, match=r"is no place inside|the manifest does not give to this graph"):
        use(bundle, tmp_path, samples)


def test_quantizing_reads_no_weight_from_elsewhere(
    reaching: Callable[[str], Bundle], calibration: Calibration, outside: Path, untouched: Watch, tmp_path: Path
) -> None:
    bundle = reaching(str(outside / "notes"))
    with pytest.raises(BundleError, match="is no place inside"):
        quantize_bundle(bundle, tmp_path / "quantized", make_recipe("fp8"), calibration)
    assert not (tmp_path / "quantized").exists()


def test_comparing_writes_no_report_through_a_link(
    bundle_copy: Path, outside: Path, untouched: Watch, tmp_path: Path, samples: Path
) -> None:
    linked(bundle_copy, "reports", outside)
    with pytest.raises(BundleError, match="reports is a symbolic link"):
        _compare(Bundle.open(bundle_copy), tmp_path, samples)


def test_a_plan_that_its_author_says_is_sound_is_not_opened(planned_bundle: Bundle, tmp_path: Path) -> None:
    """Everything fits: its manifest, its hashes, its owner, its mode; only the key was another's."""
    copy = Bundle.open(shutil.copytree(planned_bundle.path, tmp_path / "download"))
    for file in copy.path.glob("plans/*/*.sig"):
        name, mac = file.read_text().split()
        file.write_text(f"{name} {mac[:-1]}{'0' if mac[-1] != '0' else '1'}\n")
    store = PlanStore.of(copy.path)
    entries = list(store.entries())
    assert len(entries) == 6
    for entry in entries:
        assert entry.manifest is not None
        assert not entry.signed
        with pytest.raises(UntrustedPlanError, match="is not signed by your key"):
            store.check_trust(entry.component, entry.key)
        with pytest.raises(UntrustedPlanError):  # `build` neither takes it nor replaces it unasked
            store.find(entry.component, entry.key)


def test_what_is_no_plan_stops_no_pruning(bundle_copy: Path) -> None:
    for place in (f"plans/clip/{KEY}.plan", f"plans/t5/{KEY}.json"):
        (bundle_copy / place).mkdir(parents=True)
    for place in (f"plans/t5/{KEY}.plan", f"plans/vae_encoder/{KEY}.plan"):
        (bundle_copy / place).parent.mkdir(parents=True, exist_ok=True)
        (bundle_copy / place).write_bytes(b"x")
    removals = prune_store(PlanStore.of(bundle_copy), Bundle.open(bundle_copy), everything=True)
    assert [(removal.path.parent.name, removal.in_use) for removal in removals] == [
        ("clip", True),
        ("t5", True),
        ("vae_encoder", False),
    ]
    assert "is no regular file" in removals[0].reason
    assert not (bundle_copy / f"plans/vae_encoder/{KEY}.plan").exists()


def test_without_a_place_for_a_key_plans_are_listed_and_opened_with_trust(
    planned_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container's user may have no home."""
    monkeypatch.setenv(VARIABLE, "/dev/null/none")
    entries = list(PlanStore.of(planned_bundle.path).entries())
    assert [entry.signed for entry in entries] == [False] * 6
    assert "no plan is known as yours" in caplog.text
    for entry in entries:
        with pytest.raises(UntrustedPlanError):
            PlanStore.of(planned_bundle.path).check_trust(entry.component, entry.key)
        assert PlanStore.of(planned_bundle.path, trust=True).check_trust(entry.component, entry.key) == entry.manifest
