"""A feathered mask: nothing outside, all of it inside, a ramp between, in thin parts, too."""

import numpy as np
import pytest

from kontext_trt.engine.errors import RequestError
from kontext_trt.runtime.inputs.feather import MAX_RADIUS, feather


def disc(side: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] - side // 2
    return rows**2 + columns**2 <= radius**2


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.bool_)
    for _ in range(6):
        row, column, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(1, 10)
        rows, columns = np.mgrid[:height, :width]
        mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        mask[row : row + rng.integers(1, 12), column : column + rng.integers(1, 12)] = True
    return mask


def slow(mask: np.ndarray, radius: int) -> np.ndarray:
    """The definition, pixel by pixel."""
    height, width = mask.shape
    rows, columns = np.mgrid[:height, :width]
    outside = np.argwhere(~mask)
    depth = np.full(mask.shape, float(radius))
    reach = np.full(mask.shape, radius)
    for row, column in np.argwhere(mask):
        away = np.abs(outside - (row, column))
        depth[row, column] = min(radius, np.sqrt((away**2).sum(axis=1).min()))
        reach[row, column] = min(radius, away.max(axis=1).min())  # the square of side 2 reach - 1 lies inside
    thickness = np.ones(mask.shape, int)
    for row, column in np.argwhere(mask):
        level = int(depth[row, column])
        inside = (rows - row) ** 2 + (columns - column) ** 2 < (level + 1) ** 2  # or next to it
        thickness[inside] = np.maximum(thickness[inside], level)
        level = int(reach[row, column])
        inside = np.maximum(abs(rows - row), abs(columns - column)) < level
        thickness[inside] = np.maximum(thickness[inside], level)
    return np.where(mask, np.rint(255 * np.minimum(depth / thickness, 1)), 0).astype(np.uint8)


@pytest.mark.parametrize("radius", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("shape", [(40, 40), (25, 70), (33, 64)])
def test_it_is_what_its_definition_says(radius: int, shape: tuple[int, int]):
    for seed in range(2):
        mask = blobs(seed, *shape)
        found = feather(mask, radius)
        difference = np.abs(found.astype(int) - slow(mask, radius))
        assert difference.max() <= 1  # a half is rounded by float32


def test_mirrored_masks_are_feathered_alike():
    mask = blobs(3, 50, 70)
    expected = feather(mask, 6)
    for turn in (np.fliplr, np.flipud, np.transpose):
        assert np.array_equal(feather(turn(mask), 6), turn(expected))


def test_a_disc_has_a_ramp_all_around():
    mask = disc(101, 40)
    alpha = feather(mask, 16)
    rows, columns = np.mgrid[:101, :101] - 50
    depth = 40 - np.hypot(rows, columns)
    assert not alpha[~mask].any()
    assert (alpha[depth >= 16] == 255).all()
    assert np.abs(alpha - 255 * depth / 16)[mask & (depth < 15)].max() <= 1.5 * 255 / 16


@pytest.mark.parametrize("angle", [0.1, 0.4, 0.7, 1.2])
def test_the_steps_of_a_slanted_edge_are_no_thin_parts(angle: float):
    rows, columns = np.mgrid[:120, :120] - 60
    from_edge = columns * np.cos(angle) + rows * np.sin(angle)
    alpha = feather(from_edge < 0, 16)[20:100, 20:100]  # at the borders, the mask is a wedge
    assert (alpha <= 255 * (1.5 - np.minimum(from_edge[20:100, 20:100], 0)) / 16).all()


def test_a_box_has_a_ramp_up_to_its_corners():
    mask = np.zeros((80, 80), np.bool_)
    mask[10:70, 10:70] = True
    alpha = feather(mask, 16)
    assert (alpha[10, 10:70] == 16).all()  # 255 / 16
    assert (alpha[25:55, 25:55] == 255).all()


@pytest.mark.parametrize("width", [1, 2, 5, 10, 31])
def test_the_middle_of_a_thin_part_is_taken_whole(width: int):
    """Also where it hangs on a thick one, but for where that one's discs bulge into it."""
    mask = np.zeros((120, 160), np.bool_)
    mask[10:110, 10:80] = True
    mask[60 : 60 + width, 80:150] = True
    alpha = feather(mask, 16)
    assert (alpha[60 + width // 2, 80 + width : 150 - width] == 255).all()


def test_the_picture_s_border_is_no_edge():
    mask = np.zeros((40, 60), np.bool_)
    mask[:, :30] = True
    alpha = feather(mask, 8)
    assert (alpha == alpha[0]).all()
    assert (alpha[:, :22] == 255).all()
    assert (feather(np.ones((5, 5), np.bool_), 8) == 255).all()


@pytest.mark.parametrize("radius", [0, 1])
def test_a_hard_edge(radius: int):
    mask = disc(41, 12)
    assert np.array_equal(feather(mask, radius), np.where(mask, 255, 0))


def test_nothing_marked_is_nothing():
    assert not feather(np.zeros((4, 4), np.bool_), 8).any()


@pytest.mark.parametrize("radius", [40, MAX_RADIUS])
def test_wide_ramps_hold_the_same_promises(radius: int):
    mask = disc(401, 190.5)
    alpha = feather(mask, radius)
    rows, columns = np.mgrid[:401, :401] - 200
    depth = 190.5 - np.hypot(rows, columns)
    assert not alpha[~mask].any()
    assert (alpha[depth >= radius] == 255).all()
    assert np.abs(alpha[200, 10 : 10 + radius] - 255 * np.arange(1, radius + 1) / radius).max() < 1


@pytest.mark.parametrize("radius", [-1, MAX_RADIUS + 1, 1.5, True, None])
def test_other_radii_are_refused(radius):
    with pytest.raises(RequestError, match=f"feather must be a whole number of pixels from 0 to 128, not {radius}"):
        feather(np.ones((4, 4), np.bool_), radius)
