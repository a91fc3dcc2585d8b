"""Builds a bundle's plans for one GPU or several, as a command or a program asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..bundle.bundle import Bundle
from ..errors import OptionError
from ..flavour import load_flavour
from ..plans.coverage import Coverage
from ..plans.options import BuildOptions
from ..plans.targets import choose_flavour, make_target, parse_gpu
from ..progress import Progress
from ..system.gpus import find_gpus
from .build import Built, build
from .plan_build import BuildPolicy, PlannedBuild, check_room, plan_build


def build_plans(
    bundle: Bundle | Path | str,
    *,
    gpus: Sequence[str] = ("current",),
    flavour: str = "auto",
    components: Sequence[str] | None = None,
    coverage: Coverage | None = None,
    options: BuildOptions | None = None,
    policy: BuildPolicy | None = None,
    store: Path | str | None = None,
    progress: Progress | None = None,
    on_built: Callable[[Built], None] | None = None,
) -> list[Built]:
    """Build what is missing in a bundle's store; a compiler starts only when all of it was checked.

    Args:
        bundle: The bundle, or its path.
        gpus: The GPUs to build for: "sm_89", "rtx 5090", "current" or "portable".
        flavour: The library: "auto", "tensorrt" or "tensorrt_rtx".
        components: The names of the components to build; None builds all that the bundle has.
        coverage: What the plans must be able to run; None takes the bundle's sizes and the defaults of `Coverage`.
        options: How plans are built.
        policy: How the build goes about it.
        store: The folder that the plans go to, for a bundle that cannot be written, as `TensorRtOptions.plans` and
            `AnyExecutor.plans` take it; None for the bundle's own.
        progress: Is told of every compilation.
        on_built: Is given every plan as soon as it is there.

    Returns:
        A plan per GPU and component, with those that were there already.

    Raises:
        OptionError: A component or the flavour is unknown.
        TargetError: A GPU is not known, is not there, cannot be built for, or lacks a number type.
        BuildError: A build cannot start, as `plan_build` says, or failed, as `build` says.
        BundleError: The bundle cannot be opened, or its weights are not those exported.
        MissingDependencyError: The library is not installed.
    """
    bundle = Bundle.of(bundle)
    names = list(components or bundle.components)
    folder = None if store is None else Path(store)
    for name in names:
        if name not in bundle.components:
            raise OptionError(f"component must be one of {', '.join(bundle.components)}, not {name!r}")
    coverage = coverage or Coverage(sizes=bundle.manifest.model.sizes)
    here = find_gpus()[0]
    planned: list[PlannedBuild] = []
    for capability in dict.fromkeys(parse_gpu(text, here) for text in gpus):
        library = load_flavour(choose_flavour(flavour, capability, here))
        target = make_target(library, capability, here)
        planned += plan_build(bundle, names, target, coverage, options, gpus=here, policy=policy, store=folder)
    check_room(planned)  # plans for several targets lie on one disk
    built: list[Built] = []
    for one in planned:
        built.append(build(one, progress=progress))
        if on_built is not None:
            on_built(built[-1])
    return built
