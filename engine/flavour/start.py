"""Starts an object of TensorRT's, which opens the GPU, and explains it if that fails.

The bindings raise TypeError for it, "factory function returned nullptr", and say why only in their log, if at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Started = TypeVar("Started")

CANNOT_START = "could not open the GPU"
"""The words that the message of a failed start has."""


def start(
    library: str, make: Callable[[], Started], said: Callable[[], Sequence[str]], fail: Callable[[str], Exception]
) -> Started:
    """Return what `make` makes: a logger, builder or runtime.

    Args:
        library: The library's name, for the message.
        make: Calls the library's factory.
        said: Returns what the library has logged as errors.
        fail: Makes the error that is raised if there is no object, from the reason in words.
    """
    words = ""
    try:
        made = make()
    except TypeError as error:
        made, words = None, str(error)
    if made is None:
        words = "; ".join(said()) or words or "it did not say why"
        raise fail(
            f"{library} {CANNOT_START} ({words}): the driver is too old for it, or the GPU's memory is full; "
            "nvidia-smi shows both"
        )
    return made
