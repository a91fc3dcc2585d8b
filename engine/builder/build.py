"""From a bundle's graphs to plans in its store: what is missing is built, one component after another."""

from __future__ import annotations

import datetime
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...version import __version__
from ..bundle.bundle import Bundle
from ..bundle.graph_file import GraphFile
from ..bundle.tensor_file import TensorFile
from ..errors import BuildError, BundleError, RequestError
from ..flavour import Flavour
from ..plans.caches import TIMING, cache_path
from ..plans.census import Census
from ..plans.coverage import Coverage
from ..plans.ingredients import Ingredients, plan_ingredients
from ..plans.manifest import SCHEMA, BuildReport, PlanManifest
from ..plans.options import BuildOptions, check_options
from ..plans.store import PlanStore
from ..plans.targets import Target, capability_of, check_formats
from ..progress import Progress, Silent
from ..system.gpus import Gpu
from .attempts import Attempt, Compile, compile_with_retries
from .compile import CompileJob
from .compile_process import run_compilation
from .failures import advice
from .inspection import inspect_build, not_as_asked
from .preflight import check_operators, estimate, lacks, measure, together

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPolicy:
    """How a build goes about it. None of this changes a plan's key.

    Args:
        rebuild: build even if the store has the plan.
        allow_fallback: keep an engine that is not in the precision asked for; its manifest says what it lacks.
        preflight: refuse to start where memory or disk will probably not suffice.
        timing_cache: use and extend the bundle's timing cache (TensorRT only).
        timeout_s: end a compilation after so many seconds.
    """

    rebuild: bool = False
    allow_fallback: bool = False
    preflight: bool = True
    timing_cache: bool = True
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise RequestError(f"a compilation's time must be positive, not {self.timeout_s} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan in the store. `reused` if it was there already."""

    path: Path
    manifest: PlanManifest
    reused: bool


class Builder:
    """Builds plans of one bundle for one target. `gpus` are this machine's."""

    def __init__(
        self,
        bundle: Bundle,
        flavour: Flavour,
        target: Target,
        *,
        gpus: Sequence[Gpu] = (),
        policy: BuildPolicy | None = None,
        progress: Progress | None = None,
        compile_plan: Compile = run_compilation,
    ) -> None:
        self.bundle, self.flavour, self.target = bundle, flavour, target
        self.policy, self.progress, self.compile_plan = policy or BuildPolicy(), progress or Silent(), compile_plan
        self.has_driver = bool(gpus)
        self.gpu = next((gpu for gpu in gpus if capability_of(gpu) == target.capability), None)
        self.store = PlanStore.of(bundle.path)

    def build_all(
        self, components: Sequence[str], coverage: Coverage, options: BuildOptions | None = None
    ) -> Iterator[Built]:
        """Plans of several components, one after another; the first is built only if there is room for all.

        Raises as `build` does.
        """
        wanted = self.check_all(components, coverage, options)
        if self.policy.preflight:
            rebuild = self.policy.rebuild
            self._preflight([one for one in wanted if rebuild or not self.store.path(one.component, one.key).is_file()])
        for name in components:
            yield self.build(name, coverage, options)

    def check_all(
        self, components: Sequence[str], coverage: Coverage, options: BuildOptions | None = None
    ) -> list[Ingredients]:
        """What is to be built, if all of it can be. Raises TargetError and BuildError as `build` does for what no
        machine could build."""
        check_operators(self.bundle, components)
        wanted = [plan_ingredients(self.bundle, name, self.target, coverage, options) for name in components]
        for one in wanted:
            check_options(one.options, self.flavour, has_driver=self.has_driver)
            self._read(one)
        return wanted

    def _read(self, ingredients: Ingredients) -> GraphFile:
        graph = GraphFile.read(self.bundle.graph_path(ingredients.component))
        check_formats(self.target.capability, filter(None, (ingredients.precision.value, graph.quantized)))
        return graph

    def build(self, component: str, coverage: Coverage, options: BuildOptions | None = None) -> Built:
        """The component's plan: the stored one if it is sound, else a new one.

        Raises TargetError if the GPU lacks a number type, BuildError if the graph is for ONNX Runtime alone, memory or
        disk will not suffice, the compiler fails, or the engine is not in the precision asked for; BundleError if the
        weights are not those exported.
        """
        check_operators(self.bundle, [component])
        ingredients = plan_ingredients(self.bundle, component, self.target, coverage, options)
        check_options(ingredients.options, self.flavour, has_driver=self.has_driver)

        def waiting() -> None:
            logger.warning("%s %s is being built by another process; waiting for it", component, ingredients.key)

        with self.store.lock(ingredients.key, waiting):
            found = None if self.policy.rebuild else self.store.find(component, ingredients.key)
            if found is not None:
                return Built(path=self.store.path(component, found.key), manifest=found, reused=True)
            return self._make(ingredients)

    def _make(self, ingredients: Ingredients) -> Built:
        graph = self._read(ingredients)
        self._check_weights(ingredients.component)
        if self.policy.preflight:
            self._preflight([ingredients])
        with self._workplace(ingredients) as (plan, log):
            attempt = self._compile(ingredients, plan, log)
            census = inspect_build(ingredients, graph, self.bundle.manifest.model, attempt)
            warnings = not_as_asked(ingredients, census)
            self._accept(ingredients, warnings, attempt.log)
            manifest = self._manifest(ingredients, attempt, census, warnings)
            return Built(path=self.store.add(plan, manifest), manifest=manifest, reused=False)

    def _check_weights(self, component: str) -> None:
        used = self.bundle.graph(component).weights
        for record in self.bundle.manifest.weights:
            if record.path in used:
                found = TensorFile.open(self.bundle.path / record.path).sample_sha256()
                if found != record.sample_sha256:
                    raise BundleError(f"{record.path} holds other weights than were exported; export the bundle again")

    def _preflight(self, wanted: Sequence[Ingredients]) -> None:
        needed = together(
            [
                estimate(
                    (graph := self.bundle.graph(one.component)).weight_bytes,
                    self.flavour,
                    one.options.workspace_bytes,
                    nvfp4=graph.quantization is not None and "nvfp4" in graph.quantization.products,
                )
                for one in wanted
            ]
        )
        missing = list(lacks(needed, measure(self.store.folder, self.flavour, self.gpu)))
        if missing:
            names = ", ".join(one.component for one in wanted)
            raise BuildError(
                f"{names} will probably not build here: {'; '.join(missing)}. Try all the same with --no-preflight"
            )

    @contextmanager
    def _workplace(self, ingredients: Ingredients) -> Iterator[tuple[Path, Path]]:
        """A temporary plan file in the store's file system, gone when the block ends, and a log file that is kept."""
        component, key = ingredients.component, ingredients.key
        folder = self.store.path(component, key).parent
        folder.mkdir(parents=True, exist_ok=True)
        self.store.logs.mkdir(exist_ok=True)
        for left in folder.glob(f".{key}.*"):  # by a build that was ended; the key's lock is ours
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{key}.") as temporary:
            yield Path(temporary) / "plan", self.store.logs / f"{component}.{key}.log"

    def _compile(self, ingredients: Ingredients, plan: Path, log: Path) -> Attempt:
        timed = self.flavour.times_tactics and self.policy.timing_cache
        job = CompileJob(
            component=ingredients.component,
            graph=self.bundle.graph_path(ingredients.component),
            plan=plan,
            log=log,
            target=self.target,
            profile=ingredients.profile,
            options=ingredients.options,
            timing_cache=cache_path(self.bundle.path, TIMING, self.target) if timed else None,
            device=self.gpu.index if self.gpu and not self.flavour.ahead_of_time else None,
        )
        attempt = compile_with_retries(
            job,
            self.progress,
            timeout_s=self.policy.timeout_s,
            gpu_bytes=self.gpu.memory_bytes if self.gpu and not self.flavour.ahead_of_time else None,
            compile_plan=self.compile_plan,
        )
        if attempt.failure is not None:
            raise BuildError(
                f"{ingredients.component} for {self.target} could not be built ({attempt.failure.kind.value}): "
                f"{attempt.failure.words}{advice(attempt.failure, ingredients.coverage)}. The log is {attempt.log}"
            )
        return attempt

    def _accept(self, ingredients: Ingredients, found: tuple[str, ...], log: Path) -> None:
        """Raise BuildError for what an engine does not do as asked, or only say it if the policy allows it."""
        if found and not self.policy.allow_fallback:
            raise BuildError(
                f"{ingredients.component} for {self.target} was built, but not as asked: {'; '.join(found)}. Take it "
                f"all the same with --allow-fallback. The log is {log}"
            )
        for words in found:
            logger.warning("%s for %s: %s", ingredients.component, self.target, words)

    def _manifest(
        self, ingredients: Ingredients, attempt: Attempt, census: Census, warnings: tuple[str, ...]
    ) -> PlanManifest:
        assert attempt.compiled is not None
        return PlanManifest(
            schema=SCHEMA,
            key=ingredients.key,
            ingredients=ingredients,
            size_bytes=attempt.compiled.size_bytes,
            chunked_sha256=attempt.compiled.chunked_sha256,
            producer=f"kontext-trt {__version__}",
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            build=BuildReport(
                options=attempt.options,
                seconds=round(attempt.seconds, 3),
                weight_bytes=self.bundle.graph(ingredients.component).weight_bytes,
                peak_bytes=attempt.peak_bytes,
            ),
            census=census,
            warnings=warnings,
        )
