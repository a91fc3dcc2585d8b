"""Runs the stages of a request on a rank that holds a part of its tokens.

Text and references are encoded by different ranks at the same time. Every rank computes what all steps share whole: it
is a thousandth of the work. The steps then run on a rank's own tokens, and exchange in attention alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .shared_tensors import TEXT_RANK, WHOLE, WHOLE_LATENTS, picture_rank, reference_rank
from .shares import Share
from .stages import Condition, Decode, EncodeReference, EncodeText, Stage, Step
from .tensors import ENCODED_TEXT, RequestShape, latents_before, reference_name
from .workspace import Workspace

Pieces = Sequence[tuple[int, Any]]
"""The tensors that go to ranks or come from them, each with its rank."""


class SharedWorkspace(Workspace, Protocol):
    """Holds the tensors of a rank."""

    def swap(self, sends: Pieces, receives: Pieces) -> None:
        """Send tensors to other ranks, and receive from them; see `Group.swap`. All ranks call it."""
        ...


@dataclass(frozen=True, slots=True)
class SharedStage:
    """Runs a stage on a rank of a group, for `batch` pictures; `components` are those that this rank runs in it."""

    stage: Stage
    rank: int
    size: int
    batch: int

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def components(self) -> tuple[str, ...]:
        return self.stage.components if self._takes_part else ()

    @property
    def encodes(self) -> bool:
        """True if ranks run different ones of its kind at the same time."""
        return isinstance(self.stage, EncodeText | EncodeReference)

    @property
    def _takes_part(self) -> bool:
        match self.stage:
            case EncodeText():
                return self.rank == TEXT_RANK
            case EncodeReference(reference):
                return self.rank == reference_rank(reference, self.size)
            case Decode():
                return any(picture_rank(picture, self.size) == self.rank for picture in range(self.batch))
            case Condition() | Step():
                return True

    def run(self, w: SharedWorkspace) -> None:
        """Enqueue or compute the rank's part."""
        share = w.shape.share
        assert share is not None
        match self.stage:
            case EncodeText() | EncodeReference():
                if self._takes_part:
                    self.stage.run(w)
            case Condition():
                self._spread_encodings(w)
                self.stage.run(_Renamed(w, WHOLE))
                _take_own(w, share)
            case Step():
                self.stage.run(w)
            case Decode():
                self._gather_latents(w, share)
                for picture in self._decoded(w):
                    self.stage.picture(w, w[WHOLE_LATENTS], picture)

    def _spread_encodings(self, w: SharedWorkspace) -> None:
        """Send what this rank encoded, or was given encoded, to the others, and receive what they have."""
        sends: list[tuple[int, Any]] = []
        receives: list[tuple[int, Any]] = []
        rows = [(TEXT_RANK, w[name][prompt]) for prompt in range(w.shape.num_prompts) for name in ENCODED_TEXT]
        for number in range(len(w.shape.references)):
            rows.append((reference_rank(number, self.size), w[reference_name(number)]))
        for owner, tensor in rows:
            if owner == self.rank:
                sends += ((rank, tensor) for rank in range(self.size) if rank != owner)
            else:
                receives.append((owner, tensor))
        w.swap(sends, receives)

    def _gather_latents(self, w: SharedWorkspace, share: Share) -> None:
        """Give each picture's latents to the rank that decodes it."""
        own, whole = w[latents_before(w.shape.num_steps)], w[WHOLE_LATENTS]
        sends = [
            (owner, own[picture])
            for picture in range(w.shape.batch)
            if (owner := picture_rank(picture, self.size)) != self.rank
        ]
        receives: list[tuple[int, Any]] = []
        for picture in self._decoded(w):
            for rank in range(self.size):
                part = Share(rank=rank, shares=share.shares).target
                if rank == self.rank:
                    w.copy(own[picture], to=whole[picture][part])
                else:
                    receives.append((rank, whole[picture][part]))
        w.swap(sends, receives)

    def _decoded(self, w: Workspace) -> list[int]:
        """Return the pictures that this rank decodes."""
        return [picture for picture in range(w.shape.batch) if picture_rank(picture, self.size) == self.rank]


AnyStage = Stage | SharedStage
"""A stage of a whole request, or of a rank's part of one."""


def _take_own(w: Workspace, share: Share) -> None:
    """Copy the rank's part of what it computed whole, picture by picture: parts do not lie one after another."""
    parts = {"text_tokens": share.text, "reference_tokens": share.reference}
    if w.shape.masked:
        parts["clean"] = share.target
    for name, part in parts.items():
        if part.start == part.stop:
            continue
        for picture in range(w.shape.batch):
            w.copy(w[WHOLE[name]][picture][part], to=w[name][picture])


class _Renamed:
    """Shows a workspace whose tensors have other names."""

    def __init__(self, w: Workspace, names: Mapping[str, str]) -> None:
        self._w, self._names = w, names

    @property
    def shape(self) -> RequestShape:
        return self._w.shape

    def __getitem__(self, name: str) -> Any:
        return self._w[self._names.get(name, name)]

    def __contains__(self, name: str) -> bool:
        return self._names.get(name, name) in self._w

    def run(self, component: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self._w.run(component, inputs, outputs)

    def copy(self, source: Any, to: Any) -> None:
        self._w.copy(source, to)
