"""Building one component after another for one target, as most tests of plans do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kontext_trt.engine.builder.attempts import Compile
from kontext_trt.engine.builder.build import Built, build
from kontext_trt.engine.builder.compile_process import run_compilation
from kontext_trt.engine.builder.plan_build import BuildPolicy, plan_build
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.flavour import FlavourName, load_flavour
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.engine.plans.targets import Target, make_target
from kontext_trt.engine.system.gpus import Gpu


@dataclass(frozen=True, slots=True)
class Site:
    """A bundle and a target that components are built for, all in the same way."""

    bundle: Bundle
    target: Target
    gpus: Sequence[Gpu] = ()
    policy: BuildPolicy | None = None
    compile_plan: Compile = run_compilation

    @property
    def store(self) -> PlanStore:
        return PlanStore.of(self.bundle.path)

    def build_all(
        self, components: Sequence[str], coverage: Coverage, options: BuildOptions | None = None
    ) -> list[Built]:
        """Both phases: all are planned before the first is built."""
        planned = plan_build(
            self.bundle, components, self.target, coverage, options, gpus=self.gpus, policy=self.policy
        )
        return [build(one, compile_plan=self.compile_plan) for one in planned]

    def build(self, component: str, coverage: Coverage, options: BuildOptions | None = None) -> Built:
        (built,) = self.build_all([component], coverage, options)
        return built


def build_ahead(bundle: Bundle, component: str = "denoiser") -> Built:
    """Build a component by TensorRT-RTX for sm_120, at one small size."""
    target = make_target(load_flavour(FlavourName.TENSORRT_RTX), "sm_120", ())
    return Site(bundle, target).build(component, Coverage(sizes=((128, 128),), max_steps=8))
