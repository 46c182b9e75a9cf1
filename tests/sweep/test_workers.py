"""Worker processes share the memory of their datasets."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from continual import building
from continual.agents.agent import Agent, Batch, Context, Weights
from continual.pausing import Interrupted
from continual.sweep import workers
from continual.tree import Tree
from tests import tiny

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no such memory")


@dataclass(frozen=True)
class Looking(Agent):
    """Plain training that notes what datasets its process maps; with `dies`, the first process dies."""

    diary: str = "diary"
    dies: bool = False

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor | None:
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped = {line.split()[4] for line in maps if "memfd:continual-dataset" in line}
        first = not Path(self.diary).exists()
        Path(self.diary).write_text(f"{os.getpid()} {' '.join(mapped)}")
        if self.dies and first:
            os.kill(os.getpid(), signal.SIGKILL)
        return None


def test_workers_map_one_copy_and_so_does_the_one_that_follows_a_dead_one(
    compose: Any, tmp_path: Path
) -> None:
    populations = []
    for i in range(3):
        config = compose("env.num_tasks=1", "env.steps_per_task=3")
        diary = str(tmp_path / f"diary{i}")
        config["agent"] = {"_target_": f"{__name__}.Looking", "diary": diary, "dies": i == 0}
        populations.append(tiny.replicas([config], tmp_path / f"population{i}"))
    held = _shared_memory()  # what an environment that is kept from an earlier test maps
    results = workers.run(populations, 2, lambda index, snapshot: None)
    assert [result for result in results if isinstance(result, workers.Failure)] == []
    seen = [(tmp_path / f"diary{i}").read_text().split() for i in range(3)]
    assert len({process for process, *_ in seen}) > 1
    assert len({inode for _, *inodes in seen for inode in inodes}) == 1
    assert all(len(inodes) == 1 for _, *inodes in seen)
    building._SHARED.clear()  # what this process maps itself
    assert _shared_memory() <= held, "closed in the end"


def test_one_worker_shares_nothing(compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def share_dataset(config: object) -> None:
        raise AssertionError("the dataset is shared")

    monkeypatch.setattr(building, "share_dataset", share_dataset)
    population = tiny.replicas([compose("env.num_tasks=1", "env.steps_per_task=3")], tmp_path)
    (outcomes,) = workers.run([population], 1, lambda index, snapshot: None)
    assert not isinstance(outcomes, workers.Failure)


def test_it_is_said_if_a_worker_was_killed_before_its_checkpoints(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_SECONDS_TO_END", 0.01)
    population = tiny.replicas([compose()], tmp_path)
    with pytest.raises(Interrupted):
        workers.run([population], 1, lambda index, snapshot: None, should_stop=lambda: True)
    assert "1 of the processes were killed before their checkpoints were written." in caplog.text


def _shared_memory() -> set[int]:
    """The inodes of the shared memory that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "memfd" in os.readlink(f"/proc/self/fd/{name}"):
                found.add(os.stat(f"/proc/self/fd/{name}").st_ino)
    return found
