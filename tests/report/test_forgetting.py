"""Forgetting: against loops over tasks and seeds, and who has no part in it."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from continual.report.cli import main
from continual.report.forgetting import (
    accuracy_matrices,
    has_past_tasks,
    left_out,
    past_task_accuracies,
    past_task_figure,
    past_task_table,
    transfers,
)
from continual.report.layout import lay_out
from continual.report.runs import load

from .conftest import L2_INIT
from .test_published import AGENTS, OPTIONS, SETTING

L2 = {"nodes": {"agent": L2_INIT}, "options": {"agent": "l2_init"}}


def past(runs):
    return past_task_accuracies(runs, accuracy_matrices(runs)[0])


def triangle(tasks, seed):
    """Test accuracies after each task on each so far."""
    draw = np.random.default_rng(seed)
    return [draw.uniform(size=k + 1).tolist() for k in range(tasks)]


def brute_by_age(accuracies, is_scored):
    """The mean over scored tasks m of the accuracy on m after m + d, for each d; a loop over all pairs."""
    tasks = len(accuracies)
    sums, counts = [0.0] * tasks, [0] * tasks
    for after, on in itertools.product(range(tasks), repeat=2):
        if on <= after and is_scored[on]:
            sums[after - on] += accuracies[after][on]
            counts[after - on] += 1
    return [total / count if count else math.nan for total, count in zip(sums, counts, strict=True)]


def write_both_agents(write_run, tasks, task_types=None):
    """Two seeds of base and three of l2_init; returns what they measured."""
    measured = {("base", seed): triangle(tasks, seed) for seed in range(2)}
    measured |= {("l2_init", seed): triangle(tasks, 10 + seed) for seed in range(3)}
    for (agent, seed), rows in measured.items():
        more = L2 if agent == "l2_init" else {}
        write_run(f"{agent}/{seed}", seed, [0.5] * tasks, task_types=task_types, forgetting=rows, **more)
    return measured


@pytest.mark.parametrize("kinds", [None, ["hard", "easy", "hard", "easy", "hard", "easy"]])
def test_accuracy_on_past_tasks(write_run, tmp_path, kinds):
    measured = write_both_agents(write_run, 6, kinds)
    runs = load(tmp_path)
    table = past_task_table(runs, past(runs))
    assert list(table.columns) == ["tasks_ago", "agent", "agent.l2_weight", "mean", "low", "high", "n"]
    scored = [kind != "easy" for kind in kinds or [""] * 6]
    for agent, rows in table.groupby("agent"):
        of_seeds = [brute_by_age(m, scored) for (name, _), m in measured.items() if name == agent]
        assert rows["tasks_ago"].tolist() == list(range(6))
        assert rows["n"].tolist() == [len(of_seeds)] * 6
        assert rows["mean"].tolist() == pytest.approx(np.mean(of_seeds, axis=0).tolist())
        # The interval of two or three values ends at the smallest and the largest of them.
        assert rows["low"].tolist() == pytest.approx(np.min(of_seeds, axis=0).tolist())
        assert rows["high"].tolist() == pytest.approx(np.max(of_seeds, axis=0).tolist())


def test_an_age_that_no_scored_task_reaches_is_left_out(write_run, tmp_path):
    write_run("0", 0, [0.5] * 3, task_types=["easy", "hard", "hard"], forgetting=triangle(3, 0))
    runs = load(tmp_path)
    assert past_task_table(runs, past(runs))["tasks_ago"].tolist() == [0, 1]


def test_figure(write_run, tmp_path):
    write_both_agents(write_run, 120)  # longer than other figures draw task by task
    runs = load(tmp_path)
    found = past(runs)
    (axis,) = past_task_figure(runs, found, lay_out(runs)).axes
    assert axis.get_xlabel() == "tasks since it was learned"
    assert [line.get_label() for line in axis.get_lines()] == ["Plain training", "L2 Init"]
    table = past_task_table(runs, found)
    for agent, line in zip(["base", "l2_init"], axis.get_lines(), strict=True):
        rows = table[table["agent"] == agent]
        assert line.get_xdata().tolist() == list(range(120))
        assert line.get_ydata().tolist() == rows["mean"].tolist()


def test_without_a_past_task_there_is_no_figure(write_run, tmp_path):
    write_run("0", 0, [0.5], forgetting=[[0.3]])
    runs = load(tmp_path)
    assert not has_past_tasks(past(runs))


def test_who_has_no_part_in_it_is_said(write_run, tmp_path, capsys):
    write_run("0", 0, [0.5] * 3, forgetting=triangle(3, 0))
    write_run("1", 1, [0.5] * 3)
    write_run("2", 2, [0.5] * 3, status="diverged", forgetting=triangle(3, 2))
    write_run("3", 3, [0.5] * 3, status="diverged")
    runs = load(tmp_path)
    (found,) = past(runs).values()
    assert found["run"].nunique() == 1
    assert found["past_task_accuracy"].tolist() == pytest.approx(brute_by_age(triangle(3, 0), [True] * 3))
    assert left_out(runs, [0]) == [
        "Left out here: 2 diverged runs.",
        f"Left out here: 1 completed run without forgetting.csv, such as {tmp_path / '1'}; "
        "metrics.forgetting=true writes it.",
    ]


def test_transfers_are_means_over_the_seeds_that_measured_them(write_run, tmp_path):
    for seed, transfer in enumerate((-0.2, -0.5)):
        accuracies = (0.2 + seed / 5,) * 3
        write_run(
            f"a/{seed}", seed, accuracies, backward_transfer=transfer, one_step_backward_transfer=transfer / 2
        )
    write_run("a/2", 2, (0.9,) * 3)
    write_run("b", 0, **L2)
    (row,) = transfers(load(tmp_path)).to_dict("records")
    assert (row["agent"], row["n"]) == ("base", 2)
    assert row["backward_transfer"] == pytest.approx(-0.35)
    assert (row["backward_transfer_low"], row["backward_transfer_high"]) == (-0.5, -0.2)
    assert row["one_step_backward_transfer"] == pytest.approx(-0.175)
    assert row["score"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "task,0,1\n0,0.5,\n",
        "task,0,1\n0,0.5,\n1,,0.5\n",
        "task,0,1\n1,0.5,\n0,0.5,0.5\n",
        "task,0,1\n0,x,\n1,1,1\n",
    ],
    ids=["empty", "a row too few", "a gap", "in disorder", "no number"],
)
def test_a_damaged_file_is_named(write_run, tmp_path, content):
    (write_run("0", 0, (0.5, 0.5)) / "forgetting.csv").write_text(content)
    write_run("1", 1, (0.5, 0.5), forgetting=triangle(2, 0))
    runs = load(tmp_path)
    of_runs, damaged = accuracy_matrices(runs)
    of_groups = past_task_accuracies(runs, of_runs)
    assert of_groups[0]["run"].unique().tolist() == [1]
    (sentence,) = damaged.values()
    assert sentence.startswith(f"{tmp_path / '0' / 'forgetting.csv'} is damaged")
    assert "\n" not in sentence


def test_the_accuracies_as_a_table(write_run, tmp_path):
    write_run("0", 3, (0.5, 0.5), forgetting=[[0.9], [0.4, 0.8]])
    write_run("1", 4, (0.5, 0.5))
    runs = load(tmp_path)
    table = runs.accuracies
    assert table[["after_task", "on_task", "accuracy"]].to_numpy().tolist() == [
        [0, 0, 0.9],
        [1, 0, 0.4],
        [1, 1, 0.8],
    ]
    assert table["seed"].unique().tolist() == [3]
    without = load(tmp_path / "1").accuracies
    assert without.empty
    assert [*without] == [*table]


def test_the_report_has_the_table_of_the_paper_and_the_figure(write_run, tmp_path, capsys):
    for seed in range(2):
        write_run(
            f"{seed}",
            seed,
            [0.5] * 4,
            nodes={**SETTING, "agent": AGENTS["ewc"]},
            options={**OPTIONS, "agent": "ewc"},
            forgetting=triangle(4, seed),
            backward_transfer=-0.4,
            one_step_backward_transfer=-0.1 - 0.1 * seed,
        )
    assert main([str(tmp_path)]) == 0
    report = tmp_path / "report"
    (row,) = pd.read_csv(report / "forgetting.csv").to_dict("records")
    assert row["one_step_backward_transfer"] == pytest.approx(-0.15)
    numbers = {name: row[f"published_{name}"] for name in ("backward_transfer", "one_step_backward_transfer")}
    assert numbers == {"backward_transfer": -0.39, "one_step_backward_transfer": -0.078}
    assert row["published_score"] == 0.758
    assert len(pd.read_csv(report / "past_task_accuracy.csv")) == 4
    text = (report / "report.md").read_text()
    section = text.split("## Forgetting")[1].split("\n## ")[0]
    assert "(past_task_accuracy.png)" in section
    minus = "\N{MINUS SIGN}"
    cells = [f"{minus}0.400 [{minus}0.400, {minus}0.400]", f"{minus}0.150 [{minus}0.200, {minus}0.100]"]
    cells += ["0.500 [0.500, 0.500]", f"{minus}0.390", f"{minus}0.078", "0.758"]
    assert f"| EWC | 2 | {' | '.join(cells)} |" in section
    assert "Left out" not in section
    for kind in ("png", "pdf"):
        assert (report / f"past_task_accuracy.{kind}").stat().st_size > 1000
    assert "Test accuracy over how many tasks ago" in (report / "report.html").read_text()


def test_a_report_from_data_alone_has_the_same_forgetting(write_run, tmp_path):
    write_both_agents(write_run, 5)
    assert main([str(tmp_path), "--output", str(tmp_path / "study"), "--data"]) == 0
    again = tmp_path / "again"
    assert main([str(tmp_path / "study"), "--output", str(again), "--data"]) == 0
    for name in ("accuracies.csv", "past_task_accuracy.csv", "report.md"):
        assert (again / name).read_bytes() == (tmp_path / "study" / name).read_bytes()
    (tmp_path / "study" / "accuracies.csv").write_text("run,after\n0,1\n")
    assert main([str(tmp_path / "study")]) == 1
