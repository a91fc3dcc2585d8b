"""Turns prompts into token ids: 77 for CLIP, 512 for T5, padded, the end token kept when a prompt is cut."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ...engine.bundle.manifest import TokenizerRecord
from ...engine.components import COMPONENTS
from ...engine.errors import BundleError, RequestError

logger = logging.getLogger(__name__)


class PromptCutWarning(UserWarning):
    """Warns that a prompt was longer than T5's context; the message holds what was cut."""


class PromptTokenizer:
    """Tokenizes prompts for one encoder.

    Args:
        path: The tokenizer's file in the bundle.
        record: What the bundle's manifest says of it: the number of ids, and the one that pads.

    Attributes:
        length: The number of ids per prompt.

    Raises:
        BundleError: The file is not a tokenizer.
    """

    def __init__(self, path: Path, record: TokenizerRecord) -> None:
        self._path = path
        self.length = record.length
        with self._failures():
            self._tokenizer = Tokenizer.from_file(str(path))
            pad_token = self._tokenizer.id_to_token(record.pad_id)
            self._tokenizer.enable_truncation(record.length)
            self._tokenizer.enable_padding(length=record.length, pad_id=record.pad_id, pad_token=pad_token or "")

    def __call__(self, prompt: str) -> tuple[NDArray[np.int32], str]:
        """Return ids (1, length) int32, and the end of the prompt that did not fit ("" if all did).

        Raises:
            BundleError: The tokenizer fails, or gives another number of ids, or ids beyond int32.
        """
        with self._failures():
            encoding = self._tokenizer.encode(prompt)
            if len(encoding.ids) != self.length:
                raise ValueError(f"it gives {len(encoding.ids)} ids for a prompt, not {self.length}")
            ids = np.array([encoding.ids], dtype=np.int32)  # raises OverflowError beyond int32
        starts = [
            start
            for rest in encoding.overflowing
            for (start, stop), special in zip(rest.offsets, rest.special_tokens_mask, strict=True)
            if stop > start and not special
        ]
        cut = prompt[min(starts) :] if starts else ""
        return ids, cut

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what the library raises into BundleError: bare exceptions, and panics, which are no `Exception`."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:
            raise BundleError(f"{self._path} is not a tokenizer of this bundle's: {error}") from error


def check_prompt(prompt: object) -> str:
    """Raise RequestError unless this is a prompt with something in it, of whole characters."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError(f"a prompt must be a text that says what to do, not {prompt!r}")
    try:
        prompt.encode()
    except UnicodeEncodeError:  # a command line that is not UTF-8 comes with lone surrogates
        raise RequestError(f"a prompt must be text that UTF-8 can hold, not {prompt!r}") from None
    return prompt


def warn_if_cut(cut: str, encoder: str, length: int) -> None:
    """Warn if T5 did not see the whole prompt. CLIP sees 77 tokens of every long prompt, which is only logged."""
    if not cut:
        return
    if COMPONENTS[encoder].warns_of_cut:
        message = f"the prompt is longer than {length} tokens; this was cut: {cut!r}"
        warnings.warn(message, PromptCutWarning, stacklevel=2)
    else:
        logger.info("CLIP sees the first %d tokens of the prompt, not: %r", length, cut)
