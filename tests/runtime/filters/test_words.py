"""Word lists: what counts as the same word, what does not, and which lists are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt import Content, OptionError, Stage, WordList

LISTED = ["weapon", "naked man", "Straße", "café", "हिंदी", "x-ray"]


def allows(prompt: str) -> bool:
    verdict = WordList(LISTED).check(Content(stage=Stage.PROMPT, prompt=prompt))
    assert verdict.allowed or verdict.reason == "it holds a word of the list", "nothing of the prompt is repeated"
    return verdict.allowed


@pytest.mark.parametrize(
    "prompt",
    [
        "a weapon",
        "A WEAPON!",
        "no (weapon), please",
        "wea\u200bpon",
        "wea\u00adpon",
        "ｗｅａｐｏｎ",  # noqa: RUF001
        "wéapon",
        "big_weapon_now",
        "a naked   man",
        "a naked, man",
        "STRASSE",
        "CAFE\u0301",
        "cafe",
        "में हिंदी है",
        "an X ray",
    ],
)
def test_words_of_the_list_are_found(prompt: str) -> None:
    assert not allows(prompt)


@pytest.mark.parametrize("prompt", ["weapons", "a man, naked", "naked woman", "weap0n", "w e a p o n", "ray", ""])
def test_whole_words_alone_are(prompt: str) -> None:
    assert allows(prompt)


def test_a_list_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeff# a comment\n\nweapon\r\n  naked man  \n".encode())
    words = WordList.read(path)
    assert (words.name, words.stages) == ("words.txt", {Stage.PROMPT})
    for prompt, allowed in (("weapon", False), ("naked man", False), ("a comment", True)):
        assert words.check(Content(stage=Stage.PROMPT, prompt=prompt)).allowed is allowed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"# nothing\n\n", "the list holds no word, so it refuses nothing"),
        (b"weapon\n!!!\n", "entry 2 holds neither letter nor digit"),
        (b"\xff\xfe\x00", "cannot be read as a list of words in UTF-8"),
        (None, "cannot be read as a list of words in UTF-8"),
        (b"a\n" * (8 << 20) + b"b", "is larger than 16 MiB"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "words.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(OptionError, match=message):
        WordList.read(path)
