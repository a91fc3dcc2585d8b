"""The device executor over a simulated GPU and a simulated TensorRT."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from few_descriptors import cycles_of_this_block
from once_per_run import OncePerRun
from simulated_cuda import SimulatedCuda
from simulated_tensorrt import MACHINE, Library, SimulatedFlavour, add_plans

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.runtime.device.executor import DeviceExecutor, DeviceOptions
from kontext_trt.runtime.device.residency import plan_residency
from kontext_trt.runtime.executors.on_device import plan_costs
from kontext_trt.runtime.executors.tensorrt import TensorRtEngines
from kontext_trt.runtime.flow.tensors import request_tensors, total_bytes, usual_shape

COVERAGE = Coverage(sizes=((32, 32), (48, 80), (96, 192), (128, 128), (192, 96)), batch=4, max_steps=50)


@pytest.fixture(scope="session")
def planned_bundle(bundle_path: Path, once_per_run: OncePerRun) -> Bundle:
    """The tiny bundle with plans for the simulated machine, the denoiser's weights streamable. Not to be altered."""

    def write(path: Path) -> None:
        add_plans(Bundle.open(shutil.copytree(bundle_path, path)), COVERAGE, streamable=("denoiser",))

    return Bundle.open(once_per_run.make("planned", write))


class Simulation:
    """A session over the simulation, and all that a test may want to turn."""

    def __init__(
        self, bundle: Bundle, *, budget: int | None = None, memory_bytes: int = 4 << 30, residencies=None, **options
    ) -> None:
        self.bundle = bundle
        self.cuda = SimulatedCuda(memory_bytes)
        self.library = Library(self.cuda, bundle)
        store = PlanStore.of(bundle.path)
        self.plans = {entry.component: entry.manifest for entry in store.entries() if entry.manifest is not None}
        # plans of the simulation are small files; what they take is what the graphs say
        costs = {
            name: replace(cost, weights=bundle.graph(name).weight_bytes)
            for name, cost in plan_costs(bundle, self.plans).items()
        }
        buffers = request_tensors(bundle, usual_shape(bundle))
        self.residency = plan_residency(costs, fixed=total_bytes(buffers), budget=budget or memory_bytes)
        if residencies is not None:
            self.residency = replace(
                self.residency,
                residencies={**self.residency.residencies, **residencies},
                streaming_budget=options.pop("streaming_budget", 0),
            )
        flavour = SimulatedFlavour(self.library)
        self.engines = TensorRtEngines(bundle, store, self.plans, flavour, MACHINE, self.cuda)
        join = options.pop("join", None)
        options = DeviceOptions(**options)
        self.executor = DeviceExecutor(
            bundle, self.engines, self.cuda, self.residency, options, join=join and partial(join, self.cuda)
        )
        self.kontext = Kontext(bundle, self.executor)

    def latents(self, **request) -> list:
        """Of one request, as nested lists: equal only if bit for bit so."""
        request = {"prompt": "x", "seed": 1, "steps": 3, "size": (48, 80)} | request
        image = request.pop("image", None)
        result = self.kontext.generate(**request) if image is None else self.kontext.edit(image, **request)
        return [output.latents.tolist() for output in result.outputs]

    @property
    def graphs(self) -> int:
        return len(self.executor._graphs)


@pytest.fixture
def simulate(planned_bundle: Bundle) -> Iterator[Callable[..., Simulation]]:
    """Opens simulations, and sees to it that each gives everything back."""
    opened: list[Simulation] = []

    def make(**options) -> Simulation:
        opened.append(Simulation(options.pop("bundle", planned_bundle), **options))
        return opened[-1]

    with cycles_of_this_block():
        yield make
        for simulation in opened:
            simulation.kontext.close()
            if simulation.library.loaded:
                gc.collect()  # exceptions that a test caught itself hold engines in their frames
            if simulation.cuda.lost is None:
                assert simulation.cuda.allocated == 0
                assert simulation.cuda.open_handles == 0
                assert not simulation.cuda._host
                assert simulation.library.loaded == []
