"""Interrupts that wait: the first is kept back, the second acts, and everything is as it was afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from jose_embed.training.keeper import Interrupts


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_waits_and_the_second_acts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        press()
        assert interrupts.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is before


def test_one_that_nobody_asked_for_acts_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        press()


def test_an_error_of_the_work_comes_before_an_interrupt() -> None:
    def work() -> None:
        with Interrupts():
            press()
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        work()


def test_nothing_happens_without_a_signal() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.let_through()
        assert interrupts.number is None
    assert signal.getsignal(signal.SIGINT) is before


def test_one_after_a_moment_at_which_none_waited_is_kept_back_too() -> None:
    with Interrupts() as interrupts:
        interrupts.let_through()
        press()
        assert interrupts.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            interrupts.let_through()


def test_signals_that_end_the_process_without_a_word_still_do() -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_another_thread_has_no_say() -> None:
    seen = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.append((interrupts.number, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, signal.getsignal(signal.SIGINT))]
