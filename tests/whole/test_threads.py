"""Several threads and one session: turns, refusals, and requests that are cancelled."""

import threading
import time

import numpy as np
import pytest

from kontext_trt import BusyError, Cancelled, Kontext, KontextError, Result, WhenBusy
from kontext_trt.engine.bundle.bundle import Bundle


def test_cancel_between_steps_leaves_the_session_usable(kontext: Kontext):
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="cancelled after step 2 of 5"):
        kontext.generate(
            "x", steps=5, seed=0, size=(32, 32), cancel=cancel, on_step=lambda done, of: done == 2 and cancel.set()
        )
    assert kontext.generate("x", steps=1, seed=0, size=(32, 32)).image.size == (32, 32)


def test_threads_take_turns(kontext: Kontext, monkeypatch: pytest.MonkeyPatch):
    """One at a time is inside, and each gets its own picture."""
    results: dict[int, Result] = {}
    inside: list[int] = []
    run = kontext._flow.run

    def counted(*arguments):
        inside.append(len(inside))
        time.sleep(0.05)  # another would come meanwhile
        served = run(*arguments)
        assert inside.pop() == 0
        return served

    monkeypatch.setattr(kontext._flow, "run", counted)

    def work(seed: int) -> None:
        results[seed] = kontext.generate("x", steps=2, seed=seed, size=(32, 32))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.keys() == set(range(4))
    for seed in range(4):
        alone = kontext.generate("x", steps=2, seed=seed, size=(32, 32))
        assert np.array_equal(results[seed].image, alone.image)


def test_cancelled_before_it_begins_nothing_runs(kontext: Kontext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kontext.executor, "perform", lambda *arguments: pytest.fail("something ran"))
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled, match="cancelled after step 0 of 2"):
        kontext.generate("never asked before", steps=2, seed=0, size=(32, 32), cancel=cancel)


def test_cancelled_while_another_request_runs(kontext: Kontext):
    """It does not wait for the other's end."""
    running, go_on, cancel = threading.Event(), threading.Event(), threading.Event()

    def hold(done: int, of: int) -> None:
        running.set()
        assert go_on.wait(60)

    other = threading.Thread(
        target=kontext.generate, args=("x",), kwargs={"steps": 1, "seed": 0, "size": (32, 32), "on_step": hold}
    )
    other.start()
    assert running.wait(60)
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled, match="cancelled while another request was running"):
        kontext.generate("x", steps=1, seed=0, size=(32, 32), cancel=cancel)
    assert other.is_alive()
    go_on.set()
    other.join()
    assert kontext.generate("x", steps=1, seed=0, size=(32, 32)).image.size == (32, 32)


def test_callback_into_the_same_session_is_refused(kontext: Kontext):
    with pytest.raises(KontextError, match="on_step must not call the Kontext that is serving it"):
        kontext.generate("x", steps=1, seed=0, size=(32, 32), on_step=lambda done, of: kontext.forget())
    assert kontext.generate("x", steps=1, seed=0, size=(32, 32)).size == (32, 32)


def test_second_thread_is_refused_if_asked(bundle: Bundle):
    errors: list[Exception] = []

    def intrude(done: int, of: int) -> None:
        def work() -> None:
            try:
                kontext.generate("x", steps=1, seed=0, size=(32, 32))
            except KontextError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with Kontext.open(bundle, when_busy=WhenBusy.REFUSE) as kontext:
        kontext.generate("x", steps=1, seed=0, size=(32, 32), on_step=intrude)
        assert [type(error) for error in errors] == [BusyError]
        assert "another thread's request is running" in str(errors[0])
        assert kontext.generate("x", steps=1, seed=0, size=(32, 32)).size == (32, 32)
