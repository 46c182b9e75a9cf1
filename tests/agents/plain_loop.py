"""What a method is compared with: one network, torch.nn, torch.optim and a Python loop."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from continual import random
from continual.agents.agent import Agent, Batch, BatchShape, Step
from continual.learner import Learner
from continual.networks.mlp import MLP
from continual.networks.network import HiddenLayer, Network
from continual.optimizers import SGD, Adam, Optimizer
from continual.schema import number_fields
from continual.tree import Tree
from tests import tiny

BATCH, CLASSES, IMAGE = 6, tiny.CLASSES, (1, 12, 12)
SHAPE = BatchShape((BATCH, *IMAGE), (BATCH, CLASSES))
# Rounding grows from step to step, in some networks tenfold in 30.
_FROM_THE_SAME_AGAIN = 25
# A gradient that is nothing but rounding must not become a step of Adam's full size.
OPTIMIZERS = {
    "sgd": SGD(lr=0.05, momentum=0.9),
    "sgd_without_momentum": SGD(lr=0.02),
    "adam": Adam(lr=3e-3, eps=1e-3),
}


class SmallConvNet(Network):
    """Convolution to convolution to linear to linear, on 12x12 images; both maps are pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)  # a map of 10x10, pooled to 5x5
        self.second = nn.Conv2d(4, 5, 2)  # a map of 4x4, pooled to 2x2
        self.third = nn.Linear(5 * 4, 6)
        self.output = nn.Linear(6, CLASSES)
        self.hidden_layers = (
            HiddenLayer("first", "first", "second", units=4, pool=2),
            HiddenLayer("second", "second", "third", units=5, spread=4, pool=2),
            HiddenLayer("third", "third", "output", units=6),
        )

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        first = F.relu(self.first(x_BCHW))
        second = F.relu(self.second(F.max_pool2d(first, 2)))
        third = F.relu(self.third(F.max_pool2d(second, 2).flatten(1)))
        return self.output(third), {"first": first, "second": second, "third": third}


def small_mlp(layer_norm: bool = False) -> MLP:
    """8 and 8 units, on 12x12 images."""
    return MLP(IMAGE, CLASSES, hidden_sizes=[8, 8], layer_norm=layer_norm)


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": small_mlp,
    "mlp_with_norm": lambda: small_mlp(layer_norm=True),
    "convnet": SmallConvNet,
}


def seen(features: Mapping[str, Tensor]) -> Step:
    """What an agent that looks at features alone is shown of a step."""
    nothing = torch.zeros(0)
    return Step(
        Batch(nothing, nothing, nothing, features, lambda params, x: (nothing, {})),
        {},
        {},
        lambda: {},
        lambda: nothing,
    )


class CountingAdam(torch.optim.Optimizer):
    """Adam with a count of steps for every weight, as continual backprop's authors have it."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, eps: float, correction: str) -> None:
        super().__init__(params, {})
        self.lr, self.eps, self.correction = lr, eps, correction

    @torch.no_grad()
    def step(self) -> None:
        for param in self.param_groups[0]["params"]:
            if param.grad is None:
                continue
            state = self.state[param]
            for name in ("exp_avg", "exp_avg_sq", "count"):
                state.setdefault(name, torch.zeros_like(param))
            first, second, count = (state[name] for name in ("exp_avg", "exp_avg_sq", "count"))
            count.add_(1)
            first.mul_(0.9).add_(0.1 * param.grad)
            second.mul_(0.999).add_(0.001 * param.grad**2)
            if self.correction == "adam":
                corrected = (second / (1 - 0.999 ** count.double())).sqrt()
                param -= (self.lr * (first / (1 - 0.9 ** count.double())) / (corrected + self.eps)).float()
            else:
                scale = (1 - 0.999 ** count.double()).float()
                param -= self.lr * scale * first / (second.sqrt() + self.eps)


class PlainLoop:
    """Trains one network by the book; a method's test overrides `penalty` or `after_step`.

    `key` is the key of the current step, from which the method draws; `replaced` collects (step, layer,
    unit) of all units that were replaced.
    """

    def __init__(self, network: Network, agent: Agent, optimizer: Optimizer, seed: int) -> None:
        self.network, self.agent = copy.deepcopy(network), agent
        self.seed, self.steps_done = seed, 0
        self.replaced: list[tuple[int, str, int]] = []
        if isinstance(optimizer, SGD):
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
                self.network.parameters(), optimizer.lr, optimizer.momentum
            )
        else:
            assert isinstance(optimizer, Adam)
            self.optimizer = CountingAdam(
                self.network.parameters(),
                optimizer.lr,
                optimizer.eps,
                getattr(agent, "adam_correction", "adam"),
            )

    def start(self, params: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(dict(params))
        self.initial = {name: value.clone() for name, value in initial.items()}

    def before_step(self, x: Tensor, y: Tensor) -> None:
        """Changes the parameters that the step begins from."""

    def penalty(self) -> Tensor | float:
        return 0.0

    def transformed(self) -> None:
        """Changes the parameters' gradients before the optimiser sees them."""

    def after_step(self, features: dict[str, Tensor]) -> None: ...

    def start_task(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Before the first step of a task but the first, with the batches of its first epoch."""

    def key_of_step(self) -> Tensor:
        return random.fold(random.stream(random.key(self.seed), "agent"), self.steps_done)

    def step(self, x: Tensor, y: Tensor) -> None:
        self.key = self.key_of_step()
        self.before_step(x, y)
        logits, features = self.network(x)
        loss = F.cross_entropy(logits, y) + self.penalty()
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            self.transformed()
        self.optimizer.step()
        with torch.no_grad():
            self.after_step({name: h.detach() for name, h in features.items()})
        self.steps_done += 1

    def draw(self, module: str) -> dict[str, Tensor]:
        """Fresh parameters of a module by PyTorch's default: U(+-1/sqrt(fan_in))."""
        owner = self.network.get_submodule(module)
        bound = owner.weight[0].numel() ** -0.5
        return {
            name: bound * (2 * random.uniform(random.stream(self.key, f"{module}.{name}"), param.shape) - 1)
            for name, param in owner.named_parameters()
        }

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weights and biases, without those of norms."""
        return ((name, param) for name, param in self.network.named_parameters() if "norm" not in name)

    def origin(self, weight: str) -> Tensor:
        """theta_0 of this weight: where it began or, if the agent samples, a fresh draw."""
        if not getattr(self.agent, "sample_init_values", False):
            return self.initial[weight]
        module, name = weight.rsplit(".")
        return self.draw(module)[name]

    def forget(self) -> None:
        """Let the optimiser start anew."""
        self.optimizer.state.clear()

    def replace(self, layer: HiddenLayer, unit: int, weight: Tensor, bias: Tensor | float) -> None:
        """Give a unit these incoming weights, cut its outgoing ones and forget the optimiser's state."""
        incoming = self.network.get_submodule(layer.incoming)
        outgoing = self.network.get_submodule(layer.outgoing)
        incoming.weight[unit], incoming.bias[unit] = weight, bias
        self._forget(incoming.weight, unit)
        self._forget(incoming.bias, unit)
        if layer.norm is not None:
            norm = self.network.get_submodule(layer.norm)
            norm.weight[unit], norm.bias[unit] = 1, 0
            self._forget(norm.weight, unit)
            self._forget(norm.bias, unit)
        for column in range(unit * layer.spread, (unit + 1) * layer.spread):
            outgoing.weight[:, column] = 0
            self._forget(outgoing.weight, (slice(None), column))
        self.replaced.append((self.steps_done, layer.name, unit))

    def _forget(self, param: Tensor, index: object) -> None:
        for name in ("momentum_buffer", "exp_avg", "exp_avg_sq", "count"):
            if name in self.optimizer.state[param]:
                self.optimizer.state[param][name][index] = 0


class Stepping(NamedTuple):
    """The state of a replica for each of some agents, with seeds 0, 1, ..., and what is done to it."""

    state: Tree
    step: Callable[[Tree, Tensor, Tensor, int], Tree]
    start_task: Callable[[Tree, Sequence[tuple[Tensor, Tensor]], int, int], Tree]


def population(network: Network, agents: Sequence[Agent], optimizer: Optimizer) -> Stepping:
    """Of agents that differ in nothing but numbers that are per replica."""
    learner = Learner.of(network, agents[0], optimizer, batch=SHAPE)
    keys = torch.stack([random.key(seed) for seed in range(len(agents))])
    numbers = {
        part: {name: torch.tensor(values) for name, values in of.items()}
        for part, of in _numbers(agents, optimizer).items()
    }

    def one(state: Tree, numbers: Tree, x: Tensor, y: Tensor, key: Tensor, step: Tensor) -> Tree:
        return learner.step(state, numbers, x, y, key, step)

    def step(state: Tree, x: Tensor, y: Tensor, steps_done: int) -> Tree:
        every = vmap(one, (0, 0, None, None, 0, None))
        return every(state, numbers, x, y, keys, torch.tensor(steps_done))

    def start_task(state: Tree, epoch: Sequence[tuple[Tensor, Tensor]], task: int, steps_done: int) -> Tree:
        def start(state: Tree, numbers: Tree, key: Tensor) -> Tree:
            key = random.fold(key, task)
            return learner.start_task(
                state, numbers, lambda j: (*epoch[j], None), len(epoch), key, torch.tensor(steps_done)
            )

        return vmap(start)(state, numbers, keys)

    with torch.no_grad():
        return Stepping(vmap(learner.init)(keys, numbers), step, start_task)


def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images, of which the first pixels and a drifting rule give the labels."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        x = torch.randn(BATCH, *IMAGE, generator=generator)
        y = (x[:, 0, 0, :CLASSES].argmax(-1) + step // 100) % CLASSES
        yield x, y


def compare(
    network: Network,
    agents: Sequence[Agent],
    optimizer: Optimizer,
    plain: type[PlainLoop],
    steps: int = 300,
    begin: Callable[[Tree], None] = lambda state: None,
    check: Callable[[Tree, Sequence[PlainLoop]], None] = lambda state, loops: None,
    steps_per_task: int | None = None,
) -> list[PlainLoop]:
    """Train a population and a plain loop for each agent, and see the same parameters after every step.

    Now and then the loop goes on from the population's parameters, so that rounding has no time to grow.
    `begin` may change the initial state in place; `check` is called with both after every step. With
    `steps_per_task`, an agent is told when a task starts, whose first epoch has up to 10 batches.
    """
    state, advance, start_task = population(network, agents, optimizer)
    begin(state)
    loops = [plain(network, agent, optimizer, seed) for seed, agent in enumerate(agents)]
    for r, loop in enumerate(loops):
        loop.start(*({name: v[r] for name, v in state[part].items()} for part in ("params", "initial")))
    stream = list(batches(steps))
    for steps_done, (x, y) in enumerate(stream):
        task, step_in_task = divmod(steps_done, steps_per_task or steps)
        if task > 0 and step_in_task == 0:
            epoch = stream[steps_done : steps_done + 10]
            with torch.no_grad():
                state = start_task(state, epoch, task, steps_done)
            for loop in loops:
                key = random.fold(random.key(loop.seed), task)
                loop.key = random.stream(key, "agent at a task's start")
                loop.start_task(epoch)
        with torch.no_grad():
            state = advance(state, x, y, steps_done)
        for r, loop in enumerate(loops):
            loop.step(x, y)
            for name, param in loop.network.named_parameters():
                scale = param.detach().abs().max().clamp(min=1)
                error = (state["params"][name][r] - param.detach()).abs().max() / scale
                assert error < 1e-4, f"replica {r}, step {steps_done}, {name}: off by {error:.1e}"
                if (steps_done + 1) % _FROM_THE_SAME_AGAIN == 0:
                    param.data.copy_(state["params"][name][r])
        check(state, loops)
    return loops


def _numbers(agents: Sequence[Agent], optimizer: Optimizer) -> dict[str, dict[str, list[float]]]:
    return {"agent": _fields(agents), "optimizer": _fields([optimizer] * len(agents))}


def _fields(configured: Sequence[Agent] | Sequence[Optimizer]) -> dict[str, list[float]]:
    first = configured[0]
    found = {
        name: [getattr(of, name) for of in configured]
        for name, field in number_fields(type(first)).items()
        if not (field.zero_is_off and getattr(first, name) == 0)
    }
    for name, value in vars(first).items():
        if dataclasses.is_dataclass(value):
            inner = _fields([getattr(of, name) for of in configured])
            found |= {f"{name}.{key}": values for key, values in inner.items()}
    return found
