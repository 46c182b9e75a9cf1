"""The scripts in processes of their own, and what they leave behind."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from continual.tracking.run_folder import read_summary
from tests.sweep import slow

ROOT = Path(__file__).parents[2]
# How many times each kind of command is killed; CI has no time for many.
KILLS = int(os.environ.get("CONTINUAL_TEST_KILLS", "3"))
TINY = (
    "device=cpu",
    "wandb.mode=disabled",
    "engine.compile=false",
    "network=mlp",
    "env/dataset=npz",
    "env.num_tasks=2",
    "env.batch_size=7",
    "env.samples_per_task=40",
)


class Script:
    """A script of this repository that runs in the background, its output in a file."""

    def __init__(self, name: str, *arguments: str, folder: Path, step_seconds: float = 0.0) -> None:
        self.log = folder / f"{name}-{time.monotonic_ns()}.log"
        environment = os.environ | {"PYTHONPATH": str(ROOT), slow.SECONDS: str(step_seconds)}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    def wait(self, seconds: float = 180) -> int:
        return self.process.wait(seconds)

    def output(self) -> str:
        return self.log.read_text()

    def succeed(self) -> str:
        """Wait for its end, which has to be a good one; returns what it printed."""
        assert self.wait() == 0, self.output()
        return self.output()

    def kill_all(self) -> None:
        """Kill it and its children at once, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def sweep_arguments(npz: Path, folder: Path, *more: str, seeds: int, steps: int = 40) -> list[str]:
    """The arguments of train.py for a sweep of 2 x `seeds` runs of two structures, two tasks each."""
    return [
        "-m",
        *TINY,
        f"env.dataset.path={npz}",
        f"agent._target_={slow.TARGET}",
        f"env.steps_per_task={steps}",
        "engine.chunk_steps=5",
        "engine.checkpoint_minutes=0",
        "network.hidden_sizes=[9,9],[11,11]",
        f"seed=range({seeds})",
        f"hydra.sweep.dir={folder}",
        *more,
    ]


def tables(sweep: Path, runs: int) -> dict[str, bytes]:
    """Each run's tasks.csv, of a sweep in which all is as it should be."""
    folders = sorted(path.name for path in sweep.iterdir() if path.name.isdecimal())
    assert folders == sorted(map(str, range(runs)))
    found = {}
    for name in folders:
        summary = read_summary(sweep / name)
        assert summary is not None, name
        assert summary["status"] == "completed", summary
        assert not list((sweep / name).glob("*.tmp"))
        found[name] = (sweep / name / "tasks.csv").read_bytes()
        # The header and each task once.
        assert found[name].count(b"\n") == 1 + summary["num_tasks"]
    return found


def until(condition: Callable[[], object], seconds: float = 120, doing: str = "") -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, doing or "waited in vain"
        time.sleep(0.1)


def kill_again_and_again(
    start: Callable[[int], Script],
    sweep: Path,
    written: Callable[[], object],
    check: Callable[[], None],
    most_seconds: float,
) -> None:
    """Kill what `start(kills so far)` starts KILLS times, up to `most_seconds` after `written()` is another.

    One that comes to its end in between is looked at by `check`, and another one begun.
    """
    draw, kills = random.Random(0), 0
    while kills < KILLS:
        before = written()
        script = start(kills)
        until(lambda: written() != before or script.process.poll() is not None)  # noqa: B023
        time.sleep(draw.uniform(0, most_seconds))
        if script.process.poll() is None:
            script.kill_all()
            kills += 1
        else:
            assert script.wait() == 0, script.output()
            check()
            shutil.rmtree(sweep)


def ran(command: Sequence[str]) -> str:
    """What a command prints; it must not fail."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
