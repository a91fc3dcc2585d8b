"""Defines the options of `serve` that are about several processes and machines."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ..engine.errors import MissingDependencyError, OptionError
from .making import RunOptions

if TYPE_CHECKING:
    from ..serving.options import ServingOptions
    from ..serving.replica import Safeguards


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """Says whether Ray Serve runs several processes, and how many."""

    ray: Annotated[bool, typer.Option("--ray", help="Serve from replicas with Ray Serve. It needs --state.")] = False
    ray_address: Annotated[
        str, typer.Option(help="A Ray cluster, as auto or HOST:PORT. Default: one of this process's own.")
    ] = "local"
    replicas: Annotated[int, typer.Option(help="The number of replicas, or the least of them.")] = 1
    max_replicas: Annotated[
        int | None, typer.Option(help="The most replicas, which Ray starts and stops by load.", show_default=False)
    ] = None
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs of one replica; 0 on a CPU. Default: 1, or those of --devices.", show_default=False),
    ] = None
    ray_options: Annotated[
        Path | None,
        typer.Option(help="A JSON file of further options of Ray's deployment, by Ray's names.", show_default=False),
    ] = None

    def check_unused(self) -> None:
        """Raise OptionError for what only counts with --ray."""
        for field in fields(self):
            if getattr(self, field.name) != field.default:
                raise OptionError(f"--{field.name.replace('_', '-')} is about replicas; give --ray, too")

    def serve(
        self,
        bundle: Path,
        run: RunOptions,
        options: ServingOptions,
        safeguards: Safeguards,
        *,
        host: str,
        port: int,
    ) -> None:
        """Serve a bundle from replicas until the process is told to stop."""
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of two replicas that differ in numbers alone would go
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            from ..serving.ray_app import Scaling, serve_replicas
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"--ray needs {error.name}; install it with: pip install 'kontext-trt[ray]'"
            ) from error
        from ..serving.replica import Served

        run = replace(run, store=None if run.store is None else run.store.resolve())
        served = Served(
            bundle=bundle.resolve(),
            executor=run.executor_options(graphs=True),
            options=options,
            safeguards=safeguards,
        )
        scaling = Scaling(
            replicas=self.replicas,
            most=self.max_replicas,
            gpus=served.gpus if self.gpus is None else self.gpus,
            more=_read_options(self.ray_options),
        )
        serve_replicas(served, scaling, host=host, port=port, address=self.ray_address)


def _read_options(path: Path | None) -> dict[str, Any]:
    """Return the options in a JSON file. Raises OptionError if it is none."""
    if path is None:
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise OptionError(f"{path} is no JSON object of options of a deployment: {error}") from error
