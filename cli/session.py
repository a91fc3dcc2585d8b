"""Defines the command that edits a picture prompt by prompt: `session`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..engine.byte_sizes import human_bytes
from ..engine.errors import KontextError, OptionError, RequestError
from ..engine.system.changes import telling_changes
from ..runtime.inputs.placement import Fit
from ..runtime.keywords import TurnKeywords
from ..runtime.outputs.provenance import SignedKeywords
from ..runtime.session import Session
from ..runtime.turn import Carry, Turn
from .making import GuidanceOption, OverwriteOption, RunOptions, ScheduleOptions, SwapOptions, opened
from .options import ExportedArgument, spread
from .safeguards import FilterOptions, SigningOptions
from .terminal import notes, print_json_line, progress_bars, screen

HELP = """a line is an edit of the current picture; besides it there are
  /undo, /redo       go back one turn, or forth again
  /go NUMBER         go to any turn; 0 is the picture that was given
  /history           the turns from there to here; those that were undone with /all
  /save FILE         the picture as .png, .jpg or .webp, or the session as .session
  /carry latents|pixels  as what the next turns take the result before them
  /quit"""


@spread
def session(
    bundle: ExportedArgument,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="The picture to edit.", show_default=False)
    ] = None,
    *,
    resume: Annotated[
        Path | None, typer.Option("--open", help="Go on with a session that was saved.", show_default=False)
    ] = None,
    carry: Annotated[Carry, typer.Option(help="As what a turn takes the result before it.")] = Carry.LATENTS,
    fit: Annotated[Fit, typer.Option(help="How the picture is brought to its trained size.")] = Fit.RESIZE,
    seed: Annotated[int | None, typer.Option("--seed", "-s", help="Of every turn. Default: drawn for each.")] = None,
    schedule: ScheduleOptions,
    guidance: GuidanceOption = None,
    overwrite: OverwriteOption = False,
    swapped: SwapOptions,
    filtering: FilterOptions,
    signing: SigningOptions,
    run: RunOptions,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each line that is answered.")] = False,
) -> None:
    """Edit a picture turn after turn; prompts are read line by line. /help says what else there is."""
    if (image is None) == (resume is None):
        raise OptionError("a session begins with --image, or goes on with --open: give one of them")
    signer, filters = signing.signer(), filtering.filters()
    with opened(bundle, run, graphs=True, filters=filters) as kontext:
        kontext.set_lora(swapped.choices())
        if resume is not None:
            begun = Session.open(kontext, resume, carry=carry, fit=fit)
        else:
            assert image is not None
            begun = Session(kontext, image, carry=carry, fit=fit)
        with begun:
            sampling: TurnKeywords = {**schedule.keywords(bundle), "seed": seed, "guidance": guidance}
            _Talk(begun, sampling, {"signer": signer, "inputs": image}, overwrite=overwrite, json=json).run()


class _Talk:
    """Reads lines, and does what they say; what cannot be done is said, and the session goes on."""

    def __init__(
        self, session: Session, sampling: TurnKeywords, signed: SignedKeywords, *, overwrite: bool, json: bool
    ) -> None:
        self._session, self._sampling, self._signed = session, sampling, signed
        self._overwrite, self._json = overwrite, json
        self._carry: Carry | None = None
        self._commands: Mapping[str, Callable[[str], None]] = {
            "/undo": lambda _: self._stand(self._session.undo()),
            "/redo": lambda _: self._stand(self._session.redo()),
            "/go": self._go,
            "/history": lambda _: self._list(self._session.history),
            "/all": lambda _: self._list(self._session.turns),
            "/save": self._save,
            "/carry": self._choose_carry,
            "/help": lambda _: notes.print(HELP) if json else screen.print(HELP),
        }

    def run(self) -> None:
        for line in _lines():
            word, _, rest = line.partition(" ")
            if word == "/quit":
                return
            try:
                if not line.startswith("/"):
                    self._edit(line)
                elif word in self._commands:
                    self._commands[word](rest.strip())
                else:
                    raise OptionError(f"there is no {word}; /help lists what there is")
            except KontextError as error:
                notes.print("error:", style="bold red", end=" ")
                notes.print(str(error))

    def _edit(self, prompt: str) -> None:
        with progress_bars(keep=False) as bars:
            turn = self._session.edit(prompt, **{**self._sampling, "carry": self._carry, "progress": bars})
        self._stand(turn)
        notes.print(f"{human_bytes(turn.size_bytes)} for this turn, {human_bytes(self._session.size_bytes)} in all")

    def _stand(self, turn: Turn | None) -> None:
        if self._json:
            print_json_line({"turn": None if turn is None else turn.record()})
        else:
            screen.print("0, the picture that was given" if turn is None else turn.describe())

    def _go(self, number: str) -> None:
        if not number.isdecimal():
            raise OptionError(f"/go takes a turn's number, not {number!r}")
        self._stand(self._session.go_to(int(number)))

    def _list(self, turns: tuple[Turn, ...]) -> None:
        if self._json:
            print_json_line({"turns": [turn.record() for turn in turns]})
            return
        for turn in turns:
            screen.print(turn.describe())

    def _save(self, name: str) -> None:
        if not name:
            raise OptionError("/save takes a file: NAME.png for the picture, NAME.session for the session")
        path = Path(name)
        with telling_changes([path], notes.print):
            if path.suffix == ".session":
                saved = self._session.save(path)
            else:
                saved = self._session.save_image(path, overwrite=self._overwrite, **self._signed)
        if self._json:
            print_json_line({"path": saved})
        else:
            screen.print(str(saved))

    def _choose_carry(self, word: str) -> None:
        if word not in [one.value for one in Carry]:
            raise RequestError(f"/carry takes latents or pixels, not {word!r}")
        self._carry = Carry(word)


def _lines() -> Iterator[str]:
    """Yield the lines that are typed, or piped in, until they end; a prompt is shown to people alone."""
    while True:
        if sys.stdin.isatty():
            notes.print("> ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
