"""Names of files made of words from elsewhere."""

from __future__ import annotations

import re

from kontext_trt.benchmarks.quality.public.names import file_names


def test_plain_words_stay():
    assert file_names(["subject-add", "0001", "a.b_c"]) == {one: one for one in ("subject-add", "0001", "a.b_c")}


def test_what_no_folder_should_have_goes():
    made = file_names(["../../etc", "a/b", "Instruction Editing - Global", "\u52a0", "..", "x" * 300])
    assert made["../../etc"] == "etc"
    assert made["a/b"] == "a-b"
    assert made["Instruction Editing - Global"] == "Instruction-Editing-Global"
    assert re.fullmatch(r"item-[0-9a-f]{12}", made["\u52a0"])
    assert re.fullmatch(r"item-[0-9a-f]{12}", made[".."])
    assert re.fullmatch(r"x{80}-[0-9a-f]{12}", made["x" * 300])


def test_names_are_unlike_each_other_in_any_order():
    words = ["a b", "a/b", "A-B", "against", "Against", "\ud800", "other"]
    made = file_names(words, reserved=("against",))
    assert len({name.lower() for name in made.values()}) == len(words)
    assert made["other"] == "other"
    assert "against" not in {name.lower() for name in made.values()}
    assert file_names(words[::-1], reserved=("against",)) == made


def test_a_name_that_looks_like_a_hashed_one_is_hashed_again():
    taken = file_names(["a b", "a/b"])["a b"]
    assert file_names(["a b", "a/b", taken])[taken] not in (taken, *file_names(["a b", "a/b"]).values())
