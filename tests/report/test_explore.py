"""What the charts of a page draw."""

import pytest

from continual.report.choice import only_best
from continual.report.explore import COMPARED, Explore
from continual.report.layout import lay_out
from continual.report.runs import load
from continual.report.sensitivity import ablations, surfaces
from continual.report.statistics import summarise

from .conftest import CONFIG, L2_INIT

WEIGHTS = [10.0**-k for k in range(COMPARED // 2 + 1)]


@pytest.fixture
def runs(write_run, tmp_path):
    """A grid of one method on images of two scales, with more groups than are compared with one another."""
    for place, (normalise, weight) in enumerate((n, w) for n in ("a", "b") for w in WEIGHTS):
        dataset = {**CONFIG["env"]["dataset"], "normalise": normalise}
        nodes = {
            "env": {**CONFIG["env"], "dataset": dataset},
            "agent": {**L2_INIT, "l2_weight": weight},
        }
        write_run(str(place), 0, (10.0 + place,) * 2, nodes=nodes, options={"agent": "l2_init"})
    return load(tmp_path)


def explore(runs):
    return Explore(runs, lay_out(runs, summarise(runs)))


def test_groups_are_compared_within_their_stream_of_tasks(runs):
    pairs = explore(runs).pairs()
    streams = [runs.groups.at[group, "env.dataset.normalise"] for group in range(len(runs.groups))]
    assert all(streams[x] == streams[y] for x, y in pairs)
    assert {group for pair in pairs for group in pair} == set(range(len(runs.groups)))
    assert len(pairs) == 2 * len(WEIGHTS) * (len(WEIGHTS) - 1) / 2


def test_lines_that_no_choice_changes_name_their_environment(write_run, tmp_path):
    for env in ("one", "other"):
        for place, (lr, weight) in enumerate((lr, w) for lr in (0.1, 0.2) for w in (0.3, 0.4)):
            nodes = {
                "agent": {**L2_INIT, "l2_weight": weight},
                "optimizer": {**CONFIG["optimizer"], "lr": lr},
                "env": {**CONFIG["env"], "num_tasks": 3 if env == "one" else 4},
            }
            write_run(f"{env}{place}", 0, nodes=nodes, options={"agent": "l2_init", "env": env})
    everything = load(tmp_path)
    best, _ = only_best(everything)
    shown = explore(best)
    shown.effects(ablations(everything, lay_out(everything)), everything)
    table = shown.tables["effects"]
    assert not table.duplicated(["effect", "name", "value"]).any()
    assert table["name"].str.startswith(("One, ", "Other, ", "one, ", "other, ")).all()


def test_large_scores_in_cells_keep_their_digits(write_run, tmp_path):
    for place, (lr, weight) in enumerate((lr, w) for lr in (0.1, 0.2) for w in (0.3, 0.4)):
        nodes = {
            "agent": {**L2_INIT, "l2_weight": weight},
            "optimizer": {**CONFIG["optimizer"], "lr": lr},
        }
        write_run(str(place), 0, ((0.25, 10.2, 20.4, 1.5)[place],) * 2, nodes=nodes)
    runs = load(tmp_path)
    shown = explore(runs)
    shown.surfaces(surfaces(runs, summarise(runs), lay_out(runs)))
    assert sorted(shown.tables["cells"]["words"]) == [".25", "1.5", "10.2", "20.4"]
