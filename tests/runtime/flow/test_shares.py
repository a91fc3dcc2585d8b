"""Which tokens each rank holds."""

from __future__ import annotations

from itertools import product

import pytest

from kontext_trt.runtime.flow.shares import Share, Shares, divide

SIZES = (2, 3, 4, 6, 8)
CASES = [*product((8, 56, 509, 512), (8, 63, 4096), (0, 1, 64, 100)), (512, 4095, 4097), (11, 13, 7)]


@pytest.mark.parametrize("size", SIZES)
def test_every_token_is_held_once_and_none_has_two_more(size: int):
    for text, target, reference in CASES:
        shares = divide(text, target, reference, size)
        assert shares.size == size
        whole = list(range(text + target + reference))
        parts = (whole[:text], whole[text : text + target], whole[text + target :])
        held = [Share(rank=rank, shares=shares) for rank in range(size)]
        for part, tokens in zip(("text", "target", "reference"), parts, strict=True):
            assert [token for share in held for token in tokens[getattr(share, part)]] == tokens, "in their order"
            counts = getattr(shares, part)
            assert max(counts) - min(counts) <= 1
        assert shares.joint == tuple(
            sum(len(range(*getattr(share, part).indices(10**6))) for part in ("text", "target", "reference"))
            for share in held
        )
        assert max(shares.joint) - min(shares.joint) <= 1


def test_a_share_of_the_text_depends_on_nothing_else():
    """The denoiser's graph has it as a constant."""
    for size, text in product(SIZES, (56, 511, 512)):
        assert len({divide(text, target, reference, size).text for target in (8, 9, 77) for reference in (0, 5)}) == 1


def test_shares_are_told_as_they_are():
    assert divide(5, 4, 3, 2) == Shares(text=(3, 2), target=(2, 2), reference=(1, 2))
    assert divide(5, 4, 3, 3) == Shares(text=(2, 2, 1), target=(1, 1, 2), reference=(1, 1, 1))
    share = Share(rank=1, shares=divide(5, 4, 3, 2))
    assert (share.text, share.target, share.reference) == (slice(3, 5), slice(2, 4), slice(1, 3))
