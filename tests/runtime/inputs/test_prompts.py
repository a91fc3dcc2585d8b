"""Token ids are those of the checkpoint's own tokenizers; a cut is reported."""

from types import SimpleNamespace

import pytest

from kontext_trt import Kontext, PromptCutWarning
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.errors import BundleError, RequestError
from kontext_trt.runtime.flow.encodings import PROMPTS_CACHED
from kontext_trt.runtime.inputs.prompts import PromptTokenizer, check_prompt

PROMPTS = [
    "make it blue",
    "  lead, double  space and trail ",
    "Ünïcödé 日本語 🎨",
    'it\'s 100% "quoted"\nand on two lines',
    "UPPER lower",
    "long " * 100,
    "x" * 2000,
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(("name", "attribute", "length"), [("clip", "tokenizer", 77), ("t5", "tokenizer_2", 512)])
def test_ids_are_transformers(bundle: Bundle, pipeline, prompt: str, name: str, attribute: str, length: int):
    ids, _ = PromptTokenizer(*bundle.tokenizer(name))(prompt)
    expected = getattr(pipeline, attribute)(
        [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="np"
    ).input_ids
    assert ids.shape == (1, length)
    assert ids.tolist() == expected.tolist()


def test_cut_is_the_end_of_the_prompt(bundle: Bundle):
    tokenizer = PromptTokenizer(*bundle.tokenizer("t5"))
    assert tokenizer("a" * 510)[1] == ""  # 510 characters, the leading mark and the end make 512
    assert tokenizer("a" * 510 + "bcd")[1] == "bcd"


def test_long_prompt_warns_with_what_was_cut(kontext: Kontext):
    with pytest.warns(PromptCutWarning, match="longer than 512 tokens; this was cut: 'bcd'"):
        kontext.generate("a" * 510 + "bcd", steps=1, seed=0, size=(32, 32))
    for prompts in ("a" * 510 + "bcd", ["x", "a" * 510 + "bcd"]):  # as often as it is asked, though encoded once
        with pytest.warns(PromptCutWarning, match="this was cut: 'bcd'") as warned:
            kontext.generate(prompts, steps=1, seed=0, size=(32, 32))
        assert len(warned) == 1
    many = [f"{index:02} " + "a" * 520 for index in range(PROMPTS_CACHED + 2)]
    with pytest.warns(PromptCutWarning) as warned:
        kontext.generate(many, steps=1, seed=0, size=(32, 32))
    assert len(warned) == len(many)


@pytest.mark.parametrize("prompt", ["", "   \n", None, 3])
def test_empty_prompt_is_refused(prompt: object):
    with pytest.raises(RequestError, match="a prompt must be a text that says what to do"):
        check_prompt(prompt)


def test_a_panic_of_the_library_is_our_error(bundle: Bundle, monkeypatch):
    """It is raised as a BaseException, so that `except Exception` misses it."""

    class PanicException(BaseException):
        pass

    def panics(*_: object) -> None:
        raise PanicException("index out of bounds")

    tokenizer = PromptTokenizer(*bundle.tokenizer("t5"))
    monkeypatch.setattr(tokenizer, "_tokenizer", SimpleNamespace(encode=panics))
    with pytest.raises(BundleError, match=r"t5\.json is not a tokenizer of this bundle's: index out of bounds"):
        tokenizer("x")


@pytest.mark.parametrize("ids", [[1] * 511, [1] * 513, [1 << 31] * 512])
def test_ids_that_the_graph_does_not_take_are_refused(bundle: Bundle, monkeypatch, ids: list[int]):
    tokenizer = PromptTokenizer(*bundle.tokenizer("t5"))
    monkeypatch.setattr(tokenizer, "_tokenizer", SimpleNamespace(encode=lambda _: SimpleNamespace(ids=ids)))
    with pytest.raises(BundleError, match="is not a tokenizer of this bundle's"):
        tokenizer("x")


def test_damaged_tokenizer(bundle: Bundle, tmp_path):
    _, record = bundle.tokenizer("t5")
    file = tmp_path / "t5.json"
    file.write_text("{}")
    with pytest.raises(BundleError, match=r"t5\.json is not a tokenizer"):
        PromptTokenizer(file, record)
