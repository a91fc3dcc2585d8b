"""Runs the second phase of a build: from a graph, as `plan_build` checked it, to a plan in the bundle's store."""

from __future__ import annotations

import datetime
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ...version import __version__
from ..bundle.folder import Folder
from ..bundle.graph_file import GraphFile
from ..documents import TEXT_LENGTH
from ..errors import BuildError
from ..plans.caches import TIMING, cache_file
from ..plans.census import Census, remarks
from ..plans.leftovers import PLAN, leftover_bytes, remove_leftover
from ..plans.manifest import SCHEMA, BuildReport, PlanManifest
from ..plans.store import LOGS
from ..printable import printable_line
from ..progress import Progress, Silent
from ..system.signing import own_key
from .attempts import Attempt, Compile, compile_with_retries
from .compile import CompileJob
from .compile_process import run_compilation
from .failures import advice
from .inspection import inspect_build, not_as_asked
from .plan_build import PlannedBuild, check_room, read_graph

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Holds a plan in the store.

    Attributes:
        path: The plan's file.
        manifest: What it was built from and for, and what the compiler made of it.
        reused: True if it was there already.
    """

    path: Path
    manifest: PlanManifest
    reused: bool


def build(planned: PlannedBuild, *, progress: Progress | None = None, compile_plan: Compile = run_compilation) -> Built:
    """Return the stored plan if it is sound, else build a new one.

    A stored plan that is damaged is built again, and then checked as `plan_build` does.

    Args:
        planned: The build, as `plan_build` checked it.
        progress: What is told of the compilation.
        compile_plan: What runs the compiler.

    Returns:
        The plan in the store.

    Raises:
        BuildError: The compiler failed, or the engine is not as asked and the policy does not allow that.
        BundleError: The weights are not those exported.
    """
    component, key = planned.ingredients.component, planned.ingredients.key

    def waiting() -> None:
        logger.warning("%s %s is being built by another process; waiting for it", component, key)

    with planned.store.lock(key, waiting):
        found = None if planned.policy.rebuild else planned.store.find(component, key)
        if found is not None:
            return Built(path=planned.plan, manifest=found, reused=True)
        graph = planned.graph
        if graph is None:
            graph = read_graph(planned.bundle, planned.ingredients)
            check_room([replace(planned, graph=graph)])
        return _make(planned, graph, progress or Silent(), compile_plan)


def _make(planned: PlannedBuild, graph: GraphFile, progress: Progress, compile_plan: Compile) -> Built:
    ingredients, bundle = planned.ingredients, planned.bundle
    bundle.check_weights(ingredients.component)
    own_key()  # that the plan cannot be signed, must not be found after an hour
    with _workplace(planned) as (folder, log):
        attempt = _compile(planned, graph, folder.path / PLAN, log, progress, compile_plan)
        census = inspect_build(ingredients, graph, bundle, attempt, folder.path / PLAN)
        for words in remarks(census):
            logger.warning("%s for %s: %s", ingredients.component, ingredients.target, words)
        warnings = tuple(printable_line(words)[:TEXT_LENGTH] for words in not_as_asked(ingredients, census))
        _accept(planned, warnings, attempt.log)
        manifest = _manifest(planned, attempt, census, warnings)
        return Built(path=planned.store.add(folder, manifest), manifest=manifest, reused=False)


@contextmanager
def _workplace(planned: PlannedBuild) -> Iterator[tuple[Folder, Path]]:
    """Yield a folder in the store for the plan, gone when the block ends, and an empty log file, which is kept."""
    component, key, store = planned.ingredients.component, planned.ingredients.key, planned.store
    with store.opened(component, create=True) as plans, store.opened(LOGS, create=True) as logs:
        for left in store.unfinished():  # by a build that was ended; the key's lock is ours
            if (left.component, left.key) == (component, key) and leftover_bytes(plans, left.name) is not None:
                remove_leftover(plans, left.name)
        log = logs.fresh(f"{component}.{key}.log")
        name = f".{key}.{secrets.token_hex(4)}"
        with plans.new_folder(name) as folder:
            try:
                yield folder, log
            finally:
                remove_leftover(plans, name)


def _compile(
    planned: PlannedBuild, graph: GraphFile, plan: Path, log: Path, progress: Progress, compile_plan: Compile
) -> Attempt:
    ingredients, flavour, target = planned.ingredients, planned.flavour, planned.ingredients.target
    timed = flavour.times_tactics and planned.policy.timing_cache
    gpu = None if flavour.ahead_of_time else planned.gpu
    job = CompileJob(
        component=ingredients.component,
        graph=graph.path,
        plan=plan,
        log=log,
        target=target,
        profile=ingredients.profile,
        options=ingredients.options,
        timing_cache=cache_file(planned.bundle.path, TIMING, target) if timed else None,
        device=gpu.index if gpu else None,
    )
    attempt = compile_with_retries(
        job,
        progress,
        timeout_s=planned.policy.timeout_s,
        gpu_bytes=gpu.memory_bytes if gpu else None,
        compile_plan=compile_plan,
    )
    if attempt.failure is not None:
        raise BuildError(
            f"{ingredients.component} for {target} could not be built ({attempt.failure.kind.value}): "
            f"{attempt.failure.words}{advice(attempt.failure, ingredients.coverage)}. The log is {attempt.log}"
        )
    return attempt


def _accept(planned: PlannedBuild, found: tuple[str, ...], log: Path) -> None:
    """Raise BuildError for what an engine does not do as asked, or only say it if the policy allows it."""
    component, target = planned.ingredients.component, planned.ingredients.target
    if found and not planned.policy.allow_fallback:
        raise BuildError(
            f"{component} for {target} was built, but not as asked: {'; '.join(found)}. Take it "
            f"all the same with --allow-fallback. The log is {log}"
        )
    for words in found:
        logger.warning("%s for %s: %s", component, target, words)


def _manifest(planned: PlannedBuild, attempt: Attempt, census: Census, warnings: tuple[str, ...]) -> PlanManifest:
    assert attempt.compiled is not None
    ingredients = planned.ingredients
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
            weight_bytes=planned.bundle.graph(ingredients.component).weight_bytes,
            peak_bytes=attempt.peak_bytes,
        ),
        census=census,
        warnings=warnings,
    )
