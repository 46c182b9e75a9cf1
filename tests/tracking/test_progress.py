"""What is shown of populations that start, are resumed, fall back and finish, with a fake clock."""

import io

import pytest
from rich.console import Console

from continual.tracking.progress import Progress, Snapshot


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def snapshot(
    steps: int, accuracy: float | None = None, *, replicas: int = 4, num_steps: int = 1000
) -> Snapshot:
    """Return a snapshot of a population with ten tasks."""
    return Snapshot(
        tasks_done=steps * 10 // num_steps,
        num_tasks=10,
        steps_done=steps,
        num_steps=num_steps,
        replicas=replicas,
        measure="accuracy",
        online=accuracy,
    )


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=40)


def terminal_console(width: int = 120) -> Console:
    environment = {"TERM": "xterm-256color", "COLUMNS": str(width), "LINES": "20"}
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        force_interactive=True,
        width=width,
        _environ=environment,
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drive(
    console: Console,
    replica_steps: int,
    updates: list[tuple[float, int, Snapshot]],
    *,
    plain_interval: float = 0.0,
) -> list[str]:
    """Send (seconds after the start, population, snapshot) and return the lines written."""
    clock = Clock()
    with Progress(replica_steps, console=console, clock=clock, plain_interval=plain_interval) as progress:
        for seconds, population, one in updates:
            clock.now = 100.0 + seconds
            progress.update(population, one)
    return written(console).splitlines()


def test_plain_lines() -> None:
    lines = drive(
        plain_console(),
        4000,
        [(0, 0, snapshot(0)), (10, 0, snapshot(250, 0.5)), (40, 0, snapshot(1000, 0.75))],
    )
    assert lines == [
        "0% | tasks 0/10",
        "25% | tasks 2/10 | online accuracy 0.500 | 0:30 left | 25 steps/s | 100 replica-steps/s",
        "100% | tasks 10/10 | online accuracy 0.750 | in 0:40 | 25 steps/s | 100 replica-steps/s",
    ]


def test_plain_lines_come_at_most_every_interval_and_once_at_the_end() -> None:
    updates = [(float(second), 0, snapshot(second)) for second in range(26)]
    lines = drive(plain_console(), 4000, updates, plain_interval=10)
    # At 0, 10 and 20 seconds, and the last state at the end.
    assert [line.split(" | ")[0] for line in lines] == ["0%", "1%", "2%", "2%"]
    assert len(lines) == 4


def test_the_end_repeats_no_line_that_was_shown() -> None:
    assert len(drive(plain_console(), 4000, [(0, 0, snapshot(1000))])) == 1


def test_without_any_update_nothing_is_printed() -> None:
    assert drive(plain_console(), 4000, []) == []


def test_rates_leave_out_the_steps_before_a_resume() -> None:
    lines = drive(plain_console(), 4000, [(0, 0, snapshot(900)), (5, 0, snapshot(950))])
    assert lines[0] == "90% | tasks 9/10"
    assert lines[1].startswith("95% | tasks 9/10 | 0:05 left | 10 steps/s | 40 replica-steps/s")


def test_populations_are_added_up_and_accuracy_is_weighted_by_replicas() -> None:
    lines = drive(
        plain_console(),
        10_000,  # populations of 4, 1 and 5 replicas, of which the last has not begun
        [
            (0, 0, snapshot(0, replicas=4)),
            (0, 1, snapshot(500, 0.1, replicas=1)),  # resumed
            (10, 0, snapshot(100, 0.6, replicas=4)),
            (10, 1, snapshot(600, 0.1, replicas=1)),
        ],
    )
    assert lines[2:] == [
        "9% | tasks 6/20 | online accuracy 0.500 | 3:48 left | 10 steps/s | 40 replica-steps/s",
        "10% | tasks 7/20 | online accuracy 0.500 | 3:00 left | 20 steps/s | 50 replica-steps/s",
    ]


def test_a_finished_population_still_counts_while_the_next_one_runs() -> None:
    lines = drive(
        plain_console(),
        8000,
        [
            (0, 0, snapshot(0)),
            (10, 0, snapshot(1000, 0.4)),
            (10, 1, snapshot(0)),
            (20, 1, snapshot(500, 0.6)),
        ],
    )
    assert lines[-1] == (
        "75% | tasks 15/20 | online accuracy 0.500 | 0:07 left | 75 steps/s | 300 replica-steps/s"
    )


def test_a_population_may_fall_back_to_its_checkpoint() -> None:
    lines = drive(
        plain_console(),
        4000,
        [(0, 0, snapshot(0)), (10, 0, snapshot(500)), (10, 0, snapshot(200)), (20, 0, snapshot(300))],
    )
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        ["20%", "tasks 2/10", "0:16 left"],  # 50 steps/s so far, 800 to do
        ["30%", "tasks 3/10", "0:23 left"],  # 600 steps in 20 s, 700 to do
    ]


def test_rates_are_those_of_the_last_half_minute() -> None:
    # The first ten steps take 20 s, as with a compilation.
    slow_start = [(0.0, 0, snapshot(0)), (20.0, 0, snapshot(10))]
    steady = [(20.0 + second, 0, snapshot(10 + 10 * second)) for second in range(1, 41)]
    lines = drive(plain_console(), 4000, slow_start + steady)
    assert lines[1].endswith("| 0.5 steps/s | 2.0 replica-steps/s")
    assert lines[-1].endswith("| 10 steps/s | 40 replica-steps/s")


def test_one_replica_has_no_separate_rate() -> None:
    lines = drive(
        plain_console(),
        1000,
        [(0, 0, snapshot(0, replicas=1)), (100, 0, snapshot(1, replicas=1))],
    )
    assert lines[-1] == "0% | tasks 0/10 | 27:45:00 left | 0.0 steps/s"


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_bar_that_is_redrawn_in_place(width: int) -> None:
    console = terminal_console(width)
    clock = Clock()
    with Progress(400_000, console=console, clock=clock, interval=1.0) as progress:
        for tenth in range(31):
            clock.now = 100.0 + tenth / 10
            progress.update(0, snapshot(tenth * 1000, 0.4567, num_steps=100_000))
        progress.update(0, snapshot(100_000, 0.5, num_steps=100_000))
        assert "in 0:03" not in written(console)
    output = written(console)
    drawn = [text for text in output.split("\x1b[2K") if "tasks" in text]
    # At 0, 1, 2 and 3 seconds, at the end, and once more as rich leaves the bar.
    assert len(drawn) == 6
    last = " ".join(drawn[-1].replace("\x1b", " \x1b").split())
    assert "━" in last
    for part in ("100%", "tasks 10/10", "0.500", "in 0:03", "steps/s", "replica-steps/s"):
        assert part in last
    assert "…" not in output
    assert output.endswith("\x1b[?25h")


def test_the_last_state_is_shown_when_the_run_fails() -> None:
    console = plain_console()
    clock = Clock()

    def run() -> None:
        with Progress(4000, console=console, clock=clock) as progress:
            progress.update(0, snapshot(0))
            clock.now += 2
            progress.update(0, snapshot(100))
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        run()
    assert written(console).splitlines()[-1].startswith("10% | tasks 1/10")


def test_the_default_console_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4000, clock=Clock()) as progress:
        progress.update(0, snapshot(0))
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == "0% | tasks 0/10\n"


def test_a_sweep_is_counted_as_a_whole_from_the_start() -> None:
    """Two populations of 4 and 2 runs, of which the second is resumed, and 3 runs that had ended before."""
    console, clock = plain_console(), Clock()
    whole = Progress(6000, runs=9, finished=3, console=console, clock=clock, plain_interval=0.0)
    with whole as progress:
        progress.expect(0, snapshot(0, replicas=4))
        progress.expect(1, snapshot(500, replicas=2))
        assert progress.seconds_left is None
        progress.update(0, snapshot(0, replicas=4))
        clock.now += 1
        progress.update(0, snapshot(100, replicas=4))
        assert progress.seconds_left is None, "too early to say"
        clock.now += 9
        progress.update(0, snapshot(1000, replicas=4))
        assert progress.seconds_left == pytest.approx(1000 / 400)
        progress.update(1, snapshot(500, replicas=2))
        clock.now += 10
        progress.update(1, snapshot(1000, replicas=2))
        assert progress.seconds_left == 0
    assert [line.split(" | ")[:3] for line in written(console).splitlines()] == [
        ["44%", "runs 3/9", "tasks 40/90"],
        ["48%", "runs 3/9", "tasks 44/90"],
        ["88%", "runs 7/9", "tasks 80/90"],
        ["88%", "runs 7/9", "tasks 80/90"],
        ["100%", "runs 9/9", "tasks 90/90"],
    ]


class Gone(io.StringIO):
    """A terminal, a pager or a disk that goes away after the first line."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.tries = error, 0

    def write(self, text: str) -> int:
        self.tries += 1
        if self.tries > 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error"),
        ValueError("I/O operation on closed file"),
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
def test_what_cannot_be_written_ends_nothing(
    error: Exception, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rich lets a broken pipe's descriptor point to /dev/null before it ends the process.
    monkeypatch.setattr("os.dup2", lambda *descriptors: None)
    file = Gone(error)
    console = terminal_console() if terminal else Console(file=file, width=40)
    console.file = file
    clock = Clock()
    with Progress(4000, console=console, clock=clock, interval=0.0, plain_interval=0.0) as progress:
        for step in range(0, 1000, 100):
            clock.now += 1
            progress.update(0, snapshot(step))
    assert file.tries >= 2
    assert progress.seconds_left is not None
