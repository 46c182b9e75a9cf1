"""The workspace draws what runs really log, and a server takes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from continual.tracking import wandb_dashboard
from continual.tracking.wandb_dashboard import main
from tests.tracking.test_wandb_arrives import server, trained
from tests.tracking.wandb_server import ENTITY, WandbServer

__all__ = ["server"]

# What wandb-workspaces uses itself.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


def test_a_workspace_of_what_the_runs_log(
    server: WandbServer, tmp_path: Path, npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, npz, "online", "disabled")
    logged = {key for run in server.runs.values() for row in run.history for key in row if "/" in key}

    assert main([str(tmp_path), "--name", "mine"]) == 0
    assert f"{ENTITY}/continual" in capsys.readouterr().out
    (saved,) = server.saved
    assert (saved["entityName"], saved["projectName"], saved["displayName"]) == (ENTITY, "continual", "mine")
    spec = json.loads(saved["spec"])
    sections: list[dict[str, Any]] = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == ["performance", "plasticity", "plasticity_by_layer"]
    assert [section["isOpen"] for section in sections] == [True, True, False]
    charts = [panel["config"] for section in sections for panel in section["panels"]]
    assert charts[0]["metrics"] == ["performance/score"]
    drawn = [metric for chart in charts for metric in chart["metrics"]]
    assert sorted(drawn) == sorted(logged)
    for chart in charts:
        assert (chart["xAxis"], chart["groupBy"], chart["groupAgg"]) == ("task", "agent.value", "mean")
        assert chart["groupArea"] == "stderr"
    (runs,) = spec["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "agent.value"}]
    (color,) = spec["section"]["customRunColors"].items()
    assert "l2_init" in color[0]
    columns = {
        name.partition(":")[2] for name in runs["runFeed"]["columnOrder"] if name.startswith("config:")
    }
    assert columns <= next(iter(server.runs.values())).config.keys() | {"env"}


def test_mistakes_are_one_sentence(
    server: WandbServer,
    tmp_path: Path,
    npz: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([str(tmp_path)]) == 1
    assert "error: there is no run with a finished task" in capsys.readouterr().err

    def no_library(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'wandb_workspaces'")

    trained(tmp_path, npz, "disabled")
    monkeypatch.setattr(wandb_dashboard, "workspace", no_library)
    assert main([str(tmp_path), "--entity", "team"]) == 1
    assert "error: a dashboard needs wandb-workspaces" in capsys.readouterr().err
