"""Serves a bundle from several processes on one machine or many, as a deployment of Ray Serve."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import ray  # pyright: ignore[reportMissingImports]  # an extra that the environment of tests lacks
from ray import serve  # pyright: ignore[reportMissingImports]
from starlette.applications import Starlette

from ..engine.errors import KontextError, OptionError
from .replica import Served

NAME = "kontext"
"""The name of the application and of its deployment, as Ray's own tools show it."""
ONGOING_BESIDE = 256
"""The requests of one replica beside those that wait for pictures: uploads, results, questions for health.

A replica answers at once what its own queue has no place for, so Ray's limit is above that queue, and not reached.
"""
QUEUED = 64
"""The requests that wait in Ray's proxy while no replica takes them, such as when all begin anew."""
RETRY_SECONDS = 10
OBJECT_STORE_BYTES = 512 << 20
"""The shared memory of a Ray that is started here; bodies above 100 KB pass through it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Says how many replicas there are, and what each has.

    Attributes:
        replicas: The number of replicas, or the least of them.
        most: The most replicas: Ray starts and stops them by load. None for a fixed number.
        ongoing: The requests per replica that Ray aims at, where it may start and stop them.
        gpus: The GPUs of one replica, as many as share its requests; 0 on a CPU.
        cpus: The CPU cores that Ray counts for one replica. ONNX Runtime on a CPU is not bound by it.
        more: Further options of Ray's deployment, by Ray's names; they count before those above.

    Raises:
        OptionError: A number is out of range, or an option is not one that Ray takes.
    """

    replicas: int = 1
    most: int | None = None
    ongoing: float = 2.0
    gpus: float = 1.0
    cpus: float = 1.0
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise OptionError(f"there is 1 replica at least, not {self.replicas}")
        if self.most is not None and self.most < self.replicas:
            raise OptionError(
                f"the most replicas are {self.replicas} at least, as many as there always are, not {self.most}"
            )
        for what, value in (("GPUs", self.gpus), ("CPU cores", self.cpus)):
            if not 0 <= value < float("inf"):
                raise OptionError(f"a replica has 0 or more {what}, not {value}")
        if not 0 < self.ongoing < float("inf"):
            raise OptionError(f"the requests per replica to aim at are a number above 0, not {self.ongoing}")

    def options(self, waiting: int, seconds: float) -> dict[str, Any]:
        """Return the deployment's options as Ray names them.

        Args:
            waiting: The requests that wait in a replica's own queue.
            seconds: The seconds that a request may take.
        """
        count: dict[str, Any] = {"num_replicas": self.replicas}
        if self.most is not None:
            bounds = {"min_replicas": self.replicas, "max_replicas": self.most}
            count = {"autoscaling_config": {**bounds, "target_ongoing_requests": self.ongoing}}
        if "autoscaling_config" in self.more:
            count = {}
        return {
            **count,
            "name": NAME,
            "ray_actor_options": {"num_gpus": self.gpus, "num_cpus": self.cpus},
            "max_ongoing_requests": waiting + 1 + ONGOING_BESIDE,
            "max_queued_requests": QUEUED,
            "backpressure_config": {"status_code": 429, "retry_after_s": RETRY_SECONDS},
            "graceful_shutdown_timeout_s": seconds,
            **self.more,
        }


def application(served: Served, scaling: Scaling) -> serve.Application:
    """Return the application of Ray Serve, to be run with `ray.serve.run` or written into a configuration of Ray's.

    Raises:
        OptionError: Ray does not take an option of the deployment, or a replica has not the GPUs of its devices.
    """

    class Replica:
        """Serves in each process that Ray starts; the methods have Ray's names."""

        def __serve_build_asgi_app__(self) -> Starlette:
            self._app = served.app(serve.get_replica_context().replica_id.unique_id)
            return self._app

        def check_health(self) -> None:
            """Raise Refusal when what computes is lost: Ray then starts another replica in this one's place."""
            self._app.state.service.health.check()

    limits = served.options.limits
    served.check_gpus(scaling.gpus)
    try:
        deployment = serve.deployment(serve.ingress()(Replica))
        return deployment.options(**scaling.options(limits.waiting, limits.seconds)).bind()
    except (TypeError, ValueError) as error:
        raise OptionError(f"Ray does not take these options of a deployment: {error}") from error


def serve_replicas(served: Served, scaling: Scaling, *, host: str, port: int, address: str = "local") -> None:
    """Serve from replicas until the process is told to stop.

    Args:
        served: What each replica serves.
        scaling: How many there are.
        host: The address that Ray's proxies listen on.
        port: Their port.
        address: The Ray cluster, such as "auto" for the one of this machine; "local" starts one that ends with this
            process.

    Raises:
        OptionError: Ray does not take an option of the deployment, or a folder cannot be used.
        BundleError: The bundle is not sound, or takes no LoRAs and there is a folder of them.
        KontextError: The replicas do not start.
    """
    served.check()
    built = application(served, scaling)
    signals = _Signals()
    with _ray(address):
        serve.start(http_options={"host": host, "port": port, "keep_alive_timeout_s": 30})
        try:
            serve.run(built, name=NAME, route_prefix="/")
            logger.info("replicas serve %s on http://%s:%d", served.bundle, host, port)
            signals.wait()
        except RuntimeError as error:
            raise KontextError(f"the replicas do not start: {error}") from error
        finally:
            serve.delete(NAME)
    signals.end()


@contextmanager
def _ray(address: str) -> Iterator[None]:
    """Give a context that is connected to a cluster, or has started one."""
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(address, log_to_driver=True, logging_level="warning", **(own if address == "local" else {}))
    try:
        yield
    finally:
        if address == "local":
            serve.shutdown()
        ray.shutdown()


class _Signals:
    """Waits for SIGTERM or an interrupt, in the place of Ray's handlers, which end the process at once."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._event = threading.Event()
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def wait(self) -> None:
        """Wait until the process is told to stop."""
        for number in self._before:
            signal.signal(number, self._stop)
        self._event.wait()

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._came.append(number)
        self._event.set()

    def end(self) -> None:
        """Set the handlers back, and end as the signal that came does."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came:
            signal.raise_signal(self._came[0])
