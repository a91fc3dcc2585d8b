"""The real compiler, TensorRT-RTX, builds every component for several GPUs; no GPU is needed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from building import Site
from compiler_fixtures import COVERAGE

from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.builder.compile_process import ProcessResult
from kontext_trt.engine.builder.failures import Failure, FailureKind
from kontext_trt.engine.builder.plan_build import BuildPolicy, plan_build
from kontext_trt.engine.bundle.bundle import MANIFEST, Bundle
from kontext_trt.engine.bundle.graph_file import GraphFile
from kontext_trt.engine.components import COMPONENTS, Precision
from kontext_trt.engine.errors import BuildError, BundleError, OptionError, TargetError
from kontext_trt.engine.flavour import Flavour
from kontext_trt.engine.plans.census import remarks
from kontext_trt.engine.plans.coverage import Task
from kontext_trt.engine.plans.machine import Machine
from kontext_trt.engine.plans.options import BuildOptions, Refit
from kontext_trt.engine.plans.store import LOGS, PlanStore
from kontext_trt.engine.plans.targets import Target, make_target

Bundles = Callable[[Precision], Bundle]
TARGETS = ("sm_86", "sm_89", "sm_120", "portable")
# by TensorRT-RTX 1.7: CLIP's only head in the tiny model, 48 wide, has no dedicated kernel
FUSED = {"clip": 0, "t5": 2, "denoiser": 4, "conditioner": 0}
EVERYTHING = [(capability, precision) for capability in TARGETS for precision in (Precision.FP16, Precision.BF16)]
A_TENTH = ("sm_120", Precision.BF16)
"""Of the table of plans; the denoiser's, the largest, are all looked at by the next test."""


@pytest.mark.parametrize(
    ("capability", "precision"),
    [pytest.param(*one, marks=() if one == A_TENTH else pytest.mark.check) for one in EVERYTHING],
)
def test_every_component_builds_for_every_target(
    wide_bundles: Bundles, rtx: Flavour, capability: str, precision: Precision
) -> None:
    bundle = wide_bundles(precision)
    site = Site(bundle, make_target(rtx, capability, ()))
    for name in COMPONENTS:
        plan = site.build(name, COVERAGE).manifest
        census = plan.census
        assert plan.warnings == ()
        assert plan.size_bytes > census.weight_bytes > 0
        assert set(census.gemms) == {precision.value}, "every matrix product is in the precision asked for"
        assert set(census.convolutions) <= {precision.value}
        assert bool(census.convolutions) == name.startswith("vae")
        if name in FUSED:
            assert sum(census.attention.values()) == FUSED[name]
        assert census.activation_bytes > 0
        assert census.io_bytes > 0
        assert census.rounded == (), "tanh and its like are computed in float32"
        assert sum(census.elementwise.values()) > 0, "so the kernels' text was read"
        assert list(remarks(census)) == []


@pytest.mark.parametrize("precision", [pytest.param(Precision.FP16, marks=pytest.mark.check), Precision.BF16])
@pytest.mark.parametrize("capability", ["sm_86", *(pytest.param(one, marks=pytest.mark.check) for one in TARGETS[1:])])
def test_attention_of_the_real_head_size_has_a_dedicated_kernel(
    wide_bundles: Bundles, rtx: Flavour, capability: str, precision: Precision
) -> None:
    bundle = wide_bundles(precision)
    built = Site(bundle, make_target(rtx, capability, ())).build("denoiser", COVERAGE)
    assert built.manifest.census.attention == {precision.value: 4}, "2 double and 2 single blocks"
    assert built.manifest.census.attention_asked == 4
    assert set(built.manifest.census.attention_scales) == {"1"}, "queries come scaled, in float32"
    (log,) = (PlanStore.of(bundle.path).folder / LOGS).glob(f"denoiser.{built.manifest.key}.log")
    listed = [line for line in log.read_text().splitlines() if line.startswith("Name: _gemm_mha_v2")]
    assert len(listed) == 4, "the compiler's own listing"
    heads = "Dimensions: [2,-1,128]"  # heads, tokens, head width
    assert all(heads in line for line in listed)


@pytest.mark.parametrize("tasks", [(Task.EDIT,), (Task.GENERATE,)])
def test_one_task_alone_builds(site: Callable[..., Site], tasks: tuple[Task, ...]) -> None:
    coverage = replace(COVERAGE, tasks=tasks)
    manifest = site().build("denoiser", coverage).manifest
    reference = manifest.ingredients.profile["reference_tokens"]
    assert (reference.min[1] > 0) is (reference.max[1] > 0) is (Task.EDIT in tasks)


def test_options_reach_the_compiler(site: Callable[..., Site]) -> None:
    options = BuildOptions(workspace_bytes=1 << 28, optimization_level=1, max_aux_streams=0, weight_streaming=True)
    manifest = site().build("conditioner", replace(COVERAGE, batch=2), options).manifest
    assert manifest.build.options == options
    assert manifest.ingredients.options == options


def test_the_second_build_finds_the_first(site: Callable[..., Site]) -> None:
    first = site().build("clip", COVERAGE)
    second = site().build("clip", COVERAGE)
    assert (first.reused, second.reused) == (False, True)
    assert first.manifest == second.manifest
    again = site(rebuild=True).build("clip", COVERAGE)
    assert not again.reused
    assert again.path == first.path


def test_a_graph_is_read_once_for_a_plan_that_is_built_and_not_for_one_that_is_there(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process; the compiler's own reads it again."""
    read: list[str] = []
    original = GraphFile.read.__func__  # pyright: ignore[reportFunctionMemberAccess]

    def counted(cls: type[GraphFile], path: Path) -> GraphFile:
        read.append(path.stem)
        return original(cls, path)

    monkeypatch.setattr(GraphFile, "read", classmethod(counted))
    (first,) = site().build_all(["clip"], COVERAGE)
    assert read == ["clip"]
    clip, vae_decoder = site().build_all(["clip", "vae_decoder"], COVERAGE)
    assert (clip.reused, vae_decoder.reused) == (True, False)
    assert read == ["clip", "vae_decoder"]
    first.path.write_bytes(b"damaged")
    assert not site().build("clip", COVERAGE).reused
    assert read == ["clip", "vae_decoder", "clip"]


def test_planning_writes_nothing(wide_bundle: Bundle, ada: Target) -> None:
    before = {path: path.stat().st_mtime_ns for path in wide_bundle.path.rglob("*")}
    planned = plan_build(wide_bundle.path, COMPONENTS, ada, COVERAGE)
    assert [one.ingredients.component for one in planned] == list(COMPONENTS)
    assert {path: path.stat().st_mtime_ns for path in wide_bundle.path.rglob("*")} == before


def test_a_damaged_plan_is_built_again(
    site: Callable[..., Site], put_clip_plan: Callable[..., Built], ada_machine: Machine
) -> None:
    first = put_clip_plan()
    first.path.write_bytes(first.path.read_bytes()[:-1])
    second = site().build("clip", COVERAGE)
    assert not second.reused
    with site().store.open("clip", second.manifest.key, ada_machine) as plan:
        assert len(plan.data) == second.manifest.size_bytes


def test_the_manifest_says_what_the_build_took(clip_plan: Built) -> None:
    report = clip_plan.manifest.build
    assert 0 < report.seconds < 600
    assert report.peak_bytes > 16 << 20
    assert report.weight_bytes > 0


def test_weights_that_were_exchanged_are_refused(site: Callable[..., Site], wide_bundle: Bundle) -> None:
    file = wide_bundle.path / wide_bundle.graph("clip").weights[0]
    data = bytearray(file.read_bytes())
    data[-8:] = bytes(8)
    file.unlink()
    file.write_bytes(data)
    with pytest.raises(BundleError, match="the bundle was opened; open the bundle again"):
        site().build("clip", COVERAGE)
    opened_since = replace(site(), bundle=Bundle.open(wide_bundle.path))
    with pytest.raises(BundleError, match="holds other weights than were exported"):
        opened_since.build("clip", COVERAGE)


def test_bf16_on_turing_is_refused_before_the_compiler_runs(wide_bundle: Bundle, rtx: Flavour) -> None:
    site = Site(wide_bundle, make_target(rtx, "sm_75", ()), compile_plan=_never)
    with pytest.raises(TargetError, match="sm_75 has no bf16, which starts at sm_80; export with --precision fp16"):
        site.build("clip", COVERAGE)


def test_a_format_that_the_gpu_lacks_is_refused_before_anything_is_built(
    wide_bundle: Bundle, rtx: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if only the last component is in it."""
    fp8 = property(lambda graph: "fp8" if graph.path.stem == "denoiser" else "")
    monkeypatch.setattr(GraphFile, "quantized", fp8)
    site = Site(wide_bundle, make_target(rtx, "sm_86", ()), compile_plan=_never)
    with pytest.raises(TargetError, match="sm_86 has no fp8"):
        site.build_all(["clip", "denoiser"], COVERAGE)


def test_rebuilding_needs_room_for_all(
    site: Callable[..., Site], put_clip_plan: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there will be built once more."""
    put_clip_plan()
    monkeypatch.setattr("kontext_trt.engine.builder.preflight.available_bytes", lambda: 1 << 20)
    (again,) = site(_never).build_all(["clip"], COVERAGE)
    assert again.reused
    with pytest.raises(BuildError, match="clip will probably not build here"):
        site(_never, rebuild=True).build_all(["clip"], COVERAGE)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time_to_build_is_refused(seconds: float) -> None:
    with pytest.raises(OptionError, match="a compilation's time must be positive"):
        BuildPolicy(timeout_s=seconds)


def test_graphs_for_onnx_runtime_alone_are_refused_before_anything_is_built(wide_bundle: Bundle, rtx: Flavour) -> None:
    manifest = json.loads((wide_bundle.path / MANIFEST).read_bytes())
    manifest["graphs"]["denoiser"]["operators"] = "onnxruntime"
    (wide_bundle.path / MANIFEST).write_text(json.dumps(manifest))
    site = Site(Bundle.open(wide_bundle.path), make_target(rtx, "sm_89", ()), compile_plan=_never)
    with pytest.raises(
        BuildError, match=r"the denoiser of .* TensorRT does not know; export the checkpoint again with"
    ):
        site.build_all(["clip", "denoiser"], COVERAGE)
    with pytest.raises(BuildError, match="the denoiser of"):
        site.build("denoiser", COVERAGE)


def test_refit_without_a_driver_is_refused_before_the_compiler_runs(site: Callable[..., Site]) -> None:
    with pytest.raises(BuildError, match=r"compiles on the GPU for refit, and this machine has none"):
        site(_never).build("clip", COVERAGE, BuildOptions(refit=Refit.FULL))


def test_too_little_memory_is_said_before_the_compiler_runs(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kontext_trt.engine.builder.preflight.available_bytes", lambda: 1 << 20)
    with pytest.raises(BuildError, match=r"clip will probably not build here: memory: about 1\.0 GiB needed, 0\.0 GiB"):
        site(_never).build("clip", COVERAGE)
    assert site(preflight=False).build("clip", COVERAGE).path.is_file()


def test_room_for_all_components_is_checked_before_the_first(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each plan alone would fit on the disk."""
    usage = SimpleNamespace(free=100 << 20)
    monkeypatch.setattr("kontext_trt.engine.builder.preflight.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(BuildError, match=r"clip, t5 will probably not build here: disk: about 0\.1 GiB needed"):
        site(_never).build_all(["clip", "t5"], COVERAGE)
    assert site().build("clip", COVERAGE).path.is_file()
    assert len(site().build_all(["clip", "t5"], COVERAGE)) == 2


def _never(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the compiler was started")


def test_an_engine_wider_than_asked_fails_unless_it_is_allowed(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real engine is in bf16; that the graph had asked for fp8 is pretended."""
    monkeypatch.setattr("kontext_trt.engine.bundle.graph_file.GraphFile.quantized_products", {"node_linear": "fp8"})
    words = "1 matrix products are astray: node_linear is in bf16, not in fp8"
    with pytest.raises(BuildError, match=f"was built, but not as asked: {words}.*--allow-fallback"):
        site().build("t5", COVERAGE)
    assert list(site().store.entries()) == []
    with caplog.at_level(logging.WARNING):
        kept = site(allow_fallback=True).build("t5", COVERAGE)
    assert kept.manifest.warnings == (words,)
    assert words in caplog.text


def test_a_failure_names_kind_words_advice_and_log(site: Callable[..., Site]) -> None:
    failure = Failure(kind=FailureKind.SHAPES, words="the shape range does not fit the graph")

    def fail(*_: object, **__: object) -> ProcessResult:
        return ProcessResult(compiled=None, failure=failure, peak_bytes=0)

    with pytest.raises(BuildError) as error:
        site(fail).build("clip", COVERAGE)
    text = str(error.value)
    assert text.startswith("clip for sm_89, tensorrt_rtx 1.7.1.116 could not be built (shape range): the shape range")
    assert "--size 128x128" in text
    assert ".log" in text
    assert list(site().store.entries()) == []
