import copy

import torch
from torch import Tensor

from continual.agents.hare_and_tortoise import HareAndTortoise
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare


class PlainHareAndTortoise(PlainLoop):
    def start(self, *tensors: dict[str, Tensor]) -> None:
        super().start(*tensors)
        self.tortoise = copy.deepcopy(self.network)

    def after_step(self, features: dict[str, Tensor]) -> None:
        m = self.agent.momentum
        for slow, fast in zip(self.tortoise.parameters(), self.network.parameters(), strict=True):
            slow.copy_(m * slow + (1 - m) * fast)
        if (self.steps_done + 1) % self.agent.period == 0:
            self.network.load_state_dict(self.tortoise.state_dict())


def same_tortoise(state, loops) -> None:
    for r, loop in enumerate(loops):
        for name, slow in loop.tortoise.named_parameters():
            torch.testing.assert_close(state["agent"][name][r], slow.detach(), rtol=1e-4, atol=1e-5)


def test_equals_a_plain_loop() -> None:
    for network in ("mlp_with_norm", "convnet"):
        agents = [HareAndTortoise(0.9, 7), HareAndTortoise(0.5, 11)]
        compare(
            NETWORKS[network](),
            agents,
            OPTIMIZERS["adam"],
            PlainHareAndTortoise,
            check=same_tortoise,
        )


def test_the_tortoise_is_measured() -> None:
    fast, slow = {"w": torch.ones(1)}, {"w": torch.zeros(1)}
    assert HareAndTortoise().evaluated(fast, slow) is slow
