"""The best configuration, by every rule that its docstring states; the same choice as the protocol's."""

import pytest

from continual.errors import ConfigError
from continual.report.choice import choose, only_best
from continual.report.runs import load

from .conftest import CONFIG, L2_INIT


@pytest.fixture
def write(write_run):
    """Runs of an agent (l2_init) with a step size and a strength, a total for each seed from 0 on."""

    def write(name, totals, *, lr=1e-3, weight=0.01, agent="l2_init", first=0, env="one", **more):
        nodes = {"env": {**CONFIG["env"], "_target_": env}, "optimizer": {"_target_": "Adam", "lr": lr}}
        nodes["agent"] = {**L2_INIT, "l2_weight": weight} if agent == "l2_init" else {"_target_": agent}
        for seed, total in enumerate(totals, start=first):
            status = total if isinstance(total, str) else "completed"
            write_run(
                f"{name}/{seed}",
                seed,
                (0.9, 0.9) if isinstance(total, str) else (total, total),
                nodes=nodes,
                options={"agent": agent, "env": env},
                status=None if status == "unfinished" else status,
                **more,
            )

    return write


def test_the_best_of_each_agent_on_each_environment(write, tmp_path):
    write("a", (0.5, 0.6))
    write("b", (0.7, 0.5), lr=1e-4)  # the larger mean, though a has the better worst run
    write("c", (0.4, 0.4), agent="base")
    write("d", (0.3, 0.3), agent="base", env="two")
    table = load(tmp_path).best()
    assert table["agent"].tolist() == ["l2_init", "base", "base"]
    assert table["env"].tolist() == ["one", "one", "two"]
    assert table["score"].tolist() == pytest.approx([0.6, 0.4, 0.3])
    assert table["optimizer.lr"].tolist() == [1e-4, 1e-3, 1e-3]
    assert table["configurations"].tolist() == [2, 1, 1]
    assert table["seeds"].tolist() == [2, 2, 2]


def test_several_keys_and_all_agents_together(write, tmp_path):
    write("a", (0.5, 0.6))
    write("b", (0.7, 0.5), lr=1e-4)
    write("c", (0.4, 0.4), agent="base")
    runs = load(tmp_path)
    assert len(runs.best(by=["agent", "optimizer.lr"])) == 3
    assert runs.best(by="env")["agent"].tolist() == ["l2_init"]


@pytest.mark.parametrize("spoilt", ["diverged", "failed", "unfinished"])
def test_a_configuration_without_all_its_seeds_cannot_be_chosen(write, tmp_path, spoilt):
    write("a", (0.9, spoilt))
    write("b", (0.5, 0.6), lr=1e-4)
    (row,) = load(tmp_path).best().to_dict("records")
    assert row["score"] == pytest.approx(0.55)
    assert (row["configurations"], row["diverged"]) == (1, int(spoilt == "diverged"))


def test_configurations_are_compared_on_the_seeds_that_all_have(write, tmp_path):
    write("a", (0.5, 0.5, 0.9, 0.9))
    write("b", (0.6, 0.6), lr=1e-4)
    runs = load(tmp_path)
    assert runs.best()["optimizer.lr"].tolist() == [1e-4]
    assert runs.best(seeds=[0, 1, 2])["optimizer.lr"].tolist() == [1e-3]
    assert runs.best(seeds=[7]).empty


def test_ties_go_to_the_smaller_step_size_then_the_smaller_other_numbers(write, tmp_path):
    write("a", (0.1, 0.2, 0.7), lr=1e-3, weight=1e-4)
    write("b", (0.7, 0.1, 0.2), lr=1e-4, weight=1e-2)
    write("c", (0.2, 0.7, 0.1), lr=1e-4, weight=1e-3)
    (row,) = load(tmp_path).best().to_dict("records")
    assert (row["optimizer.lr"], row["agent.l2_weight"]) == (1e-4, 1e-3)


def test_of_an_error_the_smallest_is_the_best(write, tmp_path):
    error = {"score_name": "online_squared_error", "higher_is_better": False}
    write("a", (0.1,), score=2.0, **error)
    write("b", (0.9,), lr=1e-4, score=1.0, **error)
    runs = load(tmp_path)
    (row,) = runs.best().to_dict("records")
    assert (row["optimizer.lr"], row["score"]) == (1e-4, 1.0)


def test_other_measures(write, tmp_path):
    write("a", (0.5,), measures={"srank": [1, 2], "online_loss": [0.1, 0.1]})
    write("b", (0.6,), lr=1e-4, measures={"srank": [1, 1], "online_loss": [0.5, 0.5]})
    runs = load(tmp_path)
    assert runs.best("srank")["srank"].tolist() == [1.5]
    assert runs.best("online_loss")["online_loss"].tolist() == [0.1]
    with pytest.raises(ConfigError, match=r"sranks: no run has such a number; there are score, .*srank"):
        runs.best("sranks")
    with pytest.raises(ConfigError, match=r"by=agnet: no run has such a key"):
        runs.best(by="agnet")


@pytest.mark.parametrize("name", ["dead_unit_fraction/hidden0", "online_squared_error@0.25", "online_loss"])
def test_less_is_better_of_a_layer_or_a_part_of_a_task_as_well(write, tmp_path, name):
    write("a", (0.5,), measures={name: [0.1, 0.1]})
    write("b", (0.6,), lr=1e-4, measures={name: [0.9, 0.9]})
    assert load(tmp_path).best(name)[name].tolist() == [0.1]


def test_nothing_to_choose_from(write, tmp_path):
    write("a", ("diverged",))
    runs = load(tmp_path)
    assert runs.best().empty
    assert choose(runs, [0]) is None


def test_an_agent_without_a_choice_leaves_the_fresh_seeds_fresh(write, tmp_path):
    """Base has one configuration: its runs with the seeds that l2_init was not chosen by count."""
    write("base", (0.5, 0.6, 0.7), agent="base")
    write("a", (0.5, 0.6, 0.7))
    write("b", (0.4, 0.4), weight=0.1)
    best, sentence = only_best(load(tmp_path))
    assert best.runs["seed"].tolist() == [2, 2]
    assert "no part in its choice" in sentence
