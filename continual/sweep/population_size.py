"""How many replicas a population should have: as many as are fastest on a CPU, as many as fit on a GPU."""

from collections.abc import Callable

import torch
from torch import nn

from continual import training
from continual.config import Replica, device

# Parameters of a population for one CPU core (measured with all cores busy, where a core has 1 MB of L2).
_CACHED_PARAMETER_BYTES = 3 * 2**19
_BYTES_PER_PARAMETER = 4
_MOST_ON_A_CORE = 64

# Beyond this a GPU that is busy with a population gains nothing from more.
_MOST_ON_A_GPU = 1024
# For what is done in groups of replicas once a task, and for what the libraries take.
_RESERVED_BYTES = 3 * 2**30
_SHARE_OF_FREE_MEMORY = 0.8


def population_size(run: Replica) -> int:
    """The most replicas that a population of this run's structure should have on the run's device.

    What engine.max_replicas says or, for `auto`, what was measured: on a CPU by scripts/benchmark.py, on a
    GPU now, by what the memory in use grows by with each replica.
    """
    asked = run.config["engine"]["max_replicas"]
    if asked != "auto":
        return int(asked)
    where = device(run.config["device"])
    if where.type == "cuda":
        free, _ = torch.cuda.mem_get_info(where)
        return size_in_memory(free, lambda replicas: training.peak_memory([run] * replicas, where))
    learner, _ = training.prepare(run.config)
    return size_in_cache(learner.network)


def size_in_cache(network: nn.Module) -> int:
    """How many replicas of this network a CPU core trains fastest, as measured.

    As many as leave parameters, initial values and gradients in the cache: 4 of the paper's MLP. Of networks
    with convolutions 1: the libraries for a CPU are slow at the grouped convolutions that several become.
    """
    if any(isinstance(m, nn.Conv2d) for m in network.modules()):
        return 1
    bytes_each = _BYTES_PER_PARAMETER * sum(p.numel() for p in network.parameters())
    return max(1, min(_MOST_ON_A_CORE, _CACHED_PARAMETER_BYTES // bytes_each))


def size_in_memory(free: int, peak_memory: Callable[[int], int]) -> int:
    """How many replicas fit in so many bytes, when a population of n needs `peak_memory(n)` of them."""
    few, more = 1, 9
    each = (peak_memory(more) - peak_memory(few)) / (more - few)
    room = _SHARE_OF_FREE_MEMORY * free - _RESERVED_BYTES
    return int(max(1, min(_MOST_ON_A_GPU, room // max(each, 1))))
