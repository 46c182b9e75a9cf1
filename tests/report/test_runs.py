import gzip
import itertools
import json
import math
import shutil

import pytest

from continual.errors import ConfigError, DataError
from continual.report.content import build
from continual.report.runs import load
from continual.report.statistics import summarise
from continual.report.study import write_study

from .conftest import CONFIG, L2_INIT


def test_runs_are_found_at_any_depth_and_once(write_run, tmp_path):
    write_run("a/0", seed=0)
    write_run("a/deep/er/1", seed=1)
    write_run("b/2", seed=2)
    (tmp_path / "a" / "empty").mkdir()
    folders = [tmp_path / "a", tmp_path / "b" / ".." / "a" / "deep", tmp_path / "b" / "2"]
    runs = load(*folders)
    assert sorted(runs.runs["seed"]) == [0, 1, 2]
    assert runs.runs["group"].tolist() == [0, 0, 0]
    assert len(runs.tasks) == 9
    assert runs.notes == []


def test_tables(write_run, tmp_path):
    write_run("0", seed=0, accuracies=(0.25, 0.75))
    write_run("1", seed=7, accuracies=(0.5, 1.0), nodes={"agent": L2_INIT}, options={"agent": "x"})
    runs = load(str(tmp_path))
    assert runs.groups["agent"].tolist() == ["base", "x"]
    assert runs.groups["agent.l2_weight"].tolist() == ["-", 0.01]
    row = runs.runs[runs.runs["seed"] == 7].iloc[0]
    assert row["folder"] == str(tmp_path / "1")
    assert (row["group"], row["status"], row["score"]) == (
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
    table = load(tmp_path).runs.set_index("seed").sort_index()
    assert table["status"].tolist() == ["completed", "diverged", "failed", "unfinished"]
    assert table["score"].notna().tolist() == [True, False, False, False]


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
    runs = load(tmp_path)
    assert sorted(runs.runs["folder"]) == [str(tmp_path / str(kept)), str(tmp_path / "other")]
    (note,) = runs.notes
    assert f"{len(ages) - 1} repetition" in note
    assert str(tmp_path) in note
    assert set(runs.tasks["run"]) == {0, 1}


def test_folders_without_a_finished_task_are_mentioned(write_run, tmp_path):
    write_run("0")
    (write_run("1", seed=1, status=None) / "tasks.csv").unlink()
    runs = load(tmp_path)
    assert len(runs.runs) == 1
    assert runs.notes == [f"Left out: 1 folder with a config but no finished task, such as {tmp_path / '1'}."]


def test_what_lies_in_wandb_is_not_a_run(write_run, tmp_path):
    run = write_run("0")
    shutil.copytree(run, run / "wandb" / "files")
    assert len(load(tmp_path).runs) == 1
    assert load(tmp_path).notes == []


def test_unfinished_rows_of_a_running_run_are_no_error(write_run, tmp_path):
    write_run("0")
    path = write_run("1", seed=1, status=None) / "tasks.csv"
    path.write_text(path.read_text() + "3,,40")  # cut inside its step, 400
    write_run("2", seed=2, status=None).joinpath("tasks.csv").write_text("")
    runs = load(tmp_path)
    assert runs.runs.set_index("seed")["status"].to_dict() == {
        0: "completed",
        1: "unfinished",
        2: "unfinished",
    }
    assert runs.tasks.query("seed == 1")["step"].tolist() == [100, 200, 300]


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        load(tmp_path, tmp_path / "absent")


def test_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no run below .*tasks\.csv and \.hydra/config\.yaml"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"status": "fine"}),
        json.dumps({"status": "completed", "total_average_online_accuracy": None}),
        '{"status": "completed", "total_average_online_accuracy": NaN}',
        '{"status": "completed", "total_average_online_accuracy": 1%s}' % ("0" * 400),
        '{"status": "completed", "total_average_online_accuracy": "0.5"}',
        '{"status": "completed", "total_average_online_accuracy": 0.5, "num_tasks": "a\\nb"}',
        '{"status": "completed", "score_name": 3, "score": 0.5, "higher_is_better": true}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_damaged_summary_is_named(write_run, tmp_path, content):
    """And stops no other run from being read: it counts as one that is not finished."""
    (write_run("0") / "summary.json").write_text(content)
    write_run("1", 1, (0.5,))
    runs = load(tmp_path)
    assert runs.runs.set_index("seed")["status"].to_dict() == {0: "unfinished", 1: "completed"}
    assert runs.runs["score"].tolist() == pytest.approx([math.nan, 0.5], nan_ok=True)
    (sentence,) = runs.damaged
    assert sentence.startswith(f"{tmp_path / '0' / 'summary.json'} is damaged")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "task,task_type,step,online_accuracy\n",
        "task,task_type,step,online_accuracy\n0,,1,0.5\n1,,2,0.5\n",
        "task,task_type,step,online_accuracy\n0,,1,0.5\n2,,2,0.5\n1,,2,0.5\n",
        "task,task_type,step,online_accuracy\n0,,1,0.5\n1,,2,x\n2,,3,0.5\n",
        "task,task_type,step,online_accuracy\n0,,1,0.5\n1,,2,0.5\n2,,3,0.5",
        "a\x00b",
    ],
    ids=["absent", "empty", "no row", "a task too few", "in disorder", "a text", "cut", "no table"],
)
def test_damaged_tasks_of_a_completed_run_are_named(write_run, tmp_path, content):
    path = write_run("0") / "tasks.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    write_run("1", 1, (0.5, 0.5))
    runs = load(tmp_path)
    assert runs.runs.set_index("seed")["status"].to_dict() == {0: "unfinished", 1: "completed"}
    assert set(runs.tasks.query("status == 'completed'")["seed"]) == {1}
    (sentence,) = runs.damaged
    assert sentence.startswith(f"{path} is damaged")
    assert "\n" not in sentence


def test_runs_of_another_precision_are_a_group_of_their_own_and_other_engines_are_not(write_run, tmp_path):
    engines = [{"threads": 2}, {"precision": "float32", "chunk_steps": 7}, {"precision": "bf16"}]
    for seed, engine in enumerate(engines):
        write_run(str(seed), seed, nodes={"engine": engine})
    runs = load(tmp_path)
    assert runs.shown == ["engine.precision"]
    assert runs.groups["engine.precision"].tolist() == ["bf16", "float32"]
    assert sorted(zip(runs.runs["seed"], runs.runs["group"], strict=True)) == [(0, 1), (1, 1), (2, 0)]
    assert runs.notes == []


def test_one_damaged_run_does_not_stop_the_others(write_run, tmp_path):
    for seed in range(4):
        write_run(str(seed), seed)
    (tmp_path / "1" / ".hydra" / "config.yaml").write_text("a: [")
    (tmp_path / "2" / "summary.json").write_bytes(b"\x00\xff")
    runs = load(tmp_path)
    assert runs.runs.set_index("seed")["status"].to_dict() == {
        0: "completed",
        2: "unfinished",
        3: "completed",
    }
    assert len(runs.damaged) == 2
    assert runs.damaged[0].endswith("That run is left out.")


def test_a_sentence_of_nothing_but_damaged_runs(write_run, tmp_path):
    (write_run("0") / ".hydra" / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"config\.yaml cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        "a: &a [*a]\nseed: 0\n",
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in itertools.pairwise("abcdefghi")),
        "seed: [1]\n",
        "seed: !!python/object/apply:os.system [true]\n",
        "seed: 2026-99-99\n",
    ],
    ids=["itself", "billions", "no seed", "code", "no date"],
)
def test_hostile_configs_are_left_out(write_run, tmp_path, config):
    write_run("0")
    (write_run("1", 1) / ".hydra" / "config.yaml").write_text(config)
    runs = load(tmp_path)
    assert runs.runs["seed"].tolist() == [0]
    (sentence,) = runs.damaged
    assert sentence.startswith(str(tmp_path / "1" / ".hydra" / "config.yaml"))
    assert "\n" not in sentence


def test_runs_on_other_data_are_a_group_of_their_own(write_run, tmp_path):
    for seed, data in enumerate(("aaaa", "aaaa", "bbbb", None)):
        write_run(str(seed), seed, data_fingerprint=data)
    runs = load(tmp_path)
    assert runs.shown == ["data"]
    assert runs.groups["data"].tolist() == ["aaaa", "bbbb", "not recorded"]
    assert runs.runs.sort_values("seed")["group"].tolist() == [0, 0, 1, 2]


def test_runs_that_do_not_say_what_data_they_saw_belong_to_the_others(write_run, tmp_path):
    for seed, data in enumerate(("aaaa", None)):
        write_run(str(seed), seed, data_fingerprint=data)
    assert load(tmp_path).runs["group"].tolist() == [0, 0]


def test_an_earlier_run_without_an_option_has_its_default(write_run, tmp_path):
    target = {"_target_": "continual.optimizers.Adam", "lr": 0.5}
    write_run("0", 0, nodes={"optimizer": target})
    write_run("1", 1, nodes={"optimizer": {**target, "weight_decay": 0}})
    write_run("2", 0, nodes={"optimizer": {**target, "weight_decay": 0.1}})
    runs = load(tmp_path)
    assert runs.groups["optimizer.weight_decay"].tolist() == [0, 0.1]
    assert runs.runs.groupby("group").size().tolist() == [2, 1]


def test_in_a_notebook_and_at_a_prompt(write_run, tmp_path):
    for seed in range(2):
        write_run(f"a{seed}", seed, (0.25, 0.75))
    write_run("b", 0, nodes={"agent": L2_INIT}, options={"agent": "<l2>"}, status="diverged")
    runs = load(tmp_path)
    assert repr(runs).splitlines()[0] == (
        "3 runs (2 completed, 1 diverged): "
        "env random_label_digits, env/dataset digits, network mlp, optimizer adam"
    )
    assert "0.5" in repr(runs)
    page = runs._repr_html_()
    assert "<table" in page
    assert "&lt;l2&gt;" in page
    assert "<l2>" not in page


@pytest.mark.parametrize("name", ["online_accuracy", "total_average_online_accuracy"])
def test_what_a_summary_declares_as_its_score_is_a_column_of_its_tasks(write_run, tmp_path, name):
    write_run("0", 0, (0.2, 0.4), score=0.3, score_name=name, higher_is_better=True)
    runs = load(tmp_path)
    assert runs.runs["score"].tolist() == [0.3]
    (score,) = runs.scores
    assert (score.name, score.words) == ("online_accuracy", "total average online accuracy")


def test_a_study_and_the_folders_that_it_was_written_from_hold_the_same_runs(write_run, tmp_path):
    for seed in range(2):
        write_run(f"runs/a{seed}", seed)
        # A default that is given makes no other run.
        adam = {"_target_": "continual.optimizers.Adam", "lr": 1e-3, "weight_decay": 0, "schedule": None}
        write_run(f"runs/b{seed}", seed, nodes={"agent": L2_INIT, "optimizer": adam})
    runs = load(tmp_path / "runs")
    write_study(runs, {}, tmp_path / "study")
    assert [c.identity for c in load(tmp_path / "study").configs] == [c.identity for c in runs.configs]
    both = load(tmp_path / "study", tmp_path / "runs")
    assert both.groups.equals(runs.groups)
    assert len(both.runs) == 4
    (note,) = both.notes
    assert "4 repetitions" in note


def test_a_studys_tasks_may_be_gzipped(write_run, tmp_path):
    write_run("runs/0", 0)
    study = tmp_path / "study"
    write_study(load(tmp_path / "runs"), {}, study)
    plain = load(study)
    content = gzip.compress((study / "tasks.csv").read_bytes())
    (study / "tasks.csv").unlink()
    (study / "tasks.csv.gz").write_bytes(content)
    assert load(study).tasks.equals(plain.tasks)
    (study / "tasks.csv.gz").write_bytes(content[:-20])
    with pytest.raises(DataError, match="cannot be read as runs"):
        load(study)


def test_runs_that_are_compared_by_nothing_are_completed_all_the_same(write_run, tmp_path):
    undeclared = {"score": None, "score_name": None, "higher_is_better": None}
    write_run("0", 0, (0.2, 0.4), **undeclared)
    write_run("1", 1, (0.2, 0.4), **undeclared, total_average_online_accuracy=None)
    runs = load(tmp_path)
    assert runs.notes == []
    assert runs.runs["status"].tolist() == ["completed"] * 2
    assert runs.runs["score"].tolist() == pytest.approx([0.3, math.nan], nan_ok=True)
    assert summarise(runs)["n"].tolist() == [2]


def test_a_grid_that_is_compared_by_nothing_has_a_report(write_run, tmp_path):
    undeclared = {"score": None, "score_name": None, "total_average_online_accuracy": None}
    for place, (lr, weight) in enumerate((lr, w) for lr in (0.1, 0.2) for w in (0.3, 0.4)):
        nodes = {"agent": {**L2_INIT, "l2_weight": weight}, "optimizer": {"_target_": "Adam", "lr": lr}}
        write_run(str(place), 0, nodes=nodes, **undeclared)
    report = build(load(tmp_path))
    assert "Sensitivity" not in [section.title for section in report.sections]


def test_where_keys_have_values(write_run, tmp_path):
    for number, lr in enumerate((1e-3, 1e-4)):
        for seed in (0, 1):
            node = {"_target_": "Adam", "lr": lr}
            write_run(f"base{number}/{seed}", seed, nodes={"optimizer": node})
            sizes = {**CONFIG["network"], "hidden_sizes": [10 + number, 10]}
            nodes = {"optimizer": node, "agent": L2_INIT, "network": sizes}
            write_run(f"l2_init{number}/{seed}", seed, nodes=nodes, options={"agent": "l2_init"})
    runs = load(tmp_path)
    chosen = runs.where({"agent": "l2_init", "optimizer.lr": 0.001}, seeds=[1])
    assert [*chosen.runs["folder"]] == [str(tmp_path / "l2_init0" / "1")]
    assert chosen.runs.index.tolist() == [0]
    assert chosen.tasks["run"].unique().tolist() == [0]
    assert len(runs.where({"optimizer.lr": [1e-3, 1e-4], "agent": "base"})) == 4
    assert len(runs.where({"network.hidden_sizes": [11, 10]})) == 2
    assert len(runs.where({"network.hidden_sizes": [[11, 10], [100, 100]]})) == 6
    assert len(runs.where({})) == 8
    with pytest.raises(ConfigError, match=r"^agent: no group has redo; there are base, l2_init\.$"):
        runs.where({"agent": "redo"})
    assert len(runs.where({"env": "random_label_digits", "agent.l2_weight": 0.01, "env.num_tasks": 3})) == 4
    with pytest.raises(ConfigError, match=r"^agnet: none of these runs' configs has this key\.$"):
        runs.where({"agnet": "redo"})
    with pytest.raises(ConfigError, match=r"^seed: .*; give seeds=\[\.\.\.\]\.$"):
        runs.where({"seed": 1})
