"""A W&B sweep's agent: one population per call, whose mean is the sweep's metric."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from continual.tracking.wandb_agent import agents_run
from continual.tracking.wandb_run import WandbRun
from tests import tiny
from tests.tracking.wandb_server import WandbServer


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
    mode = {"wandb": {**config["wandb"], "mode": "online"}}
    configs = [{**config, **mode, "seed": seed} for seed in range(2)]
    runs = tiny.replicas(configs, tmp_path / "runs")
    with agents_run(runs):
        finished = tiny.train(configs, tmp_path / "runs")

    assert set(server.runs) == {"agents", *(WandbRun.of(run).id for run in runs)}
    agents = server.runs["agents"]
    assert agents.settings["sweep"] == "s1"
    assert agents.config["agent.l2_weight"] == 0.5
    assert agents.config["runs"] == 2
    assert agents.config["env"] == "env"
    totals = [run.summary["total_average_online_accuracy"] for run in finished]
    assert [row["_step"] for row in agents.history] == [0, 1, 2]
    assert agents.history[-1]["performance/score"] == pytest.approx(sum(totals) / 2)
    assert agents.exit_code == 0
    for run in runs:
        assert "sweep" not in server.runs[str(WandbRun.of(run).id)].settings


def test_without_an_agent_there_is_no_such_run(
    server: WandbServer, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    with agents_run(tiny.replicas([tiny.small(npz)], tmp_path)):
        pass
    assert not server.asked
