"""The sheets of an evaluation: what stands on them."""

from answered import answers

from kontext_trt.benchmarks.quality.editbench.cases import EditCase
from kontext_trt.benchmarks.quality.editbench.contact_sheet import contact_sheets, failure_sheets
from kontext_trt.benchmarks.quality.editbench.evaluation import Answer, Evaluation
from kontext_trt.benchmarks.sheets import Layout


def evaluation(made: tuple[Answer, ...]) -> Evaluation:
    return Evaluation(answers=made, turns=(), bundle="c" * 64, executor="nobody", steps=7, seed=3, seconds=1.0)


def right(bench: tuple[EditCase, ...]) -> tuple[Answer, ...]:
    return answers(bench, [case.sample.target() for case in bench])


def wrong(bench: tuple[EditCase, ...]) -> tuple[Answer, ...]:
    pictures = [case.sample.reference() for case in bench]
    return answers(
        bench, [255 - case.sample.target() if p is None else p for p, case in zip(pictures, bench, strict=True)]
    )


def laid_out(made: tuple[Answer, ...]) -> list[Layout]:
    return [sheet.lay_out() for sheet in contact_sheets(evaluation(made), "small")]


def test_a_sheet_says_what_it_shows(bench: tuple[EditCase, ...]):
    made = (*right(bench[:2]), *wrong(bench[2:3]))
    (layout,) = laid_out(made)
    assert layout.said[0] == "EditBench, answers of small: 2 of 3 are right"
    assert layout.said[1] == "bundle cccccccccccc, by nobody, 7 steps, noise of seed 3"
    assert layout.said[2].startswith("right: less than 20 % of any 16x16 pixels differ visibly")
    assert layout.said[3:7] == ("reference", "request", "answer", "known answer")
    for answer in made:
        assert f"{answer.case.number}. {answer.case.sample.instruction}" in layout.said
    assert [mark for mark, _ in layout.marks] == [True, True, False]
    assert len(layout.frames) == 1


def test_a_wrong_answer_says_why(bench: tuple[EditCase, ...]):
    said = [words for layout in laid_out(wrong(bench)) for words in layout.said if words.startswith("wrong")]
    assert len(said) == len(bench)
    assert all(words.startswith("wrong: ") for words in said)
    assert any(words.endswith(" % differ at worst") for words in said)


def test_a_request_from_text_alone_has_no_reference(bench: tuple[EditCase, ...]):
    (case,) = [case for case in bench if case.sample.before is None][:1]
    (layout,) = laid_out(right((case,)))
    assert "none: from text alone" in layout.said
    assert len(layout.pictures) == 2


def test_many_answers_take_pages(bench: tuple[EditCase, ...]):
    made = (right(bench) * (81 // len(bench) + 1))[:81]
    layouts = laid_out(made)
    assert [layout.said[0] for layout in layouts] == [
        f"EditBench, answers of small: 81 of 81 are right (page {number} of 3)" for number in (1, 2, 3)
    ]
    assert sum(len(layout.marks) for layout in layouts) == 81
    assert max(max(layout.extent) for layout in layouts) < 6000


def test_failures_have_a_sheet_of_their_own(bench: tuple[EditCase, ...]):
    assert failure_sheets(evaluation(right(bench[:3])), "small") == []
    (sheet,) = failure_sheets(evaluation((*right(bench[:2]), *wrong(bench[2:3]))), "small")
    layout = sheet.lay_out()
    assert layout.said[0] == "EditBench, wrong answers of small: 1 of 3"
    assert [mark for mark, _ in layout.marks] == [False]
