"""Describes what each of several processes opens and serves, without anything that only one process could hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from starlette.applications import Starlette

from ..engine.bundle.bundle import Bundle
from ..engine.errors import OptionError
from ..runtime.executors.options import Device, ExecutorOptions, OnnxRuntimeOptions, TensorRtOptions
from ..runtime.filters.interface import ContentFilter
from ..runtime.filters.parse import FilterDetails, parse_filters
from ..runtime.kontext import Kontext
from ..runtime.outputs.provenance import PictureSigner
from .app import create_app
from .keys import read_keys
from .loras import LoraFolder
from .options import ServingOptions
from .server import log_lines
from .state import StateFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Safeguards:
    """Says where each replica reads its keys, filters and who signs.

    Attributes:
        api_key_file: The file of the keys of clients, None for none.
        review_key_file: The file of the keys of who reviews, None for none.
        filters: The filters as a command line says them; see `parse_filters`. Paths in them are absolute.
        details: What holds for all of them.
        signing: The files of the certificates and of the key, None if nobody signs.
    """

    api_key_file: Path | None = None
    review_key_file: Path | None = None
    filters: tuple[str, ...] = ()
    details: FilterDetails = field(default_factory=FilterDetails)
    signing: tuple[Path, Path] | None = None

    def opened_filters(self) -> tuple[ContentFilter, ...]:
        """Return the filters. Raises what `parse_filters` does."""
        return parse_filters(self.filters, self.details)

    def added_to(self, options: ServingOptions) -> ServingOptions:
        """Return options with the keys and who signs.

        Raises:
            OptionError: A file of keys cannot be used, or clients could review their own pictures.
            ProvenanceError: Pictures cannot be signed with these files.
            MissingDependencyError: What signs is not installed.
        """
        review = options.review
        if review is not None and self.review_key_file is not None:
            review = replace(review, keys=read_keys(self.review_key_file))
        keys = () if self.api_key_file is None else read_keys(self.api_key_file)
        signer = None if self.signing is None else PictureSigner.open(*self.signing)
        return replace(options, keys=keys, review=review, signer=signer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Says what each replica opens and how it serves it. All paths are the same on every machine.

    Attributes:
        bundle: The folder of the bundle.
        executor: Who runs it.
        options: How it is served; `state` is needed. Keys and who signs are not said here, since Ray keeps what it is
            given.
        safeguards: Where each replica reads them.

    Raises:
        OptionError: There is no folder of state, or there are keys or somebody who signs.
    """

    bundle: Path
    executor: ExecutorOptions
    options: ServingOptions
    safeguards: Safeguards = field(default_factory=Safeguards)

    def __post_init__(self) -> None:
        options = self.options
        if options.state is None:
            raise OptionError(
                "any replica may be asked for a result or a session of another, so they need a folder that all of them "
                "have: --state FOLDER"
            )
        if options.keys or options.signer is not None or (options.review is not None and options.review.keys):
            raise OptionError("Ray keeps what it is given; each replica reads keys from files, which safeguards name")

    @property
    def gpus(self) -> int:
        """The GPUs that one replica needs: those that share its requests, or one. On a CPU it may have less."""
        devices = () if isinstance(self.executor, TensorRtOptions) else self.executor.devices
        return len(devices) or 1

    def check_gpus(self, gpus: float) -> None:
        """Look whether a replica has the GPUs that share its requests, which Ray numbers from 0 for each.

        Raises:
            OptionError: It has another number of them, or they are named by other numbers.
        """
        if isinstance(self.executor, TensorRtOptions) or not self.executor.devices:
            return
        devices = self.executor.devices
        if isinstance(self.executor, OnnxRuntimeOptions) and self.executor.device is Device.CPU:
            return
        if devices != tuple(range(len(devices))):
            raise OptionError(
                f"Ray chooses the GPUs of each replica and numbers them from 0: give --devices {len(devices)}, not the "
                f"numbers {', '.join(map(str, devices))}"
            )
        if gpus != len(devices):
            raise OptionError(
                f"{len(devices)} devices share each request of a replica, and it would have {gpus:g} GPUs: leave out "
                "--gpus, or give as many"
            )

    def check(self) -> None:
        """Look at what every replica opens, so that what is wrong is said once, and before anything is started.

        Raises:
            OptionError: A folder, a file of keys or a filter cannot be used.
            BundleError: The bundle is not sound, or takes no LoRAs and there is a folder of them.
            ProvenanceError: Pictures cannot be signed.
            MissingDependencyError: What a filter or a signature needs is not installed.
        """
        LoraFolder(self.options.lora_folder, Bundle.open(self.bundle))
        self.safeguards.added_to(self.options)
        self.safeguards.opened_filters()
        assert self.options.state is not None
        StateFolder(self.options.state)

    def app(self, replica: str) -> Starlette:
        """Open the bundle, load it, and return its application.

        Args:
            replica: The name of this process among the others.
        """
        options, filters = self.safeguards.added_to(self.options), self.safeguards.opened_filters()
        log_lines(prompts=options.log_prompts)
        kontext = Kontext.open(self.bundle, executor=self.executor, filters=filters)  # until the process ends
        kontext.load()
        return create_app(kontext, replace(options, replica=replica, name=options.name or self.bundle.name))
