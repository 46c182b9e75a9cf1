"""How far a sweep has come: a bar on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

# A rate over less time says nothing of how long the rest takes.
_SECONDS_TO_A_RATE = 3


@dataclass(frozen=True)
class Snapshot:
    """Where one population is; the counts include what was done before a resume."""

    tasks_done: int
    num_tasks: int
    steps_done: int  # of each replica
    num_steps: int  # of each replica
    replicas: int
    measure: str  # what is measured, such as accuracy
    online: float | None  # the task's so far, the mean over the replicas; None: nothing measured yet


class Progress:
    """Shows how far populations are that run in turn or at the same time.

    On a terminal it is a bar, redrawn at most every `interval` seconds; elsewhere a line is printed
    at most every `plain_interval` seconds. The last state is shown in any case. All of it goes to
    `console`, by default stderr.

    `replica_steps` is the sum of steps times replicas over all populations, whether they are done,
    running or still to come. A sweep says with `runs` how many it has, with `finished` how many of them had
    ended before, and with `expect` where the others stand: then all of it is counted from the start. Rates
    are those of the last `rate_period` seconds, and leave out what a population had done before its first
    snapshot, when it was resumed; how much time is left is not said before there is a rate.

    To show progress is a luxury: once it cannot be written, because the terminal, a pager or the disk is
    gone, nothing is shown any more and training goes on.
    """

    def __init__(
        self,
        replica_steps: int,
        *,
        runs: int | None = None,
        finished: int = 0,
        console: Console | None = None,
        interval: float = 1.0,
        plain_interval: float = 10.0,
        rate_period: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._finished = runs, finished
        # What had ended before counts as runs of the average length of the others.
        to_train = max(1, (runs or 1) - finished)
        self._steps_before = finished * replica_steps // to_train
        self._replica_steps = replica_steps + self._steps_before
        # In a notebook rich would need widgets for a bar: there are plain lines.
        self._console = Console(stderr=True, force_jupyter=False) if console is None else console
        self._rate_period = rate_period
        self._clock = clock
        self._latest: dict[int, Snapshot] = {}
        self._begun: set[int] = set()
        self._is_quiet = False
        self._seen = _Done(0.0, 0, 0)
        self._recent: deque[_Done] = deque()
        self._began: float | None = None
        self._shown_at: float | None = None
        self._is_shown = True  # whether the latest state is
        self._bar: Bar | None = None
        self._interval = plain_interval
        if self._console.is_interactive:
            self._interval = interval
            # update() redraws it, so that no thread of its own takes time from the training.
            self._bar = Bar(
                BarColumn(bar_width=12),
                TextColumn("{task.description}", table_column=Column(no_wrap=False)),
                console=self._console,
                auto_refresh=False,
            )
            self._bar_task = self._bar.add_task("starting", total=max(1, self._replica_steps))

    def __enter__(self) -> Self:
        if self._bar is not None:
            with self._unless_it_cannot_be_written():
                self._bar.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_shown:
            self._show(self._clock())
        if self._bar is not None:
            with self._unless_it_cannot_be_written():
                self._bar.stop()

    def expect(self, population: int, snapshot: Snapshot) -> None:
        """Take in where a population stands that is yet to begin, or to resume."""
        self._latest[population] = snapshot

    def update(self, population: int, snapshot: Snapshot) -> None:
        """Take in where a population is; its first snapshot tells what was done before.

        `population` is any number that tells the populations apart. One may fall back, as after a
        retry from a checkpoint.
        """
        now = self._clock()
        if self._began is None:
            self._began = now
        steps = 0
        if population in self._begun:
            steps = max(0, snapshot.steps_done - self._latest[population].steps_done)
        self._begun.add(population)
        self._latest[population] = snapshot
        self._seen = _Done(
            now, self._seen.steps + steps, self._seen.replica_steps + steps * snapshot.replicas
        )
        self._recent.append(self._seen)
        while len(self._recent) > 2 and self._recent[1].at <= now - self._rate_period:
            self._recent.popleft()
        self._is_shown = False
        if self._shown_at is None or now - self._shown_at >= self._interval:
            self._show(now)

    @property
    def seconds_left(self) -> float | None:
        """How long what is left takes at the present rate, or None before there is one."""
        if not self._recent:
            return None
        seconds, _, replica_steps = self._recent_rates()
        left = self._replica_steps - self._done()
        if left <= 0:
            return 0.0
        if seconds < _SECONDS_TO_A_RATE or replica_steps <= 0:
            return None
        return left * seconds / replica_steps

    @contextlib.contextmanager
    def _unless_it_cannot_be_written(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, SystemExit):  # rich ends the process where a pipe's reader is gone
            self._is_quiet = True

    def _show(self, now: float) -> None:
        self._shown_at = now
        self._is_shown = True
        if self._is_quiet:
            return
        done = self._done()
        text = self._text(now, done)
        with self._unless_it_cannot_be_written():
            if self._bar is None:
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)
            else:
                self._bar.update(self._bar_task, completed=done, description=text, refresh=True)

    def _done(self) -> int:
        """The steps times replicas that are done, in this process or before."""
        return self._steps_before + sum(one.steps_done * one.replicas for one in self._latest.values())

    def _recent_rates(self) -> tuple[float, int, int]:
        """The seconds of the last while, and the steps and the steps times replicas done in them."""
        first, last = self._recent[0], self._recent[-1]
        return last.at - first.at, last.steps - first.steps, last.replica_steps - first.replica_steps

    def _counts(self) -> list[str]:
        """What is done of what there is: tasks of one population or, in a sweep, runs and their tasks."""
        latest = self._latest.values()
        if self._runs is None:
            tasks_done = sum(one.tasks_done for one in latest)
            return [f"tasks {tasks_done}/{sum(one.num_tasks for one in latest)}"]
        ended = sum(one.replicas for one in latest if one.tasks_done >= one.num_tasks)
        tasks = sum(one.num_tasks * one.replicas for one in latest)
        before = self._finished * tasks // max(1, self._runs - self._finished)
        tasks_done = before + sum(one.tasks_done * one.replicas for one in latest)
        return [f"runs {self._finished + ended}/{self._runs}", f"tasks {tasks_done}/{before + tasks}"]

    def _text(self, now: float, done: int) -> str:
        latest = self._latest.values()
        percent = 100 * done // max(1, self._replica_steps)
        parts = [f"{percent}%", *self._counts()]

        for measure in dict.fromkeys(one.measure for one in latest):
            online = self._online(measure)
            if online is not None:
                parts.append(f"online {measure.replace('_', ' ')} {online:.3f}")

        seconds, steps, replica_steps = self._recent_rates()
        left = self.seconds_left
        if done >= self._replica_steps:
            parts.append(f"in {_duration(now - (self._began or now))}")
        elif left is not None:
            parts.append(f"{_duration(left)} left")

        if seconds > 0:
            parts.append(f"{_rate(steps / seconds)} steps/s")
            if any(one.replicas > 1 for one in latest):
                parts.append(f"{_rate(replica_steps / seconds)} replica-steps/s")
        return " | ".join(parts)

    def _online(self, measure: str) -> float | None:
        measured = [
            (one.online, one.replicas)
            for one in self._latest.values()
            if one.measure == measure and one.online is not None
        ]
        if not measured:
            return None
        return sum(mean * n for mean, n in measured) / sum(n for _, n in measured)


@dataclass(frozen=True)
class _Done:
    """What all populations together had done by a time, from their first snapshots on."""

    at: float
    steps: int
    replica_steps: int


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def _duration(seconds: float) -> str:
    """Return `1:05` (minutes, seconds) or, from one hour on, `2:03:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
