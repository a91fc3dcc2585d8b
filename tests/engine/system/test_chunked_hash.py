"""One hash, whether the bytes come in pieces or lie in a file."""

from __future__ import annotations

import hashlib
import random

import pytest

from kontext_trt.engine.system import chunked_hash
from kontext_trt.engine.system.chunked_hash import ChunkedHash, hash_buffer


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_hash, "CHUNK_BYTES", 10)


def test_the_formula() -> None:
    data = b"0123456789abc"
    chunks = hashlib.sha256(b"0123456789").digest() + hashlib.sha256(b"abc").digest()
    expected = hashlib.sha256(chunks + (13).to_bytes(8, "little")).hexdigest()
    assert hash_buffer(memoryview(data)) == expected


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 20, 997])
def test_pieces_of_any_size_give_the_same(length: int) -> None:
    dice = random.Random(length)
    data = dice.randbytes(length)
    digest, left = ChunkedHash(), data
    while left:
        size = dice.randrange(1, 33)
        digest.update(left[:size])
        left = left[size:]
    assert digest.size_bytes == length
    assert digest.hexdigest() == hash_buffer(memoryview(data))


def test_every_byte_is_reported() -> None:
    seen: list[int] = []
    hash_buffer(memoryview(bytes(25)), seen.append)
    assert seen == [10, 10, 5]


def test_a_zero_more_is_another_file() -> None:
    assert hash_buffer(memoryview(bytes(20))) != hash_buffer(memoryview(bytes(21)))
