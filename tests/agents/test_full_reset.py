import pytest
import torch

from continual.agents.agent import Agent
from continual.agents.full_reset import FullReset
from continual.agents.head_reset import HeadReset
from continual.agents.shrink_and_perturb import ShrinkAndPerturb
from tests import tiny
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


def at_second_start(config):
    """The state after one task, and that with which the second begins."""
    population = tiny.population([config])
    first = population.replica_state(0)
    population.start_task(0)
    population.advance(20)
    before = population.replica_state(0)
    population.start_task(1)
    return first, before, population.replica_state(0)


@pytest.mark.parametrize("reinit", ["initial", "sample"])
@pytest.mark.parametrize("agent", ["full_reset", "head_reset"])
def test_a_task_starts_with_initial_weights(compose, agent: str, reinit: str) -> None:
    first, before, after = at_second_start(
        compose(f"agent={agent}", f"agent.reinit={reinit}", "network.layer_norm=true")
    )
    for name in (name for name in first if name.startswith("params/")):
        is_reset = agent == "full_reset" or "output" in name
        if not is_reset:
            assert torch.equal(after[name], before[name]), name
        elif reinit == "initial" or "norm" in name:
            assert torch.equal(after[name], first[name]), name
        else:
            assert not torch.equal(after[name], first[name]), name
            assert after[name].abs().max() <= first[name].abs().max() * 2
    assert not any(value.any() for name, value in after.items() if "moment" in name)


def test_the_optimiser_may_stay(compose) -> None:
    _, before, after = at_second_start(compose("agent=head_reset", "agent.reset_optimizer=false"))
    moments = [name for name in before if "moment" in name]
    assert moments
    assert all(torch.equal(before[name], after[name]) for name in moments)


def test_shrink_and_perturb_between_tasks(compose) -> None:
    config = compose(
        "agent=shrink_and_perturb",
        *("agent.every=task", "agent.noise=initial", "agent.shrink=0.8", "agent.perturb_scale=0.8"),
        "network.layer_norm=true",
    )
    first, before, after = at_second_start(config)
    for name in (name for name in first if name.startswith("params/")):
        expected = 0.2 * before[name] + 0.8 * first[name]
        torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-7)


def test_they_know_task_boundaries() -> None:
    assert FullReset().sees_task_starts
    assert HeadReset().sees_task_starts
    assert ShrinkAndPerturb(every="task").sees_task_starts
    assert not ShrinkAndPerturb().sees_task_starts


class PlainBoundary(PlainLoop):
    """Module by module."""

    def start_task(self, batches: object) -> None:
        agent = self.agent
        whole = not isinstance(agent, HeadReset)
        sampled = "sample" in (getattr(agent, "reinit", ""), getattr(agent, "noise", ""))
        for path, module in self.network.named_children():
            if not (whole or path == "output"):
                continue
            if "norm" in path:
                fresh = {"weight": torch.ones(len(module.weight)), "bias": torch.zeros(len(module.bias))}
            elif sampled:
                fresh = self.draw(path)
            else:
                fresh = {kind: self.initial[f"{path}.{kind}"] for kind in ("weight", "bias")}
            for kind, value in fresh.items():
                param = getattr(module, kind).data
                if isinstance(agent, ShrinkAndPerturb):
                    param.mul_(1 - agent.shrink).add_(agent.perturb_scale * value)
                else:
                    param.copy_(value)
        if agent.reset_optimizer:
            self.forget()


PERTURBED = [
    ShrinkAndPerturb(0.8, 0.8, "task", "initial"),
    ShrinkAndPerturb(0.4, 0.2, "task", "initial"),
]


@pytest.mark.parametrize(
    "agents",
    [
        [FullReset("initial")] * 2,
        [FullReset("sample", reset_optimizer=False)] * 2,
        [HeadReset("initial", reset_optimizer=False)] * 2,
        [HeadReset("sample")] * 2,
        PERTURBED,
        [ShrinkAndPerturb(c, 0.1, "task", "sample", reset_optimizer=False) for c in (0.5, 0.2)],
    ],
    ids=["full", "full_sample", "head", "head_sample", "perturb", "perturb_sample"],
)
@pytest.mark.parametrize(("network", "optimizer"), [("mlp_with_norm", "adam"), ("convnet", "sgd")])
def test_equals_a_plain_loop(network: str, optimizer: str, agents: list[Agent]) -> None:
    compare(NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainBoundary, steps_per_task=75)
