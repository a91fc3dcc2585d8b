"""Counts what a server does, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily

if TYPE_CHECKING:
    from ..runtime.filters.screen import FilterCount
    from ..runtime.outputs.result import Result

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class _FilterCollector:
    """Collects the counts of filters."""

    def __init__(self, counts: Callable[[], Sequence[FilterCount]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield one family of all counts."""
        words = "Prompts and pictures that filters were asked about, by what they answered."
        family = CounterMetricFamily("kontext_filtered", words, labels=("filter", "stage", "answer"))
        for one in self._counts():
            for answer, value in (("allowed", one.allowed), ("refused", one.refused), ("failed", one.failed)):
                family.add_metric([one.filter, one.stage.value, answer], value)
        yield family


class Metrics:
    """Holds the counters of one server, in a registry of its own, and those of the process: memory, CPU, files.

    Args:
        replica: What all of them are labelled with, "" for nothing.
    """

    def __init__(self, replica: str = "") -> None:
        self._replica = replica
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "kontext_requests", "Answers by address and status.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "kontext_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waited = Histogram(
            "kontext_waited_seconds",
            "Seconds that a request waited for its turns.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "kontext_stage_seconds",
            "Seconds per stage of a picture.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pictures = Counter("kontext_pictures", "Pictures that were made.", registry=self.registry)
        self.cancelled = Counter(
            "kontext_cancelled",
            "Requests that ended before their answer, by reason.",
            ("reason",),
            registry=self.registry,
        )

    def show(self, name: str, words: str, value: Callable[[], float]) -> None:
        """Show a value that is looked up when it is asked for."""
        Gauge(name, words, registry=self.registry).set_function(value)

    def count_filters(self, counts: Callable[[], Sequence[FilterCount]]) -> None:
        """Show what filters allowed and refused, as it is when it is asked for."""
        self.registry.register(_FilterCollector(counts))

    def made(self, result: Result, seconds: float) -> None:
        """Count what a result says of itself, and the seconds of the whole call as the stage "run"."""
        self.stages.labels("run").observe(seconds)
        self.pictures.inc(len(result.outputs))
        for stage, milliseconds in result.milliseconds.items():
            self.stages.labels(stage).observe(milliseconds / 1e3)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(_Labelled(self.registry, self._replica) if self._replica else self.registry)


class _Labelled(CollectorRegistry):
    """Collects what a registry does, with the label `replica`."""

    def __init__(self, registry: CollectorRegistry, replica: str) -> None:
        super().__init__()
        self._registry, self._replica = registry, replica

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            labelled = Metric(metric.name, metric.documentation, metric.type, metric.unit)
            labelled.samples = [
                sample._replace(labels={**sample.labels, "replica": self._replica}) for sample in metric.samples
            ]
            yield labelled
