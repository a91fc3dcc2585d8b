"""Runs the first phase of a build: what is to be built, and whether it can be. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle.bundle import Bundle
from ..bundle.graph_file import GraphFile
from ..errors import BuildError, OptionError, PlanError, UntrustedPlanError
from ..flavour import Flavour, FlavourName, load_flavour
from ..plans.coverage import Coverage
from ..plans.ingredients import Ingredients, plan_ingredients
from ..plans.options import BuildOptions, check_options
from ..plans.store import PlanStore
from ..plans.targets import Target, capability_of, check_formats
from ..system.gpus import Gpu
from .preflight import Estimate, check_operators, estimate, lacks, measure, together


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPolicy:
    """Says how a build goes about it. None of this changes a plan's key.

    Attributes:
        rebuild: True to build even if the store has the plan.
        allow_fallback: True to keep an engine that is not in the precision asked for; its manifest says what it lacks.
        preflight: True to refuse to start where memory or disk will probably not suffice.
        timing_cache: True to use and extend the bundle's timing cache (TensorRT only).
        timeout_s: The seconds after which a compilation is ended; None lets it take as long as it needs.

    Raises:
        OptionError: `timeout_s` is not positive.
    """

    rebuild: bool = False
    allow_fallback: bool = False
    preflight: bool = True
    timing_cache: bool = True
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise OptionError(f"a compilation's time must be positive, not {self.timeout_s} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBuild:
    """Describes one component's build, checked: what `build` takes.

    Attributes:
        bundle: The bundle that the plan is for.
        flavour: The library that builds.
        ingredients: What the plan is made of.
        graph: The component's graph; None where the store has a file under the key, which is taken if it turns out to
            be sound.
        policy: How the build goes about it.
        gpu: This machine's GPU of the target's capability; None without one.
        store: Where the plan goes.
    """

    bundle: Bundle
    flavour: Flavour
    ingredients: Ingredients
    graph: GraphFile | None
    policy: BuildPolicy
    gpu: Gpu | None
    store: PlanStore

    @property
    def plan(self) -> Path:
        """The place where the plan lies, or will lie."""
        return self.store.path(self.ingredients.component, self.ingredients.key)


def plan_build(
    bundle: Bundle | Path | str,
    components: Iterable[str],
    target: Target,
    coverage: Coverage,
    options: BuildOptions | None = None,
    *,
    gpus: Sequence[Gpu] = (),
    policy: BuildPolicy | None = None,
    store: Path | None = None,
) -> tuple[PlannedBuild, ...]:
    """Check all that can be checked before a compiler runs, and say what `build` is to do.

    Args:
        bundle: The bundle, or its path.
        components: The names of the components to build.
        target: The library and the GPU to build for.
        coverage: What the plans must be able to run.
        options: How plans are built.
        gpus: This machine's GPUs.
        policy: How the build goes about it.
        store: The folder of the plans, which is made if there is none; None for the bundle's own.

    Returns:
        A build per component, in their order.

    Raises:
        TargetError: The GPU lacks a number type.
        BuildError: A graph is for ONNX Runtime alone, the library does not have an option, or memory or disk will not
            suffice for all that is missing in the store.
        UntrustedPlanError: The store has such a plan, and this user did not sign it.
        MissingDependencyError: The library is not installed.
    """
    bundle, policy, names = Bundle.of(bundle), policy or BuildPolicy(), list(components)
    flavour = load_flavour(FlavourName(target.flavour))
    check_operators(bundle, names)
    check_options(options or BuildOptions(), flavour, has_driver=bool(gpus))
    gpu = next((gpu for gpu in gpus if capability_of(gpu) == target.capability), None)
    kept, planned = PlanStore.of(bundle.path, store), []
    for name in names:
        ingredients = plan_ingredients(bundle, name, target, coverage, options)
        there = not policy.rebuild and _is_there(kept, name, ingredients.key)
        graph = None if there else read_graph(bundle, ingredients)
        planned.append(
            PlannedBuild(
                bundle=bundle,
                flavour=flavour,
                ingredients=ingredients,
                graph=graph,
                policy=policy,
                gpu=gpu,
                store=kept,
            )
        )
    check_room(planned)
    return tuple(planned)


def _is_there(store: PlanStore, component: str, key: str) -> bool:
    """Return whether a store has a plan under a key whose manifest is sound.

    Raises:
        UntrustedPlanError: This user did not sign it: it is neither taken as built nor replaced unasked.
    """
    try:
        store.check_trust(component, key)
    except UntrustedPlanError as error:
        raise UntrustedPlanError(f"{error}. To build it anew: --rebuild") from None
    except PlanError:
        return False
    return True


def read_graph(bundle: Bundle, ingredients: Ingredients) -> GraphFile:
    """Read the component's graph.

    Raises:
        TargetError: The target's GPU lacks a number type that the graph has.
    """
    graph = bundle.open_graph(ingredients.component)
    formats = filter(None, (ingredients.precision.value, graph.quantized))
    check_formats(ingredients.target.capability, formats)
    return graph


def check_room(planned: Iterable[PlannedBuild]) -> None:
    """Raise BuildError if memory or disk will probably not suffice for all plans that are not in the store.

    They are built one after another. Those whose policy wants no such check do not count.
    """
    wanted = [one for one in planned if one.graph is not None and one.policy.preflight]
    if not wanted:
        return
    needed = together([_estimate(one) for one in wanted])
    places = {(one.flavour.name, one.gpu): one for one in wanted}.values()
    missing = dict.fromkeys(
        words for one in places for words in lacks(needed, measure(one.store.folder, one.flavour, one.gpu))
    )
    if missing:
        names = ", ".join(dict.fromkeys(one.ingredients.component for one in wanted))
        raise BuildError(
            f"{names} will probably not build here: {'; '.join(missing)}. Try all the same with --no-preflight"
        )


def _estimate(one: PlannedBuild) -> Estimate:
    record = one.bundle.graph(one.ingredients.component)
    return estimate(
        record.weight_bytes,
        one.flavour,
        one.ingredients.options.workspace_bytes,
        nvfp4=record.quantization is not None and "nvfp4" in record.quantization.products,
    )
