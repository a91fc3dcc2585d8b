"""Tokenizers as the repositories have them that they are fetched from: without `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from kontext_trt.export.tokenizers import write_tokenizer

SENTENCES = ("make the cat orange", "turn the star red and blue", "a quick brown fox jumps over the lazy dog") * 50


def test_a_sentencepiece_model_alone_is_t5s_tokenizer(tmp_path: Path) -> None:
    """As in google/t5-v1_1-xxl."""
    folder = tmp_path / "t5"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(folder / "spiece"), vocab_size=38, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512, "extra_ids": 100, **special}))
    written = write_tokenizer("t5", folder, tmp_path / "t5.json", length=512, vocabulary=38 + 28)
    assert (written.length, written.pad_id) == (512, 0)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    ours = Tokenizer.from_file(str(tmp_path / "t5.json"))
    for sentence in (*SENTENCES[:3], "make the fox  jump over 3 cats"):
        assert ours.encode(sentence).ids == [*theirs.encode(sentence), 1]


def test_a_vocabulary_and_merges_are_clips_tokenizer(tmp_path: Path) -> None:
    """As in openai/clip-vit-large-patch14."""
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(f"{one}</w>" for one in symbols), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {**special, "pad_token": "<|endoftext|>", "do_lower_case": True, "model_max_length": 77}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    written = write_tokenizer("clip", tmp_path, tmp_path / "clip.json", length=77, vocabulary=len(tokens))
    assert written.pad_id == len(tokens) - 1
    ids = Tokenizer.from_file(str(tmp_path / "clip.json")).encode("Cat").ids
    assert [tokens[one] for one in ids] == ["<|startoftext|>", "cat</w>", "<|endoftext|>"]
