"""A replica whose loss is no longer finite stops counting, and disturbs no other."""

from tests import tiny
from tests.contracts.every import every_agent, of_agent

# Their weights are bounded after every step, whatever the step was.
BOUNDED = ("normalize_and_project", "weight_clipping")


@every_agent
def test_the_others_are_as_if_it_had_not_been_there(tmp_path, compose, agent):
    config = compose(*of_agent(agent), "optimizer=sgd")
    configs = [tiny.vary(config, r) for r in range(3)]
    without = tiny.train([configs[0], configs[2]], tmp_path / "without")
    configs[1]["optimizer"]["lr"] = 1e38  # 1e6 is not enough for a network with layer norm
    first, diverged, last = tiny.train(configs, tmp_path / "with")
    assert [first.tasks, last.tasks] == [run.tasks for run in without]
    assert [first.summary["status"], last.summary["status"]] == ["completed"] * 2
    for run, other in zip((first, last), without, strict=True):
        tiny.assert_equal(run.state, other.state)
        assert run.summary["total_average_online_accuracy"] == other.summary["total_average_online_accuracy"]

    if agent in BOUNDED:
        return
    assert diverged.summary["status"] == "diverged"
    assert diverged.summary["total_average_online_accuracy"] is None
    assert 1 <= diverged.summary["diverged_at_step"] <= 40
    assert diverged.summary["num_tasks"] == (diverged.summary["diverged_at_step"] - 1) // 20


def test_rows_from_before_it_diverged_stay(tmp_path, compose):
    """A decay that overshoots: every weight grows by a fifth at every step."""
    config = compose("agent=l2", "optimizer=sgd", "optimizer.lr=0.1", "env.num_tasks=6")
    configs = [config, tiny.vary(config, 1)]
    configs[0]["agent"]["l2_weight"] = 22.0
    run, other = tiny.train(configs, tmp_path)
    assert run.summary["status"] == "diverged"
    assert run.summary["num_tasks"] == (run.summary["diverged_at_step"] - 1) // 20 >= 1
    assert [row["task"] for row in run.rows] == list(range(run.summary["num_tasks"]))
    assert run.summary["steps"] == 20 * run.summary["num_tasks"]
    assert run.summary["total_average_online_accuracy"] is None
    assert other.summary["num_tasks"] == 6


def test_a_population_that_has_diverged_as_a_whole_ends(tmp_path, compose):
    config = compose("optimizer=sgd", "optimizer.lr=1e6", "env.num_tasks=1000")
    runs = tiny.train([config, tiny.vary(config, 1)], tmp_path)
    assert [run.summary["status"] for run in runs] == ["diverged"] * 2
