"""Requests to stop: noted when they come, heeded where training can be interrupted."""

import contextlib
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from continual.tracking.lock import holder
from continual.tracking.storage import replace_file

_SECONDS_BETWEEN_LOOKS = 0.5
_FILE = ".stop"


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


class StopRequests(StopSignals):
    """`StopSignals`, and a file in the sweep's folder, which this process has locked: see `request_stop`.

    A file reaches a sweep on another machine, in a notebook or in a thread, where a signal would not, or
    would end more than the sweep. It may come before the `with`, or between those of a search's batches:
    one that is meant for this process is kept until it is heeded.
    """

    def __init__(self, sweep: Path) -> None:
        super().__init__()
        self._sweep, self._file = sweep, sweep / _FILE
        self._requested = False
        self._next_look = 0.0

    def __call__(self) -> bool:
        if not self._requested and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            self._requested = self._file.exists()
        return self._requested or super().__call__()

    def __enter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError):
            if self._file.read_text(errors="replace") != holder(self._sweep):
                self._file.unlink()  # it was meant for an earlier process
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._requested:
            self._file.unlink(missing_ok=True)


def request_stop(sweep: Path, owner: str) -> None:
    """Ask the process that has locked this sweep, as `holder` names it, to stop with checkpoints written."""
    replace_file(sweep / _FILE, owner.encode())
