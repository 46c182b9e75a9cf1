"""A replica's results do not depend on which replicas share its population: bit for bit on a CPU."""

import pytest
import torch

from tests import tiny
from tests.contracts.every import (
    AGENTS,
    every_agent_with_optimizers,
    every_env,
    every_network,
    every_optimizer,
    of_agent,
    of_network,
    of_optimizer,
)

AMONG = 2


def alone_and_packed(folder, config):
    """The run of one replica by itself, and among three others of other seeds and numbers."""
    configs = [tiny.vary(config, r) for r in range(4)]
    packed = tiny.train(configs, folder / "packed")
    (alone,) = tiny.train([configs[AMONG]], folder / "alone")
    assert len({run.tasks for run in packed}) == 4
    return alone, packed[AMONG]


def assert_same_run(one, other):
    tiny.assert_equal(one.state, other.state)
    assert one.tasks == other.tasks


@every_agent_with_optimizers
def test_every_agent_with_optimizers(tmp_path, compose, agent, optimizer):
    config = compose(*of_agent(agent), *of_optimizer(optimizer), "env.steps_per_task=30")
    assert_same_run(*alone_and_packed(tmp_path, config))


@every_optimizer
def test_every_optimizer_with_what_is_off_by_default(tmp_path, compose, optimizer):
    config = compose("agent=l2_init", *of_optimizer(optimizer, everything_on=True), "env.steps_per_task=30")
    assert_same_run(*alone_and_packed(tmp_path, config))


@every_env
def test_every_env(tmp_path, compose, env):
    config = compose(f"env={env}", "agent=l2_init", "metrics.forgetting=true", "metrics.gradients=true")
    alone, packed = alone_and_packed(tmp_path, config)
    assert_same_run(alone, packed)
    assert (alone.folder / "forgetting.csv").read_text() == (packed.folder / "forgetting.csv").read_text()


@every_network
def test_every_network(tmp_path, compose, images, network):
    config = compose(*of_network(network), f"env.dataset.path={images}", "agent=ewc", "agent.use_fisher=true")
    assert_same_run(*alone_and_packed(tmp_path, config))


@pytest.mark.parametrize(
    "overrides",
    [
        ["env=slowly_changing_regression", "env.target_units=100", "env.test_samples=1000", "network=mlp"],
        ["agent=spectral"],
    ],
    ids=["one output", "a vector of the agent's"],
)
def test_products_with_one_column(tmp_path, compose, overrides):
    """The library takes those of one replica in another way than those of several, where they are large."""
    large = ("network.hidden_sizes=[100,100]", "env.batch_size=16", "metrics.gradients=true")
    assert_same_run(*alone_and_packed(tmp_path, compose(*overrides, *large)))


class Convolving(torch.nn.Module):
    """A user's own network, whose convolution is no module."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.filters = torch.nn.Linear(9 * input_shape[0], 3)
        self.output = torch.nn.Linear(3, num_classes)

    def forward(self, x_BCHW):
        filters = self.filters.weight.reshape(3, -1, 3, 3)
        h = torch.nn.functional.conv2d(x_BCHW, filters).relu().mean((2, 3))
        return self.output(h), {"maps": h}


def test_a_convolution_in_a_users_network(tmp_path, compose, images):
    config = compose(f"env.dataset.path={images}", "agent=l2_init")
    config["network"] = {"_target_": f"{__name__}.Convolving"}
    assert_same_run(*alone_and_packed(tmp_path, config))


def test_what_the_options_do_in_so_few_steps_is_not_nothing(tmp_path, compose):
    """Without this, the tests here would pass if the agents did nothing."""

    def output_bias(agent, *others):
        (run,) = tiny.train([compose(f"agent={agent}", *others)], tmp_path / "_".join([agent, *others]))
        return run.state["params/output.bias"].tolist()

    plain = {}
    for agent in AGENTS:
        _, *overrides = of_agent(agent)
        others = tuple(override for override in overrides if not override.startswith("agent."))
        plain[others] = plain.get(others) or output_bias("base", *others)
        assert agent == "base" or output_bias(agent, *overrides) != plain[others], agent


@pytest.mark.parametrize("seed", [-3, 2**40])
def test_seeds_of_any_size(tmp_path, compose, seed):
    assert_same_run(*alone_and_packed(tmp_path, compose(f"seed={seed}")))
