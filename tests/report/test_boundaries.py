"""Methods that know task boundaries are marked, and no stranger's class is looked up for it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from continual import schema
from continual.config import config_folder
from continual.report.boundaries import MARK, NOTE, knows_boundaries
from continual.report.cli import write_report
from continual.report.configs import RunConfig, flatten

from .conftest import Write

BASE = {"_target_": "continual.agents.base.Base"}
HEAD_RESET = {"_target_": "continual.agents.head_reset.HeadReset"}
L2 = {"_target_": "continual.agents.l2.L2", "l2_weight": 0.01}
PERTURB = {"_target_": "continual.agents.shrink_and_perturb.ShrinkAndPerturb"}


def knows(agent: Any) -> bool:
    return knows_boundaries(RunConfig(flatten({"agent": agent}), 0, {}))


@pytest.mark.parametrize(
    ("agent", "does"),
    [
        (BASE, False),
        (HEAD_RESET, True),
        (PERTURB, False),
        ({**PERTURB, "every": "task"}, True),
        ({**L2, "plus": None}, False),
        ({**L2, "plus": HEAD_RESET}, True),
        ({**HEAD_RESET, "plus": L2}, True),
        ({**L2, "plus": {**L2, "plus": {**PERTURB, "every": "task"}}}, True),
        ({**HEAD_RESET, "of_a_later_version": 1}, False),
        ({**PERTURB, "every": {"task": "task"}}, False),
        ("agent", False),
        ({"_target_": "continual.agents.none.Such"}, False),
        ({"_target_": ["continual.agents.base.Base"]}, False),
    ],
)
def test_who_knows(agent: Any, does: bool) -> None:
    assert knows(agent) == does


@pytest.mark.parametrize(
    "path", sorted((config_folder() / "agent").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_option_as_its_agent_says(path: Path) -> None:
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    node = node.get("agent", node)
    if "_target_" not in node or any("${" in str(value) for value in node.values()):
        pytest.skip("made of other options")
    agent = schema.make({name: value for name, value in node.items() if name != "defaults"}, "agent")
    assert knows(node) == (agent.sees_task_starts or agent.sees_task_ends)


def test_no_strangers_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_stranger.py").write_text("class Mine:\n    sees_task_starts = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not knows({"_target_": "of_a_stranger.Mine"})
    assert "of_a_stranger" not in sys.modules
    # Of this program's own, none but agents are called.
    called: list[str] = []
    monkeypatch.setattr("continual.api.load", lambda **_: called.append("load"))
    assert not knows({"_target_": "continual.api.load", "folder": str(tmp_path)})
    assert called == []


def test_the_report_marks_them_and_says_what_the_mark_means(write_run: Write, tmp_path: Path) -> None:
    for seed in range(2):
        write_run(f"sweep/{seed}", seed)
        write_run(f"sweep/{2 + seed}", seed, nodes={"agent": HEAD_RESET}, options={"agent": "head_reset"})
    write_report([tmp_path / "sweep"], tmp_path / "report", latex=True)
    written = (tmp_path / "report" / "report.md").read_text()
    marked = [
        line.split("|")[1].strip() for line in written.splitlines() if line.startswith("|") and MARK in line
    ]
    assert len(marked) == 1
    assert "eset" in marked[0]
    assert written.count(NOTE) == 1
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count(f'<span class="label">{marked[0]}</span>') == 1
    assert NOTE in page
    assert r"\textdagger{}" in (tmp_path / "report" / "report.tex").read_text()
    assert MARK not in (tmp_path / "report" / "report.csv").read_text()


def test_where_none_knows_there_is_no_mark(write_run: Write, tmp_path: Path) -> None:
    write_run("sweep/0")
    write_report([tmp_path / "sweep"], tmp_path / "report")
    assert MARK not in (tmp_path / "report" / "report.md").read_text()
