"""SIGTERM before, in and after a step."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from paddlemix.training.callbacks.interruption import Interruption


def end_step(interruption: Interruption) -> SimpleNamespace:
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    interruption.on_step_end(SimpleNamespace(world_size=1), SimpleNamespace(global_step=1, max_steps=2), control)
    return control


def test_a_step_without_a_signal_neither_saves_nor_stops() -> None:
    interruption = Interruption()
    with interruption.watching():
        control = end_step(interruption)
    assert not control.should_save and not control.should_training_stop and not interruption.has_ended_training


def test_a_signal_in_a_step_saves_and_stops_at_its_end() -> None:
    interruption = Interruption()
    with interruption.watching():
        os.kill(os.getpid(), signal.SIGTERM)
        control = end_step(interruption)
    assert control.should_save and control.should_training_stop and interruption.has_ended_training


def test_a_signal_behind_the_last_step_reaches_who_waited_for_it_before() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        interruption = Interruption()
        with interruption.watching():
            end_step(interruption)
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM] and not interruption.has_ended_training
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_earlier_handler_is_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Interruption().watching():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before
