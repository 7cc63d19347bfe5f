"""Signals to stop during training: recorded, so that the loop can save before it exits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

from utils.cli import STOP_SIGNALS


class DeferredSignals:
    """Record STOP_SIGNALS and SIGINT instead of ending the program; a second Ctrl-C raises KeyboardInterrupt.

    A signal that arrives after the last check is re-raised for the previous handler. Does nothing outside the
    main thread, where Python allows no signal handlers.
    """

    def __init__(self) -> None:
        self.interrupt_now = False  # whether a signal interrupts the running code by InterruptedError
        self.has_interrupted = False  # whether one did; an extension module makes ImportError of that error
        self._received: set[int] = set()
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def terminate(self) -> bool:
        """Whether one of STOP_SIGNALS was received."""
        return not self._received.isdisjoint(STOP_SIGNALS)

    @property
    def interrupt(self) -> bool:
        """Whether SIGINT, which Ctrl-C sends, was received."""
        return signal.SIGINT in self._received

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {
                number: signal.signal(number, self._record) for number in (*STOP_SIGNALS, signal.SIGINT)
            }
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is None:
            for number in self._received:
                signal.raise_signal(number)

    def _record(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.interrupt:
            raise KeyboardInterrupt
        self._received.add(number)
        if self.interrupt_now:
            self.has_interrupted = True
            raise InterruptedError
