"""The stream of samples that training reads."""

from random import Random

import torch

from kontext_trt.benchmarks.quality.editbench.scene import SQUARE
from kontext_trt.examples.small_kontext.stream import Bucket, Pool, Ring, Texts, draw_chunk
from kontext_trt.examples.small_kontext.vocabulary import T5_LENGTH


def test_pool_overwrites_the_oldest(tokenizers):
    clip, t5 = (tokenizer.backend_tokenizer.to_str() for tokenizer in tokenizers)
    bucket = Bucket(SQUARE, False)
    chunk = draw_chunk(0, 3, bucket, Texts(clip, t5).encoders(), held_out=False)
    assert chunk.target.shape == (3, 128, 128, 3)
    assert chunk.t5.shape == (3, T5_LENGTH)
    assert len(chunk.reference) == 0
    ring = Ring(5, torch.device("cpu"))
    for i in range(4):
        ring.add({"a": torch.full((3, 2), i), "none": torch.zeros(0, 4)})
    assert len(ring) == 5
    assert ring.count == 12
    assert set(ring.values["a"][:, 0].tolist()) == {2, 3}
    drawn = ring.draw(7)
    assert drawn["a"].shape == (7, 2)
    assert drawn["none"].shape == (0, 4)
    pool = Pool(100, torch.device("cpu"))
    pool.add(bucket, {"a": torch.zeros(3, 2)})
    assert pool.choose(Random(0)) == bucket
    assert pool.count == 3
