"""Writes a checkpoint's tokenizers as files that the `tokenizers` library opens alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.bundle.manifest import TokenizerRecord
from ..engine.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def write_tokenizer(name: str, folder: Path, target: Path, *, length: int, vocabulary: int) -> TokenizerRecord:
    """Write `folder`'s tokenizer ("clip" or "t5") as one JSON file, without padding or truncation.

    Raises:
        CheckpointError: It cannot be read, has no padding token, or gives ids that the network's embedding of
            `vocabulary` rows lacks.
    """
    from transformers import CLIPTokenizer, T5Tokenizer  # seconds, which what is refused before need not take

    classes = {"clip": CLIPTokenizer, "t5": T5Tokenizer}
    try:
        tokenizer: PreTrainedTokenizerBase = classes[name].from_pretrained(str(folder))
    except Exception as error:  # whatever transformers makes of a foreign or damaged folder
        raise CheckpointError(f"{folder} holds no readable {name} tokenizer: {error}") from error
    pad_id = tokenizer.pad_token_id
    if not isinstance(pad_id, int):
        raise CheckpointError(f"{folder}: the {name} tokenizer has no padding token")
    if len(tokenizer) > vocabulary + 100 or pad_id >= vocabulary:  # T5's sentinels may lie beyond its embedding
        raise CheckpointError(
            f"{folder} has {len(tokenizer)} tokens, the {name} network has {vocabulary}: they do not belong together"
        )
    backend: Any = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    target.write_text(backend.to_str(pretty=False), encoding="utf-8")
    return TokenizerRecord(path=f"tokenizers/{target.name}", length=length, pad_id=pad_id)
