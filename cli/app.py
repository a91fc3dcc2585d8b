"""The command line: assembles the commands of the folders, and turns errors into words and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from typing import Annotated

import typer
from rich.logging import RichHandler

from ..engine.errors import KontextError
from ..version import __version__
from . import bench as bench_commands
from . import build as build_commands
from . import demo as demo_commands
from . import edit as runtime_commands
from . import evaluate as small_kontext_commands
from . import export as export_commands
from . import look as engine_commands
from . import quantize as quantize_commands
from .terminal import notes, screen

app = typer.Typer(
    name="kontext-trt",
    help="FLUX.1 Kontext \\[dev]: from a checkpoint to an edited picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    export_commands.export,
    quantize_commands.calibrate,
    quantize_commands.quantize,
    quantize_commands.compare,
    build_commands.build,
    runtime_commands.edit,
    runtime_commands.generate,
    engine_commands.inspect,
    engine_commands.doctor,
    demo_commands.demo,
    bench_commands.bench,
):
    app.command()(command)
app.command("evaluate")(small_kontext_commands.evaluate_command)
app.add_typer(build_commands.plans, name="plans")
app.add_typer(quantize_commands.calibration, name="calibration")


@app.callback(invoke_without_command=True)
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done as it is done.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        screen.print(__version__)
        raise typer.Exit
    handler = RichHandler(console=notes, show_path=False, show_time=False)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[handler])


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Warnings for people: what is wrong, not which line of which file noticed."""
    notes.print("warning:", style="bold yellow", end=" ")
    notes.print(str(message))


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """An interrupt that arrives in a destructor or a weak reference's callback is dropped there; raise it anew."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        main_thread = threading.main_thread().ident or 0
        threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def main() -> None:
    """Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    warnings.showwarning = _show_warning
    sys.unraisablehook = _interrupt_again
    try:
        app()
    except (KontextError, OSError) as error:  # a full disk or a missing permission needs no stack, either
        notes.print("error:", style="bold red", end=" ")
        notes.print(str(error))
        sys.exit(1)
