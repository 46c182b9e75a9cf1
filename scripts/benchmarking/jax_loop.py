"""The other way to train many networks at once: JAX, vmap over replicas and scan over steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual import building, random
from continual.agents.base import Base
from continual.agents.l2_init import L2Init
from continual.config import Replica
from continual.envs.image_tasks import ImageTasks, images
from continual.networks.mlp import MLP
from continual.optimizers import SGD

# A call costs some tens of microseconds, whatever it holds; an epoch's batches are drawn beforehand.
STEPS_AT_A_TIME = 100


class JaxLoop:
    """Runs of task 0 with JAX, for an MLP with ReLU, SGD, and the agents base and l2_init.

    Data, batches and numbers are those of the replicas; the images, which all share, are normalised
    beforehand, so a batch is one gather. The accuracy is added up at each step. All in one thread: what pins
    the process to a core before JAX is imported leaves it no more.
    """

    at_a_time = STEPS_AT_A_TIME

    def __init__(self, replicas: Sequence[Replica]) -> None:
        import jax

        prepared = [building.prepare(replica.config) for replica in replicas]
        learner, environment = prepared[0]
        if not isinstance(learner.agent, Base | L2Init) or type(learner.optimizer) is not SGD:
            raise ValueError("the JAX loop has SGD and the agents base and l2_init alone")
        if not isinstance(learner.network, MLP) or not isinstance(environment, ImageTasks):
            raise ValueError("the JAX loop has MLPs and tasks of images alone")
        self._wait: Any = jax.block_until_ready
        x, y = (jax.numpy.array(of) for of in _images(environment))
        rows = jax.numpy.array(np.stack([_rows(r.config["seed"], environment) for r in replicas]))
        widths = [m.weight.shape for m in learner.network.modules() if isinstance(m, torch.nn.Linear)]
        keys = jax.random.split(jax.random.PRNGKey(0), len(replicas))
        params = jax.vmap(lambda key: _weights(jax, key, widths))(keys)
        numbers = [(r.config["optimizer"]["lr"], r.config["agent"].get("l2_weight", 0.0)) for r in replicas]
        lr, l2_weight = (jax.numpy.array(of) for of in zip(*numbers, strict=True))
        # The images are a constant of the program: as an argument they cost it a hundred times its steps.
        run = jax.jit(jax.vmap(_steps_of(jax, x, y)))
        self._state = (params, jax.numpy.zeros(len(replicas)))
        self._rows: Any = rows
        self._next = 0
        self._go: Any = lambda state, batches: run(state, params, lr, l2_weight, batches)

    def run(self, steps: int) -> None:
        """Do so many steps, a multiple of `at_a_time`."""
        if steps % self.at_a_time:
            raise ValueError(f"JAX does {self.at_a_time} steps at a time, not {steps}")
        for _ in range(steps // self.at_a_time):
            if self._next + STEPS_AT_A_TIME > self._rows.shape[1]:
                self._next = 0
            batches = self._rows[:, self._next : self._next + STEPS_AT_A_TIME]
            self._next += STEPS_AT_A_TIME
            self._state = self._go(self._state, batches)
        self._wait(self._state)


def _images(environment: ImageTasks) -> tuple[np.ndarray, np.ndarray]:
    """All training images as the network reads them [N, pixels], and their labels [N]."""
    dataset = environment.dataset
    scale, shift = (torch.tensor(of).reshape(-1, 1, 1) for of in (dataset.scale, dataset.shift))
    x = images(dataset.x_train, scale, shift, torch.arange(len(dataset.x_train)), None).flatten(1)
    return x.numpy(), dataset.y_train.numpy().astype(np.int32)


def _rows(seed: int, environment: ImageTasks) -> np.ndarray:
    """A replica's batches [steps, B] of task 0, as places among all images."""
    key = random.stream(random.key(seed), "environment")
    task = environment.task(environment.draw_stream(key), key, 0)
    pixels = environment.dataset.x_train[0].numel()
    if not torch.equal(task.get("permutation", torch.arange(pixels)), torch.arange(pixels)):
        raise ValueError("the JAX loop permutes no images")
    steps, epochs = 0, list[Tensor]()
    while steps < STEPS_AT_A_TIME:
        epochs.append(environment.shuffle(key, 0, len(epochs)))
        steps += len(epochs[-1])
    return task["rows"][torch.cat(epochs)].numpy().astype(np.int32)


def _weights(jax: Any, key: Any, shapes: Sequence[tuple[int, ...]]) -> list[tuple[Any, Any]]:
    found = []
    for (outputs, inputs), of in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        bound = inputs**-0.5
        weight, bias = jax.random.split(of)
        found.append(
            (
                jax.random.uniform(weight, (inputs, outputs), minval=-bound, maxval=bound),
                jax.random.uniform(bias, (outputs,), minval=-bound, maxval=bound),
            )
        )
    return found


def _steps_of(jax: Any, images: Any, labels: Any) -> Any:
    """(state, initial weights, step size, strength, batches) of one replica to its state."""
    jnp = jax.numpy

    def forward(params: Any, x: Any) -> Any:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    def loss(params: Any, initial: Any, l2_weight: Any, x: Any, y: Any) -> Any:
        logits = forward(params, x)
        mean = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(initial), strict=True)
        return mean + 0.5 * l2_weight * sum(jnp.sum((a - b) ** 2) for a, b in pairs), logits

    def run(state: Any, initial: Any, lr: Any, l2_weight: Any, batches: Any) -> Any:
        def step(state: Any, batch: Any) -> Any:
            params, correct = state
            x, y = images[batch], labels[batch]
            grads, logits = jax.grad(loss, has_aux=True)(params, initial, l2_weight, x, y)
            params = jax.tree.map(lambda weight, grad: weight - lr * grad, params, grads)
            return (params, correct + jnp.mean(logits.argmax(-1) == y)), None

        return jax.lax.scan(step, state, batches)[0]

    return run
