"""Refuses pictures that an image classifier gives a refused label: any ONNX network, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, convert, to_builtins
from numpy.typing import NDArray
from PIL import Image

from ...engine.documents import Positive, Text, read_json
from ...engine.errors import ExecutorError, OptionError
from ..executors.onnxruntime_session import SILENT, import_onnxruntime
from .interface import ALLOWED, PICTURES, Content, Stage, Verdict

MAX_DESCRIPTION_BYTES = 4 << 20
Side = Annotated[int, Meta(ge=1, le=4096)]
Share = Annotated[float, Meta(ge=0, le=1)]
Level = Annotated[float, Meta(ge=-16, le=16)]
Channels = tuple[Level, Level, Level]


class Layout(str, Enum):
    """Says in which order a network takes a picture's axes."""

    CHANNELS_FIRST = "nchw"
    CHANNELS_LAST = "nhwc"


class Scores(str, Enum):
    """Says what makes scores from 0 to 1 of what a network gives."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOptions:
    """Says how a classifier takes pictures, and what of its answer refuses.

    Attributes:
        labels: The names of the network's scores in their order; without them they are called 0, 1, 2 and so on.
        refuse: The labels that refuse.
        threshold: The score from which on one of them does.
        size: The (width, height) that pictures are brought to; None for what the network itself says.
        layout: In which order the axes are.
        mean: What is taken from red, green and blue, which are from 0 to 1.
        std: What they are divided by afterwards.
        scores: What makes scores of the network's output.

    Raises:
        OptionError: The threshold is no score.
    """

    labels: Annotated[tuple[Text, ...], Meta(max_length=100_000)] = ()
    refuse: tuple[Text, ...] = ()
    threshold: Share = 0.5
    size: tuple[Side, Side] | None = None
    layout: Layout = Layout.CHANNELS_FIRST
    mean: Channels = (0.0, 0.0, 0.0)
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    scores: Scores = Scores.SOFTMAX

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise OptionError(f"a threshold is a score from 0 to 1, not {self.threshold!r}")

    @classmethod
    def beside(cls, model: Path, **given: Any) -> ClassifierOptions:
        """Return the options that lie beside a network as JSON, NAME.json beside NAME.onnx, with others over them.

        Args:
            model: The network's file.
            **given: Options that are not taken from the file; those that are None are.

        Raises:
            OptionError: The file is no such JSON, or an option is out of range.
        """
        path = model.with_suffix(".json")
        found = cls()
        if path.is_file():
            with path.open("rb") as file:
                data = file.read(MAX_DESCRIPTION_BYTES)
            found = read_json(data, cls, lambda reason: OptionError(f"{path} describes no classifier: {reason}"))
        chosen = {name: value for name, value in given.items() if value is not None}
        try:
            return convert({**to_builtins(found), **chosen}, cls)
        except ValueError as error:
            raise OptionError(f"a classifier cannot be used like that: {error}") from error


class ImageClassifier:
    """Refuses pictures for which a refused label has a score of the threshold or more.

    A picture is brought to the network's size whole, without regard to its sides' ratio, by bilinear interpolation.

    Args:
        model: The network, an ONNX file with one picture as its input; its first output has a score per label.
        options: How it is used.
        stages: When it is asked: at input pictures, output pictures, or both.

    Raises:
        OptionError: The network cannot be opened or is of another form, or the options do not fit it.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, model: Path | str, options: ClassifierOptions, *, stages: Set[Stage] = PICTURES) -> None:
        path = Path(model)
        self.name, self.stages = path.name, stages
        self._options, self._session = options, _open_session(path)
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        if len(taken) != 1 or len(taken[0].shape) != 4 or taken[0].type not in ("tensor(float)", "tensor(float16)"):
            raise OptionError(f"{path} takes {_described(taken)}; a classifier takes one picture, float of 4 axes")
        self._input, self._output = taken[0].name, given[0].name
        self._type = np.float16 if "float16" in taken[0].type else np.float32
        self._size = options.size or self._own_size(path, taken[0].shape)
        count = given[0].shape[-1] if given[0].shape else None
        if options.labels and isinstance(count, int) and count != len(options.labels):
            raise OptionError(f"{path} gives {count} scores, and there are {len(options.labels)} labels")
        self._refused = self._indices(path, count if isinstance(count, int) else None)

    def check(self, content: Content) -> Verdict:
        assert content.picture is not None
        scores = self._scores(content.picture)
        for label, index in self._refused:
            if scores[index] >= self._options.threshold:
                words = f"{label} {scores[index]:.2f}, refused from {self._options.threshold:g} on"
                return Verdict(allowed=False, reason=words)
        return ALLOWED

    def _scores(self, picture: Image.Image) -> NDArray[np.float64]:
        """Return a score from 0 to 1 per label (n,). Raises ExecutorError for an answer that is none."""
        given = self._session.run([self._output], {self._input: self._placed(picture)})[0]
        wanted = len(self._options.labels) or (max(index for _, index in self._refused) + 1)
        found = np.asarray(given, np.float64).reshape(-1)
        if len(found) < wanted or (self._options.labels and len(found) != wanted) or not np.isfinite(found).all():
            raise ExecutorError(
                f"{self.name} gave {found.shape} scores for {wanted} labels, or some that are no numbers"
            )
        if self._options.scores is Scores.SOFTMAX:
            raised = np.exp(found - found.max())
            return raised / raised.sum()
        if self._options.scores is Scores.SIGMOID:
            return 1 / (1 + np.exp(-np.clip(found, -500, 500)))
        if found.min() < 0 or found.max() > 1:
            raise ExecutorError(f"{self.name} gave scores beyond 0 to 1; say scores: softmax or sigmoid")
        return found

    def _placed(self, picture: Image.Image) -> NDArray[Any]:
        options = self._options
        small = picture.convert("RGB").resize(self._size, Image.Resampling.BILINEAR)
        with np.errstate(over="ignore"):  # what becomes infinite gives no scores, which is seen
            values = np.asarray(small, np.float32) / 255 - np.asarray(options.mean, np.float32)
            values = values / np.asarray(options.std, np.float32)
            if options.layout is Layout.CHANNELS_FIRST:
                values = values.transpose(2, 0, 1)
            return np.ascontiguousarray(values[None], self._type)

    def _own_size(self, path: Path, shape: Sequence[Any]) -> tuple[int, int]:
        height, width = shape[2:] if self._options.layout is Layout.CHANNELS_FIRST else shape[1:3]
        if not isinstance(height, int) or not isinstance(width, int):
            raise OptionError(f"{path} takes pictures of any size; say which in {path.with_suffix('.json').name}: size")
        return width, height

    def _indices(self, path: Path, count: int | None) -> tuple[tuple[str, int], ...]:
        """Return each refused label with its place among the scores."""
        labels = self._options.labels or tuple(map(str, range(count or 0)))
        if not self._options.refuse:
            raise OptionError(
                f"{path} refuses nothing: say which labels do, of {', '.join(labels[:20]) or 'unknown ones'}"
            )
        for label in self._options.refuse:
            if label not in labels:
                raise OptionError(f"{path} has no label {label!r}; it has {', '.join(labels[:20]) or 'none by name'}")
        return tuple((label, labels.index(label)) for label in self._options.refuse)


def _open_session(path: Path) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises types of its own
        raise OptionError(f"{path} cannot be opened as an ONNX network: {error}") from error


def _described(ports: Sequence[Any]) -> str:
    return ", ".join(f"{port.type} {port.shape}" for port in ports) or "nothing"
