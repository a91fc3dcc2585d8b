"""Trains the small model's tokenizers on its own sentences, in CLIP's and T5's layouts.

T5's pieces are whole words where the grammar has them, and single capitals: signs are spelled letter by letter.
"""

from __future__ import annotations

import json
import re

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ...benchmarks.quality.editbench.samples import draw_sample

CLIP_LENGTH = 77
T5_LENGTH = 56
"""The number of tokens of text in the joint sequence; the longest of 20 000 instructions takes 55."""
CORPUS_SEED = 1_000_000_000
PRINTABLE = [chr(code) for code in range(33, 127)]


def corpus(num_sentences: int) -> list[str]:
    """Return instructions of training, without the words on signs."""
    instructions = (draw_sample(CORPUS_SEED + i).instruction for i in range(num_sentences))
    return [re.sub(r'"[A-Z]+"', '""', instruction) for instruction in instructions]


def train_t5_tokenizer(sentences: list[str]) -> T5Tokenizer:
    """Train T5's tokenizer.

    Every word of the sentences is a piece, and every printable character: what is no word is spelled.
    """
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words.train_from_iterator(sentences, trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False))
    known = sorted(word for word in words.get_vocab() if word.isalpha())
    pieces = [
        *((special, 0.0) for special in ("<pad>", "</s>", "<unk>")),
        ("▁", -2.0),
        ('▁"', -4.0),
        *((f"▁{word}", -4.0) for word in known),
        *((character, -8.0) for character in PRINTABLE),
    ]
    return _t5(pieces)


def _t5(pieces: list[tuple[str, float]]) -> T5Tokenizer:
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


def _clip(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH)  # type: ignore[arg-type]


def read_tokenizers(clip: str, t5: str) -> tuple[CLIPTokenizer, T5Tokenizer]:
    """Return tokenizers from the JSON that `tokenizer.backend_tokenizer.to_str()` gave for each."""
    clip_model, t5_model = json.loads(clip)["model"], json.loads(t5)["model"]
    merges = [(first, second) for first, second in clip_model["merges"]]
    return _clip(clip_model["vocab"], merges), _t5([(piece, score) for piece, score in t5_model["vocab"]])


def train_clip_tokenizer(sentences: list[str], merges: int = 260) -> CLIPTokenizer:
    """Train CLIP's tokenizer, byte-pair encoding with so many `merges`."""
    symbols = list(bytes_to_unicode().values())
    base = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    learner = CLIPTokenizer(vocab={token: i for i, token in enumerate(base)}, merges=[]).backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=len(base) + merges,
        initial_alphabet=symbols,
        end_of_word_suffix="</w>",
        show_progress=False,
        special_tokens=[],
    )
    learner.train_from_iterator(sentences, trainer)
    learnt = [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
    merged = dict.fromkeys("".join(pair) for pair in learnt)
    vocabulary = dict.fromkeys([*base, *merged, "<|startoftext|>", "<|endoftext|>"])
    return _clip({token: i for i, token in enumerate(vocabulary)}, learnt)
