"""A W&B sweep's agent: one population per call, whose mean is the sweep's metric."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from continual.cli.entry import exiting_with_a_sentence
from continual.errors import Stopped
from continual.tracking.wandb_agent import agents_run
from tests import tiny
from tests.tracking.wandb_server import ENTITY, WandbServer

ROOT = Path(__file__).parents[2]
IMPATIENT_WANDB = """
from wandb.cli.cli import cli
from wandb.wandb_agent import Agent
Agent.POLL_INTERVAL = 0.5  # seconds between two questions to the server
cli()
"""
TINY = {
    "env/dataset": "npz",
    "env.steps_per_task": 20,
    "env.batch_size": 7,
    "env.samples_per_task": 40,
    "network.hidden_sizes": [9],
    "engine.compile": False,
    "device": "cpu",
    "hydra.launcher.workers": 1,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def asked_by_an_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment that `wandb agent` gives its calls."""
    parameters = tmp_path / "wandb" / "sweep-s1" / "config-agents.yaml"
    parameters.parent.mkdir(parents=True)
    parameters.write_text("wandb_version: 1\n\nagent.l2_weight:\n  value: 0.5\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))


@pytest.mark.usefixtures("asked_by_an_agent")
def test_the_agents_run_has_the_mean_of_all_runs(server: WandbServer, tmp_path: Path, npz: Path) -> None:
    config = tiny.small(npz, "agent=l2_init", "env.num_tasks=3")
    config["wandb"]["mode"] = "offline"
    runs = tiny.replicas([{**config, "seed": seed} for seed in range(3)], tmp_path / "runs")
    with agents_run(runs):  # in which, anywhere, the runs are trained
        for run, accuracies in zip(runs, [(0.1, 0.2, 0.6), (0.3, 0.4, 0.8), (0.9,)], strict=True):
            run.folder.mkdir(parents=True)
            rows = "".join(
                f"{task},,{20 * (task + 1)},{accuracy}\n" for task, accuracy in enumerate(accuracies)
            )
            (run.folder / "tasks.csv").write_text("task,task_type,step,online_accuracy\n" + rows)
        summary = {"status": "diverged", "total_average_online_accuracy": None, "num_tasks": 1}
        (runs[2].folder / "summary.json").write_text(json.dumps(summary))

    (agents,) = server.runs.values()
    assert (agents.id, agents.settings["sweep"]) == ("agents", "s1")
    assert agents.config["agent.l2_weight"] == 0.5
    assert (agents.config["runs"], agents.config["env"]) == (3, "env")
    assert "seed" not in agents.config
    # A diverged run counts as 0 from its beginning.
    scores = [(row["_step"], row["performance/score"]) for row in agents.history]
    assert scores == [(0, pytest.approx(0.4 / 3)), (1, pytest.approx(0.5 / 3)), (2, pytest.approx(0.8 / 3))]
    assert agents.exit_code == 0


def test_without_an_agent_there_is_no_such_run(
    server: WandbServer, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    with agents_run(tiny.replicas([tiny.small(npz)], tmp_path)):
        pass
    assert not server.asked


def test_an_agent_whose_sweep_stops_a_call_early(server: WandbServer, tmp_path: Path, npz: Path) -> None:
    """The whole way: `wandb agent` calls the program as scripts/wandb_sweep.yaml says, and stops it again."""
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    server.sweep_config = json.dumps(sweep)
    long = {
        **TINY,
        "env.dataset.path": str(npz),
        "env.num_tasks": 100_000,
        "hydra.sweep.dir": str(tmp_path / "call"),
    }
    program = str(ROOT / sweep["program"])
    call = {"type": "run", "run_id": "call", "program": program}
    calls = [{**call, "args": {key: {"value": value} for key, value in long.items()}}]

    def lead(running: dict[str, bool]) -> list[dict[str, Any]]:
        if calls:
            return [calls.pop()]
        if not running:
            return [{"type": "exit"}]
        trains = (tmp_path / "call" / "2" / "tasks.csv").exists()
        return [{"type": "stop", "run_id": "call"}] if trains else []

    server.lead = lead
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT_WANDB, "agent", f"{ENTITY}/continual/s1"],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "stopped, with checkpoints written" in done.stdout, done.stdout + done.stderr
    own = {run.config["seed"]: run for name, run in server.runs.items() if name != "call"}
    assert sorted(own) == [0, 1, 2]
    mean = server.runs["call"].history
    assert mean
    for row in mean:
        task = row["task"]
        scores = [run.history[task]["performance/score"] for run in own.values()]
        assert row["performance/score"] == pytest.approx(sum(scores) / 3)
    assert server.runs["call"].settings["sweep"] == "s1"
    assert sweep["metric"]["name"] in mean[0]


@pytest.mark.parametrize("agent", [True, False])
def test_a_call_that_is_stopped_has_not_failed_for_its_agent(
    monkeypatch: pytest.MonkeyPatch, agent: bool
) -> None:
    if agent:
        monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    else:
        monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    with pytest.raises(SystemExit) if not agent else contextlib.nullcontext(), exiting_with_a_sentence():
        raise Stopped("stopped, with a checkpoint written")
