"""The baseline: one network trained by the loop that a plain PyTorch script would have."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from continual import random
from continual.agents.base import Base
from continual.agents.l2_init import L2Init
from continual.envs.environment import Environment
from continual.envs.image_tasks import ImageTasks
from continual.learner import Learner
from continual.networks import initialization
from continual.optimizers import SGD, Adam


class PlainLoop:
    """One run of task 0 with torch.nn, autograd and torch.optim, for the agents base and l2_init.

    Weights, data and batches are those of the population's replica with this seed. The images are
    normalised and permuted beforehand, so a batch is one gather; the accuracy is read at each step. With
    `compiled` the loss and its gradient pass through torch.compile.
    """

    def __init__(
        self,
        learner: Learner,
        environment: Environment,
        seed: int,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        if not isinstance(learner.agent, Base | L2Init):
            raise ValueError(f"there is no plain loop for {type(learner.agent).__name__}")
        if not isinstance(environment, ImageTasks):
            raise ValueError(f"there is no plain loop for {type(environment).__name__}")
        key = random.key(seed)
        self._environment, self._key = environment, random.stream(key, "environment")
        task = environment.task(environment.draw_stream(self._key), self._key, 0)
        x_NCHW, y_N = environment.training_examples(task, 0, self._key)
        self._x_NCHW, self._y_N = x_NCHW.to(device), y_N.to(device)

        self._network = copy.deepcopy(learner.network)
        params = initialization.draw(learner.anatomy.distributions, random.stream(key, "weights"))
        self._network.load_state_dict(params)
        self._network.to(device)
        named = dict(self._network.named_parameters())
        self._weights = [named[name] for name in learner.anatomy.weights]
        self._initial = [weight.detach().clone() for weight in self._weights]
        self._l2_weight = learner.agent.l2_weight if isinstance(learner.agent, L2Init) else None
        self._optimizer = _torch_optimizer(learner, self._network)
        self._objective = torch.compile(self._eager_objective) if compiled else self._eager_objective
        self._epoch = 0
        self._batches: list[Tensor] = []
        self.steps = 0
        self.correct = 0.0

    at_a_time = 1

    def run(self, steps: int) -> None:
        """Do so many steps."""
        for _ in range(steps):
            self.step()

    def step(self) -> Tensor:
        """One step; returns the loss on its batch, 0-d, without the penalty."""
        if not self._batches:
            shuffled = self._environment.shuffle(self._key, 0, self._epoch).to(self._y_N.device)
            self._batches = list(shuffled.flip(0))
            self._epoch += 1
        batch = self._batches.pop()
        x_BCHW, y_B = self._x_NCHW[batch], self._y_N[batch]
        total, loss, accuracy = self._objective(x_BCHW, y_B)
        self.correct += accuracy.item()
        self._optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.steps += 1
        return loss.detach()

    def _eager_objective(self, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss with the penalty, without, and the accuracy."""
        logits_BK, _ = self._network(x_BCHW)
        total = loss = F.cross_entropy(logits_BK, y_B)
        if self._l2_weight is not None:
            pairs = zip(self._weights, self._initial, strict=True)
            total = loss + self._l2_weight / 2 * sum(((w - initial) ** 2).sum() for w, initial in pairs)
        return total, loss, (logits_BK.argmax(1) == y_B).float().mean()


def _torch_optimizer(learner: Learner, network: nn.Module) -> torch.optim.Optimizer:
    ours = learner.optimizer
    if isinstance(ours, SGD):
        return torch.optim.SGD(
            network.parameters(),
            lr=ours.lr,
            momentum=ours.momentum,
            weight_decay=ours.weight_decay,
            nesterov=ours.nesterov,
        )
    if isinstance(ours, Adam):
        beta1, beta2 = ours.betas
        return torch.optim.Adam(
            network.parameters(),
            lr=ours.lr,
            betas=(beta1, beta2),
            eps=ours.eps,
            weight_decay=ours.weight_decay,
        )
    raise ValueError(f"there is no plain loop for {type(ours).__name__}")
