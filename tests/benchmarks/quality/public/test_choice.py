"""Which items of a benchmark are run."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_folders import kontext_bench, write_lines, write_pictures

from kontext_trt import BenchmarkError, OptionError
from kontext_trt.benchmarks.quality.public.choice import Choice, parse_shard
from kontext_trt.benchmarks.quality.public.layouts import Bench, read_bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return read_bench(kontext_bench(tmp_path, 12))


@pytest.fixture
def two_languages(tmp_path: Path) -> Bench:
    write_pictures(tmp_path, 1)
    line = {"key": "k", "task_type": "t", "instruction": "x", "input_image": "images/0000.png"}
    return read_bench(write_lines(tmp_path, [{**line, "instruction_language": name} for name in ("en", "cn")]))


def keys(choice: Choice, bench: Bench) -> list[str]:
    return [item.key for item in choice.of(bench)]


def test_all_in_order(bench: Bench):
    assert keys(Choice(), bench) == [f"{number:04d}" for number in range(12)]


def test_categories_and_count(bench: Bench):
    chosen = Choice(categories=("Text Editing", "Style Reference"), count=3)
    assert keys(chosen, bench) == ["0001", "0004", "0006"]


def test_shares_are_all_of_it(bench: Bench):
    shares = [keys(Choice(shard=(number, 5)), bench) for number in range(1, 6)]
    assert shares[0] == ["0000", "0005", "0010"]
    assert sorted(key for share in shares for key in share) == keys(Choice(), bench)


def test_languages(two_languages: Bench):
    (item,) = Choice(language="cn").of(two_languages)
    assert item.language == "cn"
    with pytest.raises(BenchmarkError, match=r"keys in several languages \(en, cn\); choose one with --language"):
        Choice().of(two_languages)
    with pytest.raises(OptionError, match="has no 'de'; it has en, cn"):
        Choice(language="de").of(two_languages)


def test_what_is_not_there_is_said(bench: Bench):
    with pytest.raises(OptionError, match="has no 'Text'; it has 'Character Reference', "):
        Choice(categories=("Text",)).of(bench)
    with pytest.raises(OptionError, match="laid out as KontextBench, which says no language"):
        Choice(language="en").of(bench)
    with pytest.raises(OptionError, match=r"of 12 items of .* none is left to run"):
        Choice(count=1, shard=(2, 2)).of(bench)
    with pytest.raises(OptionError, match="--count must be 1 or more, not 0"):
        Choice(count=0)


@pytest.mark.parametrize("text", ["0/2", "3/2", "0/0"])
def test_shares_out_of_range(text: str):
    with pytest.raises(OptionError, match=rf"--shard is K/N with K from 1 to N, not {text}"):
        Choice(shard=parse_shard(text))


@pytest.mark.parametrize("text", ["", "1", "a/b", "1/-2", "1/2/3"])
def test_shares_that_are_none(text: str):
    with pytest.raises(OptionError, match=r"--shard is K/N, such as 1/4, not"):
        parse_shard(text)
