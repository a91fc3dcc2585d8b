"""Defines a session: edits one after another, each of the result before it, that can be undone, branched and saved."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..engine.byte_sizes import human_bytes
from ..engine.errors import RequestError
from .carrying import carried, further
from .inputs.choices import parse_choice
from .inputs.pictures import Picture, read_picture
from .inputs.placement import Fit, parse_fit
from .inputs.request import is_whole
from .inputs.sources import file_of
from .keywords import SessionKeywords, TurnKeywords, request_of
from .outputs.places import Origins
from .outputs.provenance import SignedKeywords, Signing
from .outputs.result import Result
from .runner import Runner
from .session_file import Saved, read_session, write_session
from .turn import PIXEL_BYTES, Carry, Turn, save_turn

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

KEPT_BYTES = 1 << 30
"""The bytes of pictures and latents that a session keeps, if nobody says otherwise: some 200 turns of 1 megapixel."""


class Session:
    """Edits a picture turn after turn.

    A turn's reference is the latents that the turn before ended with, so the picture is not decoded, rounded to bytes
    and encoded again between two edits, which is what wears it out. Results form a tree: `undo` goes back, the next
    edit grows another branch, and nothing is lost but by `kept_bytes`. It is a context manager; after it nothing is
    held.

    Args:
        runner: A `Kontext`, which may serve others, too; it stays the caller's.
        image: The picture that the first turn edits.
        carry: As what a turn takes the result before it: "latents" or "pixels".
        fit: How a picture is brought to its trained size where one is: "resize", "pad" or "crop".
        kept_bytes: The bytes of pictures and latents to keep. Beyond it turns are let go, the oldest first, those off
            the current history before those on it, the current one never.

    Raises:
        RequestError: A word is none of those, or `kept_bytes` is no whole number from 0 on.
        ImageError: The picture cannot be read.
    """

    def __init__(
        self,
        runner: Runner,
        image: Picture,
        *,
        carry: Carry | str = Carry.LATENTS,
        fit: Fit | str = Fit.RESIZE,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._runner = runner
        self._carry = parse_choice(Carry, "carry", carry)
        self._fit = parse_fit(fit)
        if not is_whole(kept_bytes) or kept_bytes < 0:
            raise RequestError(f"kept_bytes must be a whole number of bytes from 0 on, not {kept_bytes!r}")
        self._kept_bytes = int(kept_bytes)
        self._start = read_picture(image)
        self._origins = Origins().beside([file_of(image)])
        self._turns: dict[int, Turn] = {}
        self._head = 0
        self._made = 0
        self._editing = threading.RLock()  # one turn at a time
        self._lock = threading.RLock()  # what the session holds, for as long as it is looked at

    @classmethod
    def open(cls, runner: Runner, path: Path | str, **keywords: Unpack[SessionKeywords]) -> Session:
        """Open a session that was saved.

        Args:
            runner: A `Kontext`, of the bundle that made the session; another one is warned about.
            path: The file.
            **keywords: As for `Session`; what is left out is as it was.

        Returns:
            The session, its pictures and latents equal to those that were saved, bit for bit.

        Raises:
            RequestError: The file cannot be read, or is no session.
        """
        saved = read_session(Path(path))
        if saved.bundle != runner.bundle.fingerprint:
            logger.warning("%s was made with another bundle; its latents may mean other pictures to this one", path)
        session = cls(runner, saved.start, **{"carry": saved.carry, "fit": saved.fit, **keywords})
        session._turns, session._head = {turn.number: turn for turn in saved.turns}, saved.head
        session._made = max(session._turns, default=0)
        session._origins = Origins(hashes=frozenset(saved.made_from))
        session._let_go()
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every picture and latent. Nothing can be edited afterwards; closing twice is allowed."""
        with self._lock:
            self._turns, self._head = {}, -1

    @property
    def history(self) -> tuple[Turn, ...]:
        """The turns from the session's picture to the current one."""
        with self._lock:
            return self._path_to(self._head)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns in the order in which they were made, those that were undone included."""
        with self._lock:
            return tuple(self._turns.values())

    @property
    def image(self) -> Image.Image:
        """The current picture: what the last turn made, or the session's own."""
        with self._lock:
            return self._picture(self._head)

    @property
    def size_bytes(self) -> int:
        """The bytes in memory of all pictures and latents."""
        with self._lock:
            own = PIXEL_BYTES * self._start.width * self._start.height
            return own + sum(turn.size_bytes for turn in self._turns.values())

    def edit(self, prompt: str, **keywords: Unpack[TurnKeywords]) -> Turn:
        """Edit the current picture, and make what comes of it the current one. A turn that fails changes nothing.

        Args:
            prompt: What to do.
            **keywords: `of`, the number of the turn whose result is edited instead of the current one (0 for the
                session's picture); `beside`, further references; `carry`, for this turn alone; and those of
                `Kontext.edit`.

        Returns:
            The turn.

        Raises:
            RequestError: An argument is out of range, the turn makes several pictures, or `of` names none that is
                there.
            KontextError: Whatever else `Kontext.run` raises.
        """
        asked: dict[str, Any] = dict(keywords)
        with self._editing:
            parent = asked.pop("of", None)
            beside = further(asked.pop("beside", ()))
            carry = parse_choice(Carry, "carry", asked.pop("carry", None) or self._carry)
            with self._lock:
                parent = self._head if parent is None else parent
                picture, turn = self._picture(parent), self._turns.get(parent)
            latents, reason = (None, "") if turn is None else carried(turn, carry, asked, beside)
            asked.setdefault("fit", self._fit)
            request, watch = request_of(prompt, asked, image=[latents or picture, *beside])
            if len(request.prompts) > 1 or len(request.sampling.seeds) > 1:
                raise RequestError("a turn makes one picture, so it takes one prompt and one seed; branch for more")
            result = self._runner.run(request, **watch)
            with self._lock:
                return self._take(result, parent, Carry.PIXELS if reason else carry, reason)

    def undo(self) -> Turn | None:
        """Go back to the result that the current turn edited, and return its turn, None for the session's picture.

        Raises:
            RequestError: There is nothing to undo.
        """
        with self._lock:
            if self._head not in self._turns:
                raise RequestError("there is no turn to undo: this is the session's own picture")
            return self.go_to(self._turns[self._head].parent)

    def redo(self) -> Turn | None:
        """Go to the last turn that edited the current result, and return it.

        Raises:
            RequestError: No turn did.
        """
        with self._lock:
            children = [turn.number for turn in self._turns.values() if turn.parent == self._head]
            if not children:
                raise RequestError("there is no turn to do again")
            return self.go_to(children[-1])

    def go_to(self, number: int) -> Turn | None:
        """Make a turn's result the current one, 0 for the session's picture, and return the turn.

        Raises:
            RequestError: There is no such turn, or it was let go.
        """
        with self._lock:
            self._picture(number)
            self._head = number
            return self._turns.get(number)

    def branch(self) -> Session:
        """Return a second session that begins with the same turns. What is done in one does not show in the other."""
        with self._lock:
            other = Session(self._runner, self._start, carry=self._carry, fit=self._fit, kept_bytes=self._kept_bytes)
            other._turns, other._head, other._made = dict(self._turns), self._head, self._made
            other._origins = self._origins
            return other

    def save(self, path: Path | str) -> Path:
        """Write the session to a file: a ZIP archive with its pictures as PNG and its latents as NumPy arrays.

        Args:
            path: The file, by custom `NAME.session`. It appears whole or not at all.

        Raises:
            RequestError: No file can be written there.
        """
        with self._lock:
            saved = Saved(
                bundle=self._runner.bundle.fingerprint,
                carry=self._carry,
                fit=self._fit,
                head=self._head,
                start=self._picture(0),
                turns=tuple(self._turns.values()),
                made_from=self._origins.all_hashes(),
            )
        return write_session(saved, Path(path))

    def save_image(self, path: Path | str, *, overwrite: bool = False, **signed: Unpack[SignedKeywords]) -> Path:
        """Write the current picture, with the requests of the whole history.

        Args:
            path: The file, whose suffix chooses the format.
            overwrite: True to replace even a file that the session was made from: its picture, a reference, a mask.
            **signed: `signer` and `inputs` as for `Result.save`; without inputs it is the session's picture.

        Raises:
            RequestError: No file can be made there, it is one of those, or nothing was edited yet.
            ProvenanceError, ImageError: The picture cannot be signed.
        """
        with self._lock:
            history = self.history
            if not history:
                raise RequestError("nothing was edited yet, so there is no picture to save but the one that was given")
            self._origins.check_kept(Path(path), overwrite=overwrite)
            return save_turn(history[-1], history, path, Signing.of(signed, self._start, edits=len(history)))

    def _path_to(self, number: int) -> tuple[Turn, ...]:
        path: list[Turn] = []
        while number in self._turns:
            path.append(self._turns[number])
            number = path[-1].parent
        return tuple(reversed(path))

    def _picture(self, number: int) -> Image.Image:
        if self._head == -1:
            raise RequestError("this session is closed")
        if number == 0:
            return self._start
        if not is_whole(number) or number not in self._turns:
            raise RequestError(f"there is no turn {number}; there are 0, the picture, to {self._made}")
        return self._turns[number].picture()

    def _take(self, result: Result, parent: int, carry: Carry, reason: str) -> Turn:
        """Add what came of a turn, and make it the current one. Raises RequestError if the session was closed since."""
        self._picture(0)
        if reason:
            logger.info("the reference came through pixels: %s", reason)
        self._made += 1
        turn = Turn.of(result, self._made, parent, carry, reason)
        self._turns[turn.number] = turn
        self._origins = self._origins.beside(result.files)
        self._head = turn.number
        self._let_go()
        return turn

    def _let_go(self) -> None:
        """Let go of what is too much, in the order that the class says."""
        history = {turn.number for turn in self._path_to(self._head)}
        for number in sorted(self._turns, key=lambda number: (number in history, number)):
            if self.size_bytes <= self._kept_bytes or number == self._head:
                return
            if self._turns[number].size_bytes:
                self._turns[number] = replace(self._turns[number], image=None, latents=None)
                logger.info("turn %d was let go: the session keeps %s", number, human_bytes(self._kept_bytes))
