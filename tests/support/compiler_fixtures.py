"""Tiny bundles with the real head size, and plans of them, made once per run by the real compiler."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from building import Site
from stored_plans import put_plan

from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.builder.plan_build import BuildPolicy
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.flavour import Flavour, FlavourName, load_flavour
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.machine import Machine
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.engine.plans.targets import Target, make_target
from kontext_trt.engine.system.gpus import Gpu

COVERAGE = Coverage(sizes=((96, 192), (112, 144), (128, 128), (144, 112), (192, 96)), max_steps=8)
ADA = Gpu(index=0, name="NVIDIA GeForce RTX 4090", major=8, minor=9, memory_bytes=24 << 30)


@pytest.fixture(scope="session")
def rtx() -> Flavour:
    return load_flavour(FlavourName.TENSORRT_RTX)


@pytest.fixture(scope="session")
def ada(rtx: Flavour) -> Target:
    return make_target(rtx, "sm_89", ())


@pytest.fixture
def ada_machine(rtx: Flavour) -> Machine:
    """A machine that can open plans for sm_89, as far as we can tell before the library does."""
    return Machine(flavour=rtx.name, version=rtx.version, gpu=ADA)


@pytest.fixture
def wide_bundle(wide_bundles: Callable[[Precision], Bundle], tmp_path: Path) -> Bundle:
    """A bf16 bundle of one's own, without plans."""
    shared = wide_bundles(Precision.BF16)
    copy = shutil.copytree(shared.path, tmp_path / "bundle", ignore=shutil.ignore_patterns("plans"))
    return Bundle.open(Path(copy))


@pytest.fixture(scope="session")
def clip_plan(wide_bundles: Callable[[Precision], Bundle], ada: Target) -> Built:
    """The smallest plan, in the shared bf16 bundle's store."""
    return Site(wide_bundles(Precision.BF16), ada).build("clip", COVERAGE)


@pytest.fixture
def put_clip_plan(
    wide_bundles: Callable[[Precision], Bundle], wide_bundle: Bundle, rtx: Flavour
) -> Callable[..., Built]:
    """Puts CLIP's plan for a capability into the store of the bundle of one's own, as a build there would. The shared
    bundle's store keeps what was built, so that each is compiled once per run."""

    def put(capability: str = "sm_89", coverage: Coverage = COVERAGE) -> Built:
        target = make_target(rtx, capability, ())
        built = Site(wide_bundles(Precision.BF16), target).build("clip", coverage)
        store, key = PlanStore.of(wide_bundle.path), built.manifest.key
        with store.lock(key):
            path = put_plan(store, built.path.read_bytes(), built.manifest)
        return Built(path=path, manifest=built.manifest, reused=False)

    return put


@pytest.fixture
def site(wide_bundle: Bundle, ada: Target) -> Callable[..., Site]:
    """Sites for sm_89 over a bundle of one's own; arguments are `BuildPolicy`'s, and `compile_plan`."""

    def make(compile_plan: Callable[..., object] | None = None, **policy: object) -> Site:
        extra = {} if compile_plan is None else {"compile_plan": compile_plan}
        return Site(wide_bundle, ada, policy=BuildPolicy(**policy), **extra)  # pyright: ignore[reportArgumentType]

    return make
