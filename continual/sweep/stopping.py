"""Signals that ask a process to stop: noted when they come, heeded where training can be interrupted."""

import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """Within a `with`, `came` says which of these signals has come first, or None.

    As a callable it is the `should_stop` of training. A second Ctrl-C interrupts at once, as usual.
    Handlers can only be set in the main thread: elsewhere nothing is caught.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self.came: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.came is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._note) for one in self._signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def handler_before(self, one: signal.Signals) -> Any:
        """What handled this signal outside the `with`."""
        return self._before[one]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = self.came or signal.Signals(number)
