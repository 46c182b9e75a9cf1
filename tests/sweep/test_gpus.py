"""Populations on GPUs that are only pretended: who sees which, and how many replicas fit."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from continual import fitting
from continual.agents.agent import Agent, Batch, Context, Weights
from continual.config import Replica
from continual.errors import ConfigError
from continual.sweep import packed, workers
from continual.sweep.packed import PackedLauncher
from continual.sweep.slurm import SlurmLauncher
from continual.tree import Tree
from tests import tiny


@dataclass(frozen=True)
class Looking(Agent):
    """Plain training that notes which GPUs its process may use."""

    diary: str = "diary"

    def penalty(self, weights: Weights, state: Tree, context: Context, batch: Batch) -> Tensor | None:
        Path(self.diary).write_text(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        return None


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(fitting, "population_size", lambda run: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def runs(compose: Any, folder: Path, count: int, device: str) -> list[Replica]:
    config = {**compose(), "device": device}
    return tiny.replicas([tiny.vary(config, r % 4) for r in range(count)], folder)


def test_each_worker_sees_one_gpu(compose: Any, tmp_path: Path) -> None:
    populations = []
    for i in range(4):
        config = compose()
        config["agent"] = {"_target_": f"{__name__}.Looking", "diary": str(tmp_path / f"diary{i}")}
        populations.append(tiny.replicas([config], tmp_path / f"population{i}"))
    workers.run(populations, 3, lambda index, snapshot: None, gpus=["GPU-a", "7"])
    seen = [(tmp_path / f"diary{i}").read_text().split() for i in range(4)]
    assert {gpu for _, gpu in seen} == {"GPU-a", "7"}
    assert len(set(map(tuple, seen))) == len({process for process, _ in seen}), "a process keeps its GPU"


@pytest.mark.parametrize(
    ("device", "asked", "runs_", "visible", "gpus", "how_many"),
    [
        ("cuda", "auto", 20, None, ["0", "1", "2", "3"], 4),
        ("auto", "auto", 3, None, ["0", "1", "2", "3"], 3),
        ("auto", 6, 20, None, ["0", "1", "2", "3"], 6),
        ("cuda", "auto", 20, "2,GPU-b", ["2", "GPU-b"], 2),
        ("cuda:1", "auto", 20, None, [], 1),
        ("cuda:1", 2, 20, None, [], 2),
    ],
)
@pytest.mark.usefixtures("four_gpus")
def test_workers_are_as_many_as_gpus(
    compose: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    asked: Any,
    runs_: int,
    visible: str | None,
    gpus: list[str],
    how_many: int,
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    replicas = runs(compose, tmp_path, runs_, device)
    populations, found = PackedLauncher(workers=asked)._populations(replicas)
    assert found == how_many
    assert sum(map(len, populations)) == runs_
    assert packed.visible_gpus(device) == gpus


@pytest.mark.parametrize(
    ("gpus", "device", "engine", "says"),
    [
        (0, "cuda", {}, r"device: cuda was asked for, but hydra.launcher.gpus is 0; give each job a GPU"),
        (0, "auto", {"precision": "tf32"}, r"engine.precision: tf32 needs a GPU"),
        (1, "cpu", {"cuda_graph": True}, r"engine.cuda_graph: true needs a GPU"),
        (1, "cuda", {"cuda_graph": True, "precision": "tf32"}, None),
        (1, "auto", {"precision": "bf16"}, None),
    ],
)
def test_jobs_may_have_gpus_that_the_submitting_machine_lacks(
    compose: Any, monkeypatch: pytest.MonkeyPatch, gpus: int, device: str, engine: Any, says: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = {**compose(), "device": device}
    config["engine"] = {**config["engine"], **engine}
    launcher = SlurmLauncher(gpus=gpus)
    if says is None:
        launcher.check(config)
    else:
        with pytest.raises(ConfigError, match=says):
            launcher.check(config)
