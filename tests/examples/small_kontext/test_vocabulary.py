"""The small Kontext's vocabulary."""

from kontext_trt.benchmarks.quality.editbench.samples import draw_sample
from kontext_trt.examples.small_kontext.vocabulary import T5_LENGTH


def test_instructions_fit_and_have_no_unknown_token(tokenizers):
    _, t5 = tokenizers
    instructions = [draw_sample(seed, held_out=seed % 2 == 0).instruction for seed in range(3000)]
    ids = t5(instructions)["input_ids"]
    assert max(map(len, ids)) <= T5_LENGTH
    assert not any(t5.unk_token_id in one for one in ids)
    assert t5.tokenize('say "KING"') == ["▁", *"say", '▁"', *"KING", '"'] or "▁say" in t5.tokenize('say "KING"')
