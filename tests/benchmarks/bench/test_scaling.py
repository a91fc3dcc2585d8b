"""What a step takes on other numbers of devices follows from what was measured."""

from __future__ import annotations

import pytest

from kontext_trt.benchmarks.bench.scaling import Measured, Scaling, scaling_of, sent_share


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_parts_of_a_made_up_step_are_found_from_any_number_of_devices(devices: int):
    made = Scaling(divided=240.0, whole=18.0, exchange=9.0)
    silent = made.divided / devices + made.whole
    found = scaling_of(Measured(one=258.0, several=made.step(devices), silent=silent, devices=devices))
    assert (found.divided, found.whole, found.exchange) == pytest.approx((240.0, 18.0, 9.0))
    assert found.step(1) == pytest.approx(258.0)
    assert found.step(8) == pytest.approx(240 / 8 + 18 + 9 * (7 / 64) / (1 / 4))


def test_a_device_sends_its_tokens_of_the_others_heads():
    assert sent_share(2) == 1 / 2 * 1 / 2, "its half of the tokens, and the other's half of the heads"
    assert sent_share(1) == 0
    assert sent_share(4) == 3 / 16
