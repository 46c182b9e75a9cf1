"""Steps on tensors without content (device "meta"): what would wait for a GPU needs content, and fails."""

import pytest
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from continual.agents.base import Base
from tests import tiny
from tests.contracts.every import (
    every_agent_with_optimizers,
    every_env,
    every_network,
    of_agent,
    of_network,
    of_optimizer,
)


class OnOneDevice(TorchDispatchMode):
    """Fails where content is copied from another device, which a graph cannot hold; constants are none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = {tensor.device for tensor in tree_leaves((args, result)) if isinstance(tensor, Tensor)}
        is_copy = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        assert not (is_copy and len(devices) > 1), f"{func} copies from another device"
        return result


def step_without_content(config):
    """Lay out batches and do a step of three replicas."""
    population = tiny.population([tiny.vary(config, r) for r in range(3)])
    population.start_task(0)

    def without_content(node):
        return tree_map_only(Tensor, lambda tensor: tensor.to("meta"), node)

    inputs = without_content(population._stepper._inputs)
    keys = without_content(population._env_keys)
    with OnOneDevice(), torch.no_grad():
        vmap(lambda key: population.environment.shuffle(key, 0, 0))(keys)
        population._advance(*inputs)


@every_agent_with_optimizers
def test_of_any_agent_and_optimizer(compose, agent, optimizer):
    step_without_content(compose(*of_agent(agent), *of_optimizer(optimizer, everything_on=True)))


@every_network
def test_of_any_network(images, network):
    step_without_content(tiny.small(images, *of_network(network), "agent=continual_backprop"))


@every_env
def test_of_any_environment(images, env):
    step_without_content(tiny.small(images, f"env={env}"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda bias: bias * bias.sum().item(), "item"),
        (lambda bias: bias[bias > 0], "data-dependent|dynamic"),
        (lambda bias: bias * torch.ones(5).to(bias.device), "copies from another device"),
    ],
    ids=["item", "boolean index", "copy"],
)
def test_what_would_wait_is_found(compose, monkeypatch, fault, says):
    def after_update(self, update, features, context):
        fault(update.params["output.bias"])
        return update

    monkeypatch.setattr(Base, "after_update", after_update)
    with pytest.raises((AssertionError, RuntimeError), match=says):
        step_without_content(compose("agent=base"))
