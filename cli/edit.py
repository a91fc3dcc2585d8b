"""Defines the commands that make pictures: `edit` and `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from ..engine.errors import OptionError
from ..engine.printable import counted
from ..engine.system.changes import telling_changes
from ..runtime.inputs.placement import Fit
from ..runtime.inputs.references import ReferenceMethod
from ..runtime.inputs.request import Request
from ..runtime.keywords import TurnKeywords
from ..runtime.outputs.places import check_outputs
from ..runtime.outputs.result import Result
from ..runtime.session import Session
from .making import MaskOptions, OverwriteOption, PictureOptions, RunOptions, SwapOptions, named_path, opened
from .options import ExportedArgument, JsonOption, spread
from .safeguards import FilterOptions, SigningOptions
from .terminal import notes, print_json, progress_bars, screen, working

PromptOption = Annotated[
    list[str], typer.Option("--prompt", "-p", help="What to do. Several give several pictures.", show_default=False)
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where the picture goes; the suffix chooses the format.")]


@spread
def edit(
    bundle: ExportedArgument,
    prompt: PromptOption,
    image: Annotated[
        list[Path],
        typer.Option(
            "--image",
            "-i",
            help="The picture to edit, or a folder of them; several add references to it.",
            parser=named_path,
            metavar="<path>",
            show_default=False,
        ),
    ],
    *,
    out: OutOption = Path("edited.png"),
    overwrite: OverwriteOption = False,
    then: Annotated[
        list[str] | None, typer.Option("--then", help="An edit of what came of the one before; several in a row.")
    ] = None,
    picture: PictureOptions,
    masked: MaskOptions,
    references: Annotated[
        ReferenceMethod, typer.Option(help="How several references lie beside each other.")
    ] = ReferenceMethod.OFFSET,
    fit: Annotated[Fit, typer.Option(help="How the picture is brought to its trained size.")] = Fit.RESIZE,
    format: Annotated[
        str | None, typer.Option("--format", help="The suffix of a folder's answers. Default: png.", show_default=False)
    ] = None,
    swapped: SwapOptions,
    filtering: FilterOptions,
    signing: SigningOptions,
    run: RunOptions,
    json: JsonOption = False,
) -> None:
    """Edit a picture as the prompt says."""
    request = Request(
        prompt=prompt,
        image=_checked(image, out, then, format),
        sampling=picture.sampling(bundle),
        fit=fit,
        references=references,
        mask=masked.masking(),
        loras=swapped.choices(),
    )
    job = _Job(
        bundle=bundle,
        run=run,
        out=out,
        overwrite=overwrite,
        filtering=filtering,
        signing=signing,
        debug_nan=picture.debug_nan,
    )
    if then:
        job.chain(request, then, as_json=json)
    elif any(one.is_dir() for one in image):
        job.folder(request, format or "png", as_json=json)
    else:
        job.make(request, as_json=json)


def _checked(image: list[Path], out: Path, then: list[str] | None, format: str | None) -> tuple[Path, ...]:
    """Return the pictures of a request, or the folder; raise OptionError for options that do not go with it."""
    folders = [one for one in image if one.is_dir()]
    if folders and then:
        raise OptionError(
            f"--then goes on with one picture, and --image {folders[0]} is a folder; leave one of them out"
        )
    if not folders and format is not None:
        raise OptionError(f"--format is of a folder's answers; of one picture the suffix of --out says it, as {out}")
    return tuple(sorted(image, key=lambda one: not one.is_dir()))  # a folder with further references is refused later


@spread
def generate(
    bundle: ExportedArgument,
    prompt: PromptOption,
    *,
    out: OutOption = Path("generated.png"),
    picture: PictureOptions,
    swapped: SwapOptions,
    filtering: FilterOptions,
    signing: SigningOptions,
    run: RunOptions,
    json: JsonOption = False,
) -> None:
    """Make a picture from a prompt alone."""
    request = Request(prompt=prompt, sampling=picture.sampling(bundle), loras=swapped.choices())
    job = _Job(bundle=bundle, run=run, out=out, filtering=filtering, signing=signing, debug_nan=picture.debug_nan)
    job.make(request, as_json=json)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Holds what making one picture and a chain of them have in common."""

    bundle: Path
    run: RunOptions
    out: Path
    overwrite: bool = False
    filtering: FilterOptions
    signing: SigningOptions
    debug_nan: bool

    def make(self, request: Request, *, as_json: bool) -> None:
        """Make a request's pictures. One request records no graph: the second would."""
        places = check_outputs(self.out, request, overwrite=self.overwrite)
        signer, filters = self.signing.signer(self.out), self.filtering.filters()
        with opened(self.bundle, self.run, graphs=False, filters=filters) as kontext, progress_bars(keep=False) as bars:
            result = kontext.run(request, progress=bars, debug_nan=self.debug_nan)
        with working("writing"), telling_changes(places, notes.print):
            paths = result.save(self.out, signer=signer, inputs=request.sources or None, overwrite=self.overwrite)
        _report(result, paths, as_json=as_json)

    def chain(self, request: Request, then: list[str], *, as_json: bool) -> None:
        """Make a request's picture, edit what comes of it, and so on, and write the last picture."""
        places = check_outputs(self.out, request, overwrite=self.overwrite)
        signer, filters = self.signing.signer(self.out), self.filtering.filters()
        if len(request.prompts) > 1 or len(request.sampling.seeds) > 1:
            raise OptionError("--then goes on with one picture, so it takes one --prompt and one --seed")
        first, *beside = cast("tuple[Path, ...]", request.sources)
        sampling = request.sampling
        shared: TurnKeywords = {
            "seed": sampling.seed,
            "steps": sampling.steps,
            "solver": sampling.solver,
            "sigmas": sampling.sigmas,
            "step_mask": sampling.step_mask,
            "guidance": sampling.guidance,
            "loras": request.loras,
        }
        once: TurnKeywords = {
            "size": sampling.size,
            "strength": sampling.strength,
            "mask": request.mask,
            "beside": beside,
            "references": request.references,
        }
        with (
            opened(self.bundle, self.run, graphs=True, filters=filters) as kontext,
            Session(kontext, first, fit=request.fit) as session,
        ):
            for prompt in (*request.prompts, *then):
                asked: TurnKeywords = shared if session.history else {**shared, **once}
                with progress_bars(keep=False) as bars:
                    turn = session.edit(prompt, **{**asked, "progress": bars, "debug_nan": self.debug_nan})
                notes.print(turn.describe())
            with working("writing"), telling_changes(places, notes.print):
                path = session.save_image(self.out, signer=signer, inputs=request.sources, overwrite=self.overwrite)
            last = session.history[-1]
            chain = [dict(turn.request) for turn in session.history]
        if as_json:
            print_json({"path": str(path), "turns": chain})
        else:
            screen.print(f"{path}  {last.size[0]}x{last.size[1]}  {counted(len(chain), 'turn')}")

    def folder(self, request: Request, suffix: str, *, as_json: bool) -> None:
        """Edit every picture of a folder; the exit status is 1 if one has no answer."""
        from .folder import run_folder

        whole = run_folder(
            self.bundle,
            request,
            self.out,
            run=self.run,
            filtering=self.filtering,
            signing=self.signing,
            suffix=f".{suffix.removeprefix('.')}",
            overwrite=self.overwrite,
            debug_nan=self.debug_nan,
            as_json=as_json,
        )
        if not whole:
            raise typer.Exit(1)


def _report(result: Result, paths: tuple[Path, ...], *, as_json: bool) -> None:
    if as_json:
        pictures = [
            {"path": str(path), **result.request(output)} for path, output in zip(paths, result.outputs, strict=True)
        ]
        print_json(
            {
                "pictures": pictures,
                "milliseconds": result.milliseconds,
                "step_milliseconds": result.step_milliseconds,
            }
        )
        return
    for placement in result.references:
        notes.print(f"reference {placement.describe()}")
    if len(result.references) > 1:
        notes.print(result.tokens.describe())
    if result.mask is not None:
        notes.print(f"mask {result.mask}")
    stages = ", ".join(f"{name} {value:,.0f}" for name, value in result.milliseconds.items() if name != "total")
    notes.print(f"{result.milliseconds['total']:,.0f} ms on {result.executor} ({stages})")
    several = len({output.prompt for output in result.outputs}) > 1
    for path, output in zip(paths, result.outputs, strict=True):
        asked = f"  {output.prompt!r}" if several else ""
        screen.print(f"{path}  {output.image.width}x{output.image.height}  seed {output.seed}{asked}")
