"""Sizes of pictures: the trained ones, and what is refused."""

import pytest
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

from kontext_trt.engine.errors import RequestError
from kontext_trt.engine.sizes import TRAINED_SIZES, check_size, parse_size, token_grid


def test_trained_sizes():
    assert set(TRAINED_SIZES) == {tuple(size) for size in PREFERRED_KONTEXT_RESOLUTIONS}
    assert len(TRAINED_SIZES) == 17
    grids = [token_grid(size) for size in TRAINED_SIZES]
    counts = {4042, 4056, 4070, 4071, 4089, 4095, 4096, 4116, 4150}
    assert {height * width for height, width in grids} == counts


@pytest.mark.parametrize("size", [(100, 96), (96, 100), (0, 16), (-16, 16)])
def test_size_off_the_grid_is_refused(size: tuple[int, int]):
    with pytest.raises(RequestError, match="multiples of 16; the nearest is"):
        check_size(size)


def test_sizes_are_read():
    assert [parse_size(text) for text in ("1568x672", "1024X1024")] == [(1568, 672), (1024, 1024)]
    for text in ("1024", "x", "1024x", "12.5x16", "axb", "-16x16", f"{'1' * 5000}x16"):
        with pytest.raises(RequestError, match="a size is WIDTHxHEIGHT, such as 1024x1024"):
            parse_size(text)
