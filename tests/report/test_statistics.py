import itertools
import math

import numpy as np
import pytest

from continual.report.runs import load
from continual.report.statistics import (
    accuracy_curve,
    compare,
    interquartile_mean,
    mean_interval,
    measure_by_task,
    online_accuracy,
    overall_mean,
    probability_of_improvement,
    scored_tasks,
    stratified_interval,
    summarise,
)

from .conftest import L2_INIT


def exact_quantiles(values, *probabilities):
    """Quantiles of the mean over all equally likely resamples instead of random ones."""
    means = [np.mean(resample) for resample in itertools.product(values, repeat=len(values))]
    return np.quantile(means, probabilities, method="inverted_cdf").tolist()


def exact_interval(values):
    return exact_quantiles(values, 0.025, 0.975)


@pytest.mark.parametrize(
    "values", [[0.1, 0.5], [0.2, 0.3, 0.7], [0.1, 0.11, 0.5, 0.9], [0.78, 0.77, 0.8, 0.79, 0.71]]
)
def test_interval_against_all_resamples(values):
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(sum(values) / len(values))
    # 10,000 random resamples know a probability of 0.025 to about 0.0016.
    exact = exact_quantiles(values, 0.02, 0.03, 0.97, 0.98)
    assert exact[0] - 1e-9 <= low <= exact[1] + 1e-9
    assert exact[2] - 1e-9 <= high <= exact[3] + 1e-9


def test_few_or_equal_values():
    assert all(math.isnan(end) for end in mean_interval([]))
    mean, low, high = mean_interval([0.3])
    assert mean == 0.3
    assert math.isnan(low)
    assert math.isnan(high)
    assert mean_interval([0.1, 0.1, 0.1]) == (0.1, 0.1, 0.1)


def test_each_column_gets_the_interval_it_would_get_alone():
    values = np.random.default_rng(3).uniform(size=(4, 300))
    values[:, 7] = 0.1
    together = mean_interval(values, 500)
    assert together.low[7] == together.high[7] == 0.1
    for column in (0, 7, 299):
        assert [end[column] for end in together] == [*mean_interval(values[:, column], 500)]


def test_an_interval_is_the_same_every_time():
    assert mean_interval([0.1, 0.2, 0.4, 0.7]) == mean_interval([0.1, 0.2, 0.4, 0.7])


def test_summary(write_run, tmp_path):
    base = [(0.5, 0.25), (0.75, 0.5), (0.25, 0.0)]
    for seed, accuracies in enumerate(base):
        write_run(f"base/{seed}", seed, accuracies, test_accuracies=(0.1, 0.2 + seed / 10))
    agent = {"nodes": {"agent": L2_INIT}, "options": {"agent": "l2_init"}}
    write_run("l2_init/0", 0, (0.5, 1.0), **agent)
    write_run("l2_init/1", 1, (0.9, 0.9), status="diverged", **agent)
    write_run("l2_init/2", 2, (0.9,), status=None, **agent)
    write_run("l2_init/3", 3, (0.9,), status="failed", **agent)
    summary = summarise(load(tmp_path)).set_index("agent")

    row = summary.loc["base"]
    totals = [0.375, 0.625, 0.125]
    assert row[["n", "diverged", "failed", "unfinished"]].tolist() == [3, 0, 0, 0]
    assert row["score"] == pytest.approx(np.mean(totals))
    assert [row["low"], row["high"]] == pytest.approx(exact_interval(totals), abs=1e-9)
    assert row["first_task"] == pytest.approx(0.5)
    assert row["last_task"] == pytest.approx(0.25)
    assert row["last_task_test"] == pytest.approx(0.3)

    row = summary.loc["l2_init"]
    assert row[["n", "diverged", "failed", "unfinished"]].tolist() == [1, 1, 1, 1]
    assert row["score"] == 0.75
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])
    assert (row["first_task"], row["last_task"]) == (0.5, 1.0)
    assert math.isnan(row["last_task_test"])


def test_a_group_without_completed_runs_has_a_row_but_no_mean(write_run, tmp_path):
    write_run("0", 0, status="diverged")
    write_run("1", 1, status=None)
    runs = load(tmp_path)
    (row,) = summarise(runs).to_dict("records")
    assert (row["n"], row["diverged"], row["unfinished"]) == (0, 1, 1)
    assert math.isnan(row["score"])
    assert online_accuracy(runs).empty


def test_groups_differ_in_nested_keys(write_run, tmp_path):
    for place, (lr, seed) in enumerate(itertools.product((0.1, 0.01), (0, 1))):
        optimizer = {"_target_": "Adam", "lr": lr, "inner": {"beta": 0.9}}
        write_run(f"a/{place}", seed, (lr, lr), nodes={"optimizer": optimizer})
    optimizer = {"_target_": "Adam", "lr": 0.1, "inner": {"beta": 0.5}}
    write_run("b/0", 0, (0.3, 0.3), nodes={"optimizer": optimizer})
    summary = summarise(load(tmp_path / "a", tmp_path / "b"))
    found = summary[["optimizer.lr", "optimizer.inner.beta", "n", "score"]]
    assert sorted(found.to_numpy().tolist()) == [
        [0.01, 0.9, 2, 0.01],
        [0.1, 0.5, 1, 0.3],
        [0.1, 0.9, 2, 0.1],
    ]


def test_easy_tasks_do_not_count(write_run, tmp_path):
    kinds = ["hard", "easy", "hard", "easy"]
    write_run("0", 0, (0.2, 0.9, 0.4, 0.95), task_types=kinds, test_accuracies=(0.1, 0.8, 0.3, 0.9))
    runs = load(tmp_path)
    (row,) = summarise(runs).to_dict("records")
    assert row["first_task"] == 0.2
    assert row["last_task"] == 0.4
    assert row["last_task_test"] == 0.3
    assert row["score"] == pytest.approx(0.3)
    assert online_accuracy(runs)["task"].tolist() == [0, 2]


def test_online_accuracy_per_task(write_run, tmp_path):
    curves = {0: (0.1, 0.5, 0.3), 1: (0.2, 0.5, 0.1), 2: (0.6, 0.5, 0.2)}
    for seed, accuracies in curves.items():
        write_run(str(seed), seed, accuracies)
    table = online_accuracy(load(tmp_path))
    assert list(table.columns) == ["task", "agent", "mean", "low", "high", "n"]
    assert table["task"].tolist() == [0, 1, 2]
    assert table["n"].tolist() == [3, 3, 3]
    for task, row in table.iterrows():
        values = [accuracies[task] for accuracies in curves.values()]
        assert row["mean"] == pytest.approx(np.mean(values))
        assert [row["low"], row["high"]] == pytest.approx(exact_interval(values), abs=1e-9)


def test_blocks_average_each_run_before_its_interval(write_run, tmp_path):
    curves = np.random.default_rng(0).uniform(size=(3, 7))
    for seed, accuracies in enumerate(curves):
        write_run(str(seed), seed, accuracies.tolist())
    curve = accuracy_curve(scored_tasks(load(tmp_path))[0], block=3)
    assert curve["task"].tolist() == [1, 4, 6]
    blocks = [curves[:, :3].mean(1), curves[:, 3:6].mean(1), curves[:, 6]]
    assert curve["mean"].tolist() == pytest.approx([block.mean() for block in blocks])
    for block, low, high in zip(blocks, curve["low"], curve["high"], strict=True):
        assert [low, high] == pytest.approx(exact_interval(block), abs=1e-9)


def test_a_run_with_fewer_tasks_than_others_of_its_group_is_averaged_with_none(write_run, tmp_path):
    write_run("0", 0, (0.1, 0.2, 0.3))
    write_run("1", 1, (0.1, 0.2))
    runs = load(tmp_path)
    assert online_accuracy(runs)["mean"].tolist() == [0.1, 0.2, 0.3]
    (sentence,) = runs.damaged
    assert sentence.startswith(f"{tmp_path / '1' / 'tasks.csv'} lacks tasks that other runs")


def exact_stratified(strata, statistic, *probabilities):
    """Quantiles over all combinations of equally likely resamples of each stratum."""
    resamples = [list(itertools.product(stratum, repeat=len(stratum))) for stratum in strata]
    values = [statistic(*chosen) for chosen in itertools.product(*resamples)]
    return np.quantile(values, probabilities, method="inverted_cdf").tolist()


def brute_iqm(*strata):
    values = sorted(value for stratum in strata for value in stratum)
    cut = len(values) // 4
    return sum(values[cut : len(values) - cut]) / (len(values) - 2 * cut)


def brute_mean(*strata):
    return sum(sum(stratum) / len(stratum) for stratum in strata) / len(strata)


def brute_probability(*strata):
    half = len(strata) // 2
    shares = [
        sum((x > y) + 0.5 * (x == y) for x in xs for y in ys) / (len(xs) * len(ys))
        for xs, ys in zip(strata[:half], strata[half:], strict=True)
    ]
    return sum(shares) / half


@pytest.mark.parametrize(
    ("strata", "statistic", "brute"),
    [
        ([[0.1, 0.3, 0.2, 0.9, 0.5]], interquartile_mean, brute_iqm),
        ([[0.1, 0.3, 0.2], [0.8, 0.4, 0.7]], interquartile_mean, brute_iqm),
        ([[0.1, 0.3, 0.2], [0.8, 0.4]], overall_mean, brute_mean),
        ([[0.1, 0.3, 0.2], [0.2, 0.15, 0.3]], probability_of_improvement, brute_probability),
        (
            [[0.1, 0.3], [0.5, 0.6, 0.2], [0.2, 0.1], [0.6, 0.4]],
            probability_of_improvement,
            brute_probability,
        ),
    ],
)
def test_statistics_of_strata_against_all_resamples(strata, statistic, brute):
    value, low, high = stratified_interval(strata, statistic)
    assert value == pytest.approx(brute(*strata))
    exact = exact_stratified(strata, brute, 0.02, 0.03, 0.97, 0.98)
    assert exact[0] - 1e-9 <= low <= exact[1] + 1e-9
    assert exact[2] - 1e-9 <= high <= exact[3] + 1e-9


def test_strata_are_resampled_apart():
    _, low, high = stratified_interval([[0.0, 0.0], [1.0, 1.0]], overall_mean)
    assert low == high == 0.5


def test_few_runs_have_no_stratified_interval():
    assert all(math.isnan(end) for end in stratified_interval([[], [0.1]], overall_mean))
    value, low, high = stratified_interval([[0.2], [0.1, 0.3]], overall_mean)
    assert value == pytest.approx(0.2)
    assert math.isnan(low)
    assert math.isnan(high)


def test_comparison_pairs_equal_seeds_only(write_run, tmp_path):
    of_base = {0: 0.5, 1: 0.2, 2: 0.4, 5: 0.9}
    of_l2_init = {1: 0.3, 0: 0.5, 2: 0.7, 7: 0.1}
    for seed, total in of_base.items():
        write_run(f"base/{seed}", seed, (total, total))
    for seed, total in of_l2_init.items():
        write_run(f"l2/{seed}", seed, (total, total), nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    write_run("l2/9", 5, status="diverged", nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    (row,) = compare(load(tmp_path), [(1, 0)]).to_dict("records")
    differences = [0.0, 0.1, 0.3]
    assert row["pairs"] == 3
    assert row["difference"] == pytest.approx(np.mean(differences))
    assert [row["low"], row["high"]] == pytest.approx(exact_interval(differences), abs=1e-9)
    expected = brute_probability([*of_l2_init.values()], [*of_base.values()])
    assert row["probability"] == pytest.approx(expected)


def test_without_common_seeds_there_is_no_difference(write_run, tmp_path):
    write_run("0", 0)
    write_run("1", 1, nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    (row,) = compare(load(tmp_path), [(0, 1)]).to_dict("records")
    assert row["pairs"] == 0
    assert math.isnan(row["difference"])
    assert row["probability"] == 0.5


def test_a_measure_that_only_some_groups_have(write_run, tmp_path):
    write_run("0", 0, measures={"srank": [3, 2, 1]})
    write_run("1", 0, nodes={"agent": L2_INIT}, options={"agent": "l2_init"})
    table = measure_by_task(load(tmp_path), "srank")
    assert table["agent"].tolist() == ["base"] * 3
    assert table["mean"].tolist() == [3, 2, 1]
