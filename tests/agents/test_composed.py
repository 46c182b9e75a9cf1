from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from continual import building
from continual.agents.agent import Agent, Context, Step, Update
from continual.agents.base import Base
from continual.agents.composed import composed
from continual.agents.continual_backprop import ContinualBackprop
from continual.agents.ewc import EWC
from continual.agents.l2 import L2
from continual.agents.redo import ReDo
from continual.agents.shrink_and_perturb import ShrinkAndPerturb
from continual.errors import ConfigError
from continual.identity import structure
from continual.learner import Learner
from continual.schema import check
from tests import tiny
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare, seen
from tests.agents.test_continual_backprop import PlainContinualBackprop
from tests.agents.test_redo import PlainReDo
from tests.agents.test_units import NETWORKS as UNFIT

SEEN = seen({})


def half_of_squares(loop: PlainLoop) -> Tensor:
    return loop.agent.plus.l2_weight / 2 * sum((p**2).sum() for _, p in loop.weights())


class ContinualBackpropWithL2(PlainContinualBackprop):
    def penalty(self) -> Tensor:
        return half_of_squares(self)


class ReDoWithL2(PlainReDo):
    def penalty(self) -> Tensor:
        return half_of_squares(self)


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_resets_with_a_penalty_equal_a_plain_loop(network: str) -> None:
    agents = [ContinualBackprop(0.2, 0.9, 10 + r, plus=L2(0.01 * (r + 1))) for r in range(2)]
    for loop in compare(NETWORKS[network](), agents, OPTIMIZERS["adam"], ContinualBackpropWithL2, steps=150):
        assert len(loop.replaced) > 10
    recycling = [ReDo(20, 0.6, plus=L2(0.1))]
    (loop,) = compare(NETWORKS[network](), recycling, OPTIMIZERS["sgd"], ReDoWithL2)
    assert len(loop.replaced) > 10


@dataclass(frozen=True)
class Adding(Agent):
    """Adds to the output's bias, and counts."""

    amount: float = 1.0

    def init(self, context: Context) -> Tensor:
        return torch.zeros(())

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        bias = update.params["output.bias"] * 2 + self.amount
        return update._replace(params={**update.params, "output.bias": bias}, state=update.state + 1)


def test_the_second_acts_on_what_the_first_left_and_each_has_a_state_of_its_own() -> None:
    agent = composed(Adding(1.0, plus=Adding(10.0, plus=Adding(100.0))))
    anatomy = Learner.of(NETWORKS["mlp"](), Base(), OPTIMIZERS["sgd"]).anatomy
    context = Context(anatomy, {}, torch.tensor(0), torch.zeros(2, dtype=torch.int32))
    update = Update({"output.bias": torch.zeros(())}, {}, agent.init(context))
    after = agent.after_update(update, SEEN, context)
    assert after.params["output.bias"] == ((0 * 2 + 1) * 2 + 10) * 2 + 100
    assert (after.state.first, *after.state.second) == (1, 1, 1)


def test_two_that_draw_do_not_draw_the_same(compose) -> None:
    config = compose("agent=shrink_and_perturb", "agent.shrink=0", "optimizer=sgd", "optimizer.lr=1e-30")
    config["agent"]["plus"] = dict(config["agent"])
    moved = {}
    for scale in (0.0, 1.0):
        config["agent"]["plus"]["perturb_scale"] = scale
        population = tiny.population([config])
        before = population.replica_state(0)["params/hidden0.weight"]
        population.start_task(0)
        population.advance(1)
        moved[scale] = population.replica_state(0)["params/hidden0.weight"] - before
    second = moved[1.0] - moved[0.0]
    correlation = torch.corrcoef(torch.stack([moved[0.0].flatten(), second.flatten()]))[0, 1]
    assert abs(correlation) < 0.3


@pytest.mark.parametrize(
    "order", [("head_reset", "shrink_and_perturb"), ("shrink_and_perturb", "head_reset")]
)
def test_only_who_acts_at_a_tasks_start_does(compose, order) -> None:
    """Shrink and Perturb is for every step here."""
    config = compose(f"agent={order[0]}", f"agent@agent.plus={order[1]}")
    population = tiny.population([config])
    population.start_task(0)
    population.advance(config["env"]["steps_per_task"])
    population.end_task()
    before = population.replica_state(0)
    population.start_task(1)
    after = population.replica_state(0)
    assert not torch.equal(after["params/output.weight"], before["params/output.weight"])
    assert torch.equal(after["params/hidden0.weight"], before["params/hidden0.weight"])


@pytest.mark.parametrize("order", [("redo", "l2_er"), ("l2_er", "redo"), ("redo", "l2")])
def test_what_takes_matrices_apart_is_known_of_both(compose, order) -> None:
    config = compose(f"agent={order[0]}", f"agent@agent.plus={order[1]}")
    learner, _ = building.prepare(config)
    assert learner.decomposes == ("l2_er" in order)
    assert tiny.population([config])._one_by_one == ("l2_er" in order)


@pytest.mark.parametrize("first", ["base", "l2_init", "redo", "ewc"])
def test_with_base_it_is_as_alone(tmp_path, compose, first) -> None:
    configs = [compose(f"agent={first}", *plus) for plus in ((), ("agent@agent.plus=base",))]
    runs = [tiny.train([config], tmp_path / str(i))[0] for i, config in enumerate(configs)]
    assert runs[0].tasks == runs[1].tasks


def test_numbers_of_both_may_differ_between_the_replicas_of_a_population(tmp_path, compose) -> None:
    config = compose("agent=redo", "agent.recycle_period=5", "agent@agent.plus=l2_init")
    configs = [tiny.vary(config, r) for r in range(3)]
    assert len({c["agent"]["plus"]["l2_weight"] for c in configs}) == 3
    assert len({structure(c) for c in configs}) == 1
    packed = tiny.train(configs, tmp_path / "packed")
    (alone,) = tiny.train(configs[1:2], tmp_path / "alone")
    tiny.assert_equal(alone.state, packed[1].state)
    other = compose("agent=redo", "agent.recycle_period=5", "agent@agent.plus=l2")
    assert structure(other) != structure(config)


def test_l2_init_plus_ewc_is_one(compose) -> None:
    agent = compose("agent=l2_init_plus_ewc", "agent.plus.l2_weight=1e-3")["agent"]
    assert agent["_target_"] == f"{EWC.__module__}.EWC"
    assert agent["plus"]["l2_weight"] == 1e-3


@pytest.mark.parametrize(
    ("plus", "said"),
    [
        ({"_target_": "continual.agents.l2.L2", "l2_wieght": 1}, r"agent.plus.l2_wieght: no such key"),
        ({"_target_": "continual.agents.l2.L2", "l2_weight": -1}, r"agent.plus.l2_weight: must be"),
        ({"_target_": "continual.optimizers.SGD"}, r"agent.plus._target_: .*SGD is not a subclass of Agent"),
    ],
)
def test_a_wrong_second_agent_is_refused(compose, plus, said) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        check({**compose("agent=base")["agent"], "plus": plus}, "agent")


def test_the_second_agent_is_checked_against_the_network() -> None:
    agent = replace(L2(), plus=ReDo())
    network, reason = UNFIT["crelu mlp"]
    with pytest.raises(ConfigError, match=f"^agent: redo .*{reason}"):
        Learner.of(network, agent, OPTIMIZERS["sgd"])


def test_state_keeps_paths_as_keys(compose) -> None:
    config = compose("agent=ewc", "agent@agent.plus=continual_backprop")
    names = tiny.population([config]).replica_state(0)
    assert {"agent/first/anchor/output.bias", "agent/second/hidden1/age"} <= names.keys()
    assert ShrinkAndPerturb().plus is None
