"""Defines the command that serves a bundle over HTTP: `serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.byte_sizes import parse_bytes
from ..engine.errors import OptionError
from ..serving.environment import require_serve
from .making import RunOptions, opened
from .options import ExportedArgument, spread
from .replicas import ReplicaOptions
from .safeguards import FilterOptions, SigningOptions
from .terminal import notes, progress_bars

if TYPE_CHECKING:
    from ..serving.options import Review


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewOptions:
    """Says how a person looks at pictures before they are handed out."""

    review: Annotated[
        bool, typer.Option("--review", help="Hand out no picture before a person approves of it, on the page /review.")
    ] = False
    review_key_file: Annotated[
        Path | None,
        typer.Option(help="A file of keys of who reviews, that clients do not have.", show_default=False),
    ] = None
    review_seconds: Annotated[float, typer.Option(help="Seconds that a picture waits; then it is refused.")] = 600

    def chosen(self) -> Review | None:
        """Return how pictures are looked at, None if nobody is to; the keys are read later."""
        from ..serving.options import Review

        if not self.review and self.review_key_file is not None:
            raise OptionError("--review-key-file is about a review; ask for one with --review")
        return Review(seconds=self.review_seconds) if self.review else None


@spread
def serve(
    bundle: ExportedArgument,
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file of keys, one a line, that nobody else may read.", show_default=False)
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Listen beyond this machine without a key.")] = False,
    name: Annotated[str, typer.Option(help="The model's name for clients. Default: the bundle's folder.")] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that clients may call this server by; several are allowed.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="An origin of web pages that may call it; several are allowed.")
    ] = None,
    waiting: Annotated[int, typer.Option(help="Requests that may wait; further ones are answered with 429.")] = 64,
    deadline: Annotated[float, typer.Option(help="Seconds that a request may take, waiting included.")] = 600,
    max_body: Annotated[str, typer.Option(help="The largest body of a request.")] = "64MiB",
    max_steps: Annotated[int, typer.Option(help="The most steps of a picture.")] = 100,
    batch: Annotated[int, typer.Option(help="Pictures of one request that are made at once. Plans must cover it.")] = 1,
    session_seconds: Annotated[float, typer.Option(help="Seconds after its last use that a session ends.")] = 3600,
    lora_folder: Annotated[
        Path | None, typer.Option(help="A folder of LoRA files that clients may name.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="A folder for results and sessions, in the place of memory.", show_default=False),
    ] = None,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts into the log.")] = False,
    filtering: FilterOptions,
    reviewed: ReviewOptions,
    signing: SigningOptions,
    run: RunOptions,
    replicas: ReplicaOptions,
) -> None:
    """Serve a bundle over HTTP: OpenAI's images API, and BFL's protocol. SIGTERM stops it once running requests end."""
    require_serve()
    from ..serving.app import create_app
    from ..serving.keys import check_exposure, is_loopback
    from ..serving.options import Keeping, Limits, ServingOptions
    from ..serving.replica import Safeguards
    from ..serving.server import log_lines
    from ..serving.server import serve as serve_app

    options = ServingOptions(
        name=name,
        hosts=tuple(allow_host or ()),
        origins=tuple(allow_origin or ()),
        limits=Limits(
            waiting=waiting, seconds=deadline, body_bytes=parse_bytes(max_body), steps=max_steps, batch=batch
        ),
        keeping=Keeping(session_seconds=session_seconds),
        log_prompts=log_prompts,
        review=reviewed.chosen(),
        lora_folder=None if lora_folder is None else lora_folder.resolve(),
        state=None if state is None else state.resolve(),
    )
    safeguards = Safeguards(
        api_key_file=None if api_key_file is None else api_key_file.absolute(),
        review_key_file=None if reviewed.review_key_file is None else reviewed.review_key_file.absolute(),
        filters=filtering.texts(),
        details=filtering.details(),
        signing=signing.files(),
    )
    complete = safeguards.added_to(options)
    check_exposure(host, complete.keys, open_to_all=no_key)
    if complete.review is not None and not complete.review.keys and not is_loopback(host):
        raise OptionError(f"on {host} everybody who reaches this machine could approve: give --review-key-file FILE")
    log_lines(prompts=log_prompts)
    if replicas.ray:
        replicas.serve(bundle, run, options, safeguards, host=host, port=port)
        return
    replicas.check_unused()
    with opened(bundle, run, graphs=True, filters=safeguards.opened_filters()) as kontext:
        with progress_bars(keep=False) as bars:
            kontext.load(bars)
        notes.print(f"serving {bundle} on http://{host}:{port}", highlight=False)
        serve_app(create_app(kontext, complete), host=host, port=port, grace_seconds=deadline)
