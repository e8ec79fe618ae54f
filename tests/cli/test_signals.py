"""Signal handlers of a command."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sdk.cli.signals import SignalHandlers
from tests.support.loops import PATIENCE_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_until_signals_are_ignored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with SignalHandlers() as signals:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        signals.ignore()
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_signal_in_a_destructor_interrupts_what_follows() -> None:
    class Receives:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def run() -> None:
        Receives()  # Python drops the exception
        threading.Event().wait(PATIENCE_S)

    with SignalHandlers(), pytest.raises(KeyboardInterrupt):
        run()


def test_a_signal_while_logging_has_its_lock_interrupts_what_follows() -> None:
    frame: Any = SimpleNamespace(f_globals=vars(logging))
    with SignalHandlers() as signals:
        signals._handle(signal.SIGTERM, frame)
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(PATIENCE_S)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalHandlers():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_a_library_is_replaced() -> None:
    with SignalHandlers() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts
        signals.install()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
