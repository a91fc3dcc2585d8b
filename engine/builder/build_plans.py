"""Building a bundle's plans for one GPU or several, as a command or a program asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..bundle.bundle import Bundle
from ..components import COMPONENTS
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
    progress: Progress | None = None,
    on_built: Callable[[Built], None] | None = None,
) -> list[Built]:
    """Build what is missing in a bundle's store; a compiler starts only when all of it was checked.

    Args:
        bundle: the bundle, or its path.
        gpus: the GPUs to build for: "sm_89", "rtx 5090", "current" or "portable".
        flavour: "auto", "tensorrt" or "tensorrt_rtx".
        components: names of the components to build; None builds all six.
        coverage: what the plans must be able to run; None takes the bundle's sizes and the defaults of `Coverage`.
        options: how plans are built.
        policy: how the build goes about it.
        progress: is told of every compilation.
        on_built: is given every plan as soon as it is there.

    Raises OptionError for an unknown component or flavour, TargetError for a GPU that cannot be built for, BuildError
    and BundleError as `plan_build` and `build` do, and MissingDependencyError without the library.
    """
    bundle, names = Bundle.of(bundle), list(components or COMPONENTS)
    for name in names:
        if name not in COMPONENTS:
            raise OptionError(f"component must be one of {', '.join(COMPONENTS)}, not {name!r}")
    coverage = coverage or Coverage(sizes=bundle.manifest.model.sizes)
    here = find_gpus()[0]
    planned: list[PlannedBuild] = []
    for capability in dict.fromkeys(parse_gpu(text, here) for text in gpus):
        library = load_flavour(choose_flavour(flavour, capability, here))
        target = make_target(library, capability, here)
        planned += plan_build(bundle, names, target, coverage, options, gpus=here, policy=policy)
    check_room(planned)  # plans for several targets lie on one disk
    built: list[Built] = []
    for one in planned:
        built.append(build(one, progress=progress))
        if on_built is not None:
            on_built(built[-1])
    return built
