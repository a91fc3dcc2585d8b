"""The hints that training gives beside the picture."""

import pytest
import torch

from kontext_trt.benchmarks.quality.editbench.letters import ALPHABET
from kontext_trt.benchmarks.quality.editbench.samples import draw_sample
from kontext_trt.benchmarks.quality.editbench.scene import ANATOMY, COLOURS, SHAPES, SQUARE
from kontext_trt.examples.small_kontext.hints import CLASSES, NEW, OLD, UNKNOWN, letter_roles, places, stands
from kontext_trt.examples.small_kontext.stream import NUM_TOKENS


def test_the_last_quoted_word_is_the_new_one():
    assert letter_roles(["▁say", '▁"', "A", "B", "C", '"', "."]) == [0, 0, 2, 3, 4, 0, 0]
    tokens = ['▁"', *"WXYZ", '"', "▁with", '▁"', *"ABCD", '"']
    assert letter_roles(tokens) == [0, *[OLD] * 4, 0, 0, 0, *range(NEW[4], NEW[4] + 4), 0]


def test_places_name_what_the_answer_shows():
    sample = draw_sample(2, task="letters", size=SQUARE)
    after = sample.edit.after
    assert after.sign is not None
    named = places(sample, NUM_TOKENS)
    assert named.shape == (NUM_TOKENS, len(CLASSES))
    row = named[:, :2].reshape(8, 16)[round(after.centre((after.sign.row, 1))[1]) // 16]
    assert "".join(dict.fromkeys(ALPHABET[i] for i in row if i != UNKNOWN)) == "".join(dict.fromkeys(after.sign.word))
    for thing in after.things:
        x, y = after.position(thing)
        colour, _, _, shape, *creature = named.reshape(8, 8, -1)[int(y) // 16, int(x) // 16, 2:]
        assert (colour, shape) == (tuple(COLOURS).index(thing.colour), SHAPES.index(thing.shape))
        assert set(creature) == {UNKNOWN}


@pytest.mark.parametrize("seed", range(4))
def test_places_name_a_creatures_face(seed: int):
    after = draw_sample(seed, task="creature", size=SQUARE).edit.after
    creature = after.creature
    assert creature is not None
    named = torch.from_numpy(places(draw_sample(seed, task="creature", size=SQUARE), NUM_TOKENS))
    x, y = after.centre(creature.cell)
    here = int(y) // 16 * 8 + int(x) // 16
    assert stands(named)[here]
    assert 1 <= stands(named).sum() <= 20
    eyes, mouth, head, accent = named[here, 6:].tolist()
    assert (eyes + 1, ANATOMY.mouths[mouth], ANATOMY.heads[head]) == (creature.eyes, creature.mouth, creature.head)
    assert tuple(COLOURS)[accent] == creature.accent
    assert (named[~stands(named), 6:] == UNKNOWN).all()
