"""What the exchange takes on other numbers of devices follows from what each sends."""

from __future__ import annotations

import pytest

from kontext_trt.benchmarks.bench.scaling import exchange_on, predicted_ms, sent_share


def test_the_exchange_takes_as_long_as_there_is_to_send():
    assert exchange_on(2, 9.0, 2) == 9.0
    assert exchange_on(8, 9.0, 2) == pytest.approx(9 * (7 / 64) / (1 / 4))
    assert exchange_on(2, exchange_on(8, 9.0, 2), 8) == pytest.approx(9.0)


def test_the_exchange_is_added_to_every_step_of_a_part():
    assert predicted_ms({"step": 48.0, "total": 1400.0}, 7.5, 28) == {"step": 55.5, "total": 1610.0}


def test_a_device_sends_its_tokens_of_the_others_heads():
    assert sent_share(2) == 1 / 2 * 1 / 2, "its half of the tokens, and the other's half of the heads"
    assert sent_share(1) == 0
    assert sent_share(4) == 3 / 16
