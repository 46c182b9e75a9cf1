import json
import shutil

import pytest

from continual.errors import DataError
from continual.report.runs import load_runs

from .conftest import L2_INIT


def test_runs_are_found_at_any_depth_and_once(write_run, tmp_path):
    write_run("a/0", seed=0)
    write_run("a/deep/er/1", seed=1)
    write_run("b/2", seed=2)
    (tmp_path / "a" / "empty").mkdir()
    folders = [tmp_path / "a", tmp_path / "b" / ".." / "a" / "deep", tmp_path / "b" / "2"]
    runs = load_runs(folders)
    assert sorted(runs.runs["seed"]) == [0, 1, 2]
    assert runs.runs["group"].tolist() == [0, 0, 0]
    assert len(runs.tasks) == 9
    assert runs.notes == []


def test_tables(write_run, tmp_path):
    write_run("0", seed=0, accuracies=(0.25, 0.75))
    write_run("1", seed=7, accuracies=(0.5, 1.0), nodes={"agent": L2_INIT}, options={"agent": "x"})
    runs = load_runs([str(tmp_path)])
    assert runs.groups["agent"].tolist() == ["base", "x"]
    assert runs.groups["agent.l2_weight"].tolist() == ["-", 0.01]
    row = runs.runs[runs.runs["seed"] == 7].iloc[0]
    assert row["folder"] == str(tmp_path / "1")
    assert (row["group"], row["status"], row["total_average_online_accuracy"]) == (
        1,
        "completed",
        0.75,
    )
    tasks = runs.tasks[runs.tasks["group"] == 1]
    assert tasks["task"].tolist() == [0, 1]
    assert tasks["online_accuracy"].tolist() == [0.5, 1.0]
    assert tasks["task_type"].tolist() == ["", ""]


def test_only_completed_runs_have_a_total(write_run, tmp_path):
    for seed, status in enumerate(["completed", "diverged", "failed", None]):
        write_run(str(seed), seed=seed, status=status)
    (tmp_path / "2" / "tasks.csv").unlink()  # failed before its first task was done
    table = load_runs([tmp_path]).runs.set_index("seed").sort_index()
    assert table["status"].tolist() == ["completed", "diverged", "failed", "unfinished"]
    assert table["total_average_online_accuracy"].notna().tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("ages", "statuses", "kept"),
    [
        ((30, 10, 20), ("completed",) * 3, 1),
        ((20, 10), ("completed", "diverged"), 1),
        ((20, 10), ("completed", None), 0),
        ((20, 10), ("completed", "failed"), 0),
        ((20, 10), ("failed", None), 1),
    ],
)
def test_of_repetitions_one_counts(write_run, tmp_path, ages, statuses, kept):
    for place, (age, status) in enumerate(zip(ages, statuses, strict=True)):
        write_run(str(place), seed=5, age=age, status=status)
    write_run("other", seed=6)
    runs = load_runs([tmp_path])
    assert sorted(runs.runs["folder"]) == [str(tmp_path / str(kept)), str(tmp_path / "other")]
    (note,) = runs.notes
    assert f"{len(ages) - 1} repetition" in note
    assert str(tmp_path) in note
    assert set(runs.tasks["run"]) == {0, 1}


def test_folders_without_a_finished_task_are_mentioned(write_run, tmp_path):
    write_run("0")
    (write_run("1", seed=1, status=None) / "tasks.csv").unlink()
    runs = load_runs([tmp_path])
    assert len(runs.runs) == 1
    assert runs.notes == [f"Left out: 1 folder with a config but no finished task, such as {tmp_path / '1'}."]


def test_what_lies_in_wandb_is_not_a_run(write_run, tmp_path):
    run = write_run("0")
    shutil.copytree(run, run / "wandb" / "files")
    assert len(load_runs([tmp_path]).runs) == 1
    assert load_runs([tmp_path]).notes == []


def test_unfinished_rows_of_a_running_run_are_no_error(write_run, tmp_path):
    write_run("0")
    path = write_run("1", seed=1, status=None) / "tasks.csv"
    path.write_text(path.read_text() + "3,,400")
    write_run("2", seed=2, status=None).joinpath("tasks.csv").write_text("")
    runs = load_runs([tmp_path]).runs.set_index("seed")
    assert runs["status"].to_dict() == {0: "completed", 1: "unfinished", 2: "unfinished"}


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        load_runs([tmp_path, tmp_path / "absent"])


def test_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no run below .*tasks\.csv and \.hydra/config\.yaml"):
        load_runs([tmp_path])


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"status": "fine"}),
        json.dumps({"status": "completed", "total_average_online_accuracy": None}),
        '{"status": "completed", "total_average_online_accuracy": NaN}',
    ],
)
def test_damaged_summary_is_named(write_run, tmp_path, content):
    (write_run("0") / "summary.json").write_text(content)
    with pytest.raises(DataError, match=r"summary\.json is damaged"):
        load_runs([tmp_path])


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "task,task_type,step,online_accuracy\n",
        "task,task_type,step\n0,,1\n1,,2\n2,,3\n",
        "task,task_type,step,online_accuracy\n0,,1,0.5\n1,,2,0.5\n",
    ],
    ids=["absent", "empty", "no row", "no accuracy", "a task too few"],
)
def test_damaged_tasks_of_a_completed_run_are_named(write_run, tmp_path, content):
    path = write_run("0") / "tasks.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"tasks\.csv is damaged"):
        load_runs([tmp_path])


def test_runs_of_another_precision_are_a_group_of_their_own_and_other_engines_are_not(write_run, tmp_path):
    engines = [{"threads": 2}, {"precision": "float32", "chunk_steps": 7}, {"precision": "bf16"}]
    for seed, engine in enumerate(engines):
        write_run(str(seed), seed, nodes={"engine": engine})
    runs = load_runs([tmp_path])
    assert runs.shown == ["engine.precision"]
    assert runs.groups["engine.precision"].tolist() == ["bf16", "float32"]
    assert sorted(zip(runs.runs["seed"], runs.runs["group"], strict=True)) == [(0, 1), (1, 1), (2, 0)]
    assert runs.notes == []
