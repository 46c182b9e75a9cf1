"""How many replicas a population should have, and what to do with one that does not fit.

As many as stay responsive on a CPU, as many as fit into a GPU's memory.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from continual import building
from continual.config import Replica
from continual.machine import device
from continual.tracking.progress import Snapshot

log = logging.getLogger(__name__)

T = TypeVar("T")

# Parameters of a population for one CPU core: an interrupt waits for a chunk of 500 steps of all replicas,
# which takes about half a second. Replicas step one after another, so their speed is the same in any number.
_PARAMETER_BYTES_ON_A_CORE = 11 * 2**19
_BYTES_PER_PARAMETER = 4
_MOST_ON_A_CORE = 64

# Beyond this a GPU that is busy with a population gains nothing from more.
_MOST_ON_A_GPU = 1024
# For what is done in groups of replicas once a task, and for what the libraries take.
_RESERVED_BYTES = 3 * 2**30
_SHARE_OF_FREE_MEMORY = 0.8


def population_size(run: Replica) -> int:
    """The most replicas that a population of this run's structure should have on the run's device.

    What engine.max_replicas says or, for `auto`, on a CPU what keeps it responsive and on a GPU what fits, by
    what the memory in use grows by with each replica.
    """
    asked = run.config["engine"]["max_replicas"]
    if asked != "auto":
        return int(asked)
    where = device(run.config["device"])
    if where.type == "cuda":
        torch.cuda.empty_cache()  # what an earlier population left counts as used
        free, _ = torch.cuda.mem_get_info(where)
        return size_in_memory(free, lambda replicas: peak_memory([run] * replicas, where))
    learner, _ = building.prepare(run.config)
    return size_on_a_core(learner.network)


def size_on_a_core(network: nn.Module) -> int:
    """How many replicas of this network a CPU core trains together.

    16 of the paper's MLP, and 1 of a network with convolutions, whose steps take as long as those of 16.
    """
    if any(isinstance(m, nn.Conv2d) for m in network.modules()):
        return 1
    bytes_each = _BYTES_PER_PARAMETER * sum(p.numel() for p in network.parameters())
    return max(1, min(_MOST_ON_A_CORE, _PARAMETER_BYTES_ON_A_CORE // bytes_each))


def size_in_memory(free: int, peak_memory: Callable[[int], int]) -> int:
    """How many replicas fit in so many bytes, when a population of n needs `peak_memory(n)` of them."""
    few, more = 1, 9
    of_few = peak_memory(few)  # first: what libraries take once is no replica's
    each = (peak_memory(more) - of_few) / (more - few)
    room = _SHARE_OF_FREE_MEMORY * free - _RESERVED_BYTES
    return int(max(1, min(_MOST_ON_A_GPU, room // max(each, 1))))


def peak_memory(replicas: Sequence[Replica], where: torch.device) -> int:
    """The bytes on a GPU that these replicas need for a step, uncompiled, as one population."""
    learner, environment = building.prepare(replicas[0].config)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(where)
    torch.cuda.reset_peak_memory_stats(where)
    population = building.population(replicas, learner, environment, compiled=False)
    population.start_task(0)
    population.advance(1)
    peak = torch.cuda.max_memory_allocated(where) - before
    population.release()
    del population  # and with it its data: workers that train beside this process need the memory
    torch.cuda.empty_cache()
    return peak


def in_halves(
    replicas: Sequence[Replica],
    train: Callable[[Sequence[Replica], Callable[[Snapshot], None]], list[T]],
    report: Callable[[Snapshot], None],
) -> list[T]:
    """Train the first half of a population that does not fit and then the second; reported as one."""
    torch.cuda.empty_cache()
    middle = (len(replicas) + 1) // 2
    log.warning(
        "%d replicas do not fit into the GPU's memory: training %d and then %d; engine.max_replicas=%d "
        "starts like that.",
        len(replicas),
        middle,
        len(replicas) - middle,
        middle,
    )
    outcomes: list[T] = []
    for half in (replicas[:middle], replicas[middle:]):
        done = len(outcomes) / len(replicas)
        share = len(half) / len(replicas)

        def report_part(snapshot: Snapshot, done: float = done, share: float = share) -> None:
            report(
                replace(
                    snapshot,
                    replicas=len(replicas),
                    tasks_done=int(done * snapshot.num_tasks + share * snapshot.tasks_done),
                    steps_done=round(done * snapshot.num_steps + share * snapshot.steps_done),
                )
            )

        outcomes += train(half, report_part)
    return outcomes
