"""Says where each command lies, and turns errors into words and exit codes."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..engine.errors import KontextError
from ..version import __version__
from .help import whole_help
from .terminal import escape_what_cannot_be_written, log_handler, notes, screen

COMMANDS: Mapping[str, str] = {
    "export": "export:export",
    "calibrate": "calibration:calibrate",
    "quantize": "quantize:quantize",
    "lora": "lora:lora",
    "compare": "compare:compare",
    "schedule": "schedule:schedule",
    "build": "build:build",
    "edit": "edit:edit",
    "generate": "edit:generate",
    "session": "session:session",
    "sign": "sign:sign",
    "verify": "sign:verify",
    "serve": "serve:serve",
    "inspect": "inspect:inspect",
    "doctor": "doctor:doctor",
    "demo": "demo:demo",
    "bench": "bench:bench",
    "evaluate": "evaluate:evaluate",
    "plans": "plans:plans",
    "calibration": "calibration:calibration",
}
"""Each command, or group of commands, with its module in this folder and its name there, in the order of `--help`."""


class LazyCommands(Mapping[str, Any]):
    """Holds commands by name. A command's module is imported when the command is asked for."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = COMMANDS[name].partition(":")
        found = getattr(importlib.import_module(f".{module}", __package__), attribute)
        if isinstance(found, typer.Typer):
            return whole_help(_named(typer.main.get_group(found), name))
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        return whole_help(typer.main.get_command(alone))

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _named(group: TyperGroup, name: str) -> TyperGroup:
    group.name = name
    return group


class LazyGroup(TyperGroup):
    """Groups all commands, none of them imported."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        whole_help(self)
        commands: Any = LazyCommands()
        self.commands = commands


app = typer.Typer(
    cls=LazyGroup,
    name="kontext-trt",
    help="FLUX.1 Kontext: from a checkpoint to an edited picture.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done as it is done.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Set up logging before a command runs, or print the version and exit."""
    if version:
        screen.print(__version__)
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[log_handler()])


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Print a warning for people: what is wrong, not which line of which file noticed."""
    notes.print("warning:", style="bold yellow", end=" ")
    notes.print(str(message))


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Raise an interrupt anew that arrived in a destructor or a weak reference's callback, where it is dropped."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        main_thread = threading.main_thread().ident or 0
        threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def _end(number: int, _: object) -> None:
    """End as an interrupt does, so that what is half written is removed."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 128 and a signal's number by it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _end)
    escape_what_cannot_be_written()
    warnings.showwarning = _show_warning
    sys.unraisablehook = _interrupt_again
    try:
        app()
    except (KontextError, OSError) as error:  # a full disk or a missing permission needs no stack, either
        notes.print("error:", style="bold red", end=" ")
        notes.print(str(error))
        sys.exit(1)
