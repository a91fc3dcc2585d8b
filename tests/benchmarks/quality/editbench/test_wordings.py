"""The wordings of instructions."""

from kontext_trt.benchmarks.quality.editbench.wordings import FRAMES


def test_held_out_wordings_are_new_sentences_of_known_words():
    known = {word for frames in FRAMES.values() for frame in frames.training for word in frame.split()}
    for task, frames in FRAMES.items():
        assert not set(frames.training) & set(frames.held_out), task
        for frame in frames.held_out:
            words = {word.strip(",") for word in frame.split()}
            assert words <= {word.strip(",") for word in known}, frame
