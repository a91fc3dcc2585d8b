"""The part of a picture that is edited by itself: inside it, around the mask, not resampled where that can be."""

import math

import numpy as np
import pytest

from kontext_trt.engine.errors import RequestError
from kontext_trt.engine.sizes import TRAINED_SIZES
from kontext_trt.runtime.inputs.crops import crop_box, usual_margin
from kontext_trt.runtime.inputs.placement import Box, nearest_size


def marked(size: tuple[int, int], box: Box) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def extent(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def within(inner: Box, outer: Box) -> bool:
    return inner[0] >= outer[0] and inner[1] >= outer[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def random_case(rng: np.random.Generator) -> tuple[tuple[int, int], Box, int]:
    """A picture's size, a box in it and a margin; sizes and extents over all magnitudes."""
    longer = 2 ** rng.uniform(4, 12)
    width, height = (int(max(16, longer * rng.uniform(0.2, 1))) for _ in range(2))
    box_width, box_height = (max(1, int(side * rng.uniform(0, 1) ** 2)) for side in (width, height))
    left, top = int(rng.integers(0, width - box_width + 1)), int(rng.integers(0, height - box_height + 1))
    return (width, height), (left, top, left + box_width, top + box_height), int(rng.integers(0, 100))


def test_whatever_the_picture_and_the_mask():
    rng = np.random.default_rng(0)
    seen = {"native": 0, "scaled": 0, "smaller": 0, "odd": 0}
    for _ in range(600):
        size, box, margin = random_case(rng)
        crop = crop_box(marked(size, box), TRAINED_SIZES, margin)
        left, top, right, bottom = box
        wanted = (
            max(left - margin, 0),
            max(top - margin, 0),
            min(right + margin, size[0]),
            min(bottom + margin, size[1]),
        )
        assert within(crop, (0, 0, *size))
        assert within(wanted, crop)
        assert min(extent(crop)) >= 16
        least = [max((wanted[2] - wanted[0]) / w, (wanted[3] - wanted[1]) / h) for w, h in TRAINED_SIZES]
        most = [min(size[0] / w, size[1] / h) for w, h in TRAINED_SIZES]
        scales = [max(a, min(b, 1)) for a, b in zip(least, most, strict=True) if a <= b]
        if 1 in scales:
            kind = "native"
            assert extent(crop) in TRAINED_SIZES
        elif scales:
            scale = min(scales, key=lambda scale: abs(math.log(scale)))
            kind = "scaled" if scale > 1 else "smaller"
            w, h = nearest_size(extent(crop), TRAINED_SIZES)
            if min(extent(crop)) > 100:  # below, whole pixels are far from any shape
                assert extent(crop) == pytest.approx((scale * w, scale * h), abs=1)
        else:
            kind = "odd"
        seen[kind] += 1
    assert min(seen.values()) >= 10, seen


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((4000, 3000), (2000, 1500, 2050, 1550), (1513, 1013, 2537, 2037)),  # a trained size, in the middle
        ((4000, 3000), (0, 0, 50, 50), (0, 0, 1024, 1024)),  # shifted inside
        ((4000, 3000), (3990, 2990, 4000, 3000), (2976, 1976, 4000, 3000)),
        ((4000, 3000), (1000, 1000, 2200, 1200), (666, 700, 2533, 1500)),  # 1800x800 wanted: 1.19 of 1568x672
        ((1000, 1000), (10, 10, 20, 20), (0, 0, 1000, 1000)),  # 1024x1024 does not fit
        ((3000, 200), (100, 50, 150, 100), (0, 0, 467, 200)),  # a thin panorama has room for 1568x672 at 0.3
        ((3000, 200), (100, 50, 2100, 100), (0, 0, 2600, 200)),  # no shape fits: all of the height
        ((10, 10), (2, 2, 3, 3), (0, 0, 10, 10)),
    ],
)
def test_by_hand(size: tuple[int, int], box: Box, expected: Box):
    assert crop_box(marked(size, box), TRAINED_SIZES) == expected


def test_a_margin_of_a_quarter():
    assert usual_margin((0, 0, 10, 20)) == 32
    assert usual_margin((0, 0, 10, 201)) == 51


@pytest.mark.parametrize("margin", [-1, 1.5, True, "8"])
def test_other_margins_are_refused(margin):
    with pytest.raises(RequestError, match="the margin around a mask must be a whole number of pixels from 0 on, not"):
        crop_box(np.ones((4, 4), np.bool_), TRAINED_SIZES, margin)
