"""What a program in C does in one thread, where every step is of one image."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from continual import random
from continual.agents.base import Base
from continual.envs.environment import Environment
from continual.envs.image_tasks import ImageTasks
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks import initialization
from continual.networks.mlp import MLP
from continual.optimizers import SGD, Adam

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp-simd", "-shared", "-fPIC")


class CLoop:
    """A run of task 0 by `online.c`, for an MLP with ReLU, one image a step, the agent base, SGD or Adam.

    Weights, data and batches are those of the population's replica with this seed; the images are normalised
    and permuted beforehand.
    """

    at_a_time = 1

    def __init__(self, learner: Learner, environment: Environment, seed: int) -> None:
        optimizer = learner.optimizer
        if not isinstance(learner.agent, Base) or not isinstance(learner.network, MLP):
            raise ValueError("the C program has MLPs and the agent base alone")
        if not isinstance(environment, ImageTasks) or environment.batch_size != 1:
            raise ValueError("the C program has tasks of images, in batches of one, alone")
        if not isinstance(optimizer, SGD | Adam):
            raise ValueError("the C program has SGD and Adam alone")
        key = random.key(seed)
        of_environment = random.stream(key, "environment")
        task = environment.task(environment.draw_stream(of_environment), of_environment, 0)
        x, y = environment.training_examples(task, 0, of_environment)
        self._images, self._labels = x.flatten(1).contiguous(), y.to(torch.int64).contiguous()
        self._order = torch.cat(
            [environment.shuffle(of_environment, 0, epoch) for epoch in range(2)]
        ).flatten()
        named = initialization.draw(learner.anatomy.distributions, random.stream(key, "weights"))
        weights = [tensor for name, tensor in named.items() if name.endswith("weight")]
        self.params = torch.cat([tensor.flatten() for tensor in named.values()])
        self._widths = torch.tensor([weights[0].shape[1], *(len(weight) for weight in weights)])
        self._moments = torch.zeros(2, len(self.params)) if isinstance(optimizer, Adam) else None
        self._lr = optimizer.lr
        self._train = _built().train
        self._train.restype = ctypes.c_int64
        self.steps = self.correct = 0

    def run(self, steps: int) -> None:
        """Do so many steps."""
        for done in range(0, steps, len(self._order)):
            some, first = min(len(self._order), steps - done), self.steps % len(self._order)
            order = self._order.roll(-first)[:some]
            self.correct += self._train(
                ctypes.c_int64(some),
                *map(_address, (order, self._images, self._labels)),
                ctypes.c_int64(len(self._widths) - 1),
                *map(_address, (self._widths, self.params, self._moments)),
                ctypes.c_int64(len(self.params)),
                ctypes.c_float(self._lr),
                ctypes.c_int64(self.steps),
            )
            self.steps += some


def compiler() -> str | None:
    """The C compiler's path, or None if there is none."""
    return shutil.which("cc")


def _built() -> ctypes.CDLL:
    source = Path(__file__).parent / "online.c"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "online.so"
        command = [compiler() or "cc", *_FLAGS, str(source), "-o", str(path), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ConfigError(f"online: {source.name} cannot be compiled: {done.stderr.strip()[:200]}")
        return ctypes.CDLL(str(path))


def _address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
