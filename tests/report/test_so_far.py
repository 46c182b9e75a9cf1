"""Groups that are still training: what of them counts, and what they are never compared with."""

import pytest

from continual.report.content import build
from continual.report.runs import load
from continual.report.so_far import so_far

from .conftest import CONFIG, L2_INIT, Write

L2 = {"nodes": {"agent": L2_INIT}, "options": {"agent": "l2_init"}}
NINE = {"env": {**CONFIG["env"], "num_tasks": 9}}


def test_a_group_counts_as_far_as_all_its_runs_are(write_run: Write, tmp_path) -> None:
    for seed in range(2):
        write_run(f"done{seed}", seed, (0.1, 0.2, 0.3))
    write_run("far", 0, (0.4, 0.6, 0.9), status=None, **L2)
    write_run("near", 1, (0.5, 0.8), status=None, **L2)
    write_run("begun", 2, (), status=None, **L2)
    runs = so_far(load(tmp_path))
    by_seed = runs.tasks[runs.tasks["agent"] == "l2_init"].groupby("seed")["online_accuracy"].apply(list)
    assert by_seed.to_dict() == {0: [0.4, 0.6], 1: [0.5, 0.8]}
    table = runs.runs[runs.runs["agent"] == "l2_init"].set_index("seed")
    assert table["status"].to_dict() == {0: "completed", 1: "completed", 2: "unfinished"}
    assert table.loc[[0, 1], "score"].tolist() == pytest.approx([0.5, 0.65])
    assert any(note.startswith("1 group still training") for note in runs.notes)

    report = build(runs)
    assert report.explorer is not None
    assert len(report.explorer.lines) == 2
    assert "Comparisons" not in [section.title for section in report.sections]  # 2 tasks against 3


def test_groups_with_a_completed_run_are_left_as_they_are(write_run: Write, tmp_path) -> None:
    write_run("0", 0)
    write_run("1", 1, (0.9,), status=None)
    runs = load(tmp_path)
    assert so_far(runs) is runs


def test_a_score_that_is_an_error_is_found_before_there_is_a_summary(write_run: Write, tmp_path) -> None:
    folder = write_run("0", 0, (0.4, 0.2), status=None, nodes=NINE)
    path = folder / "tasks.csv"
    path.write_text(path.read_text().replace("online_accuracy", "online_squared_error"))
    runs = so_far(load(tmp_path))
    assert (runs.scores[0].name, runs.scores[0].higher_is_better) == ("online_squared_error", False)
    assert runs.runs["score"].tolist() == pytest.approx([0.3])


def test_hard_tasks_alone_are_the_score(write_run: Write, tmp_path) -> None:
    write_run("0", 0, (0.4, 0.9, 0.6), status=None, task_types=("hard", "easy", "hard"), nodes=NINE)
    assert so_far(load(tmp_path)).runs["score"].tolist() == pytest.approx([0.5])
