"""Which runs of a sweep train together: those of one structure, in populations of a size that is fast."""

import math
from collections.abc import Callable, Sequence

from continual.config import Replica
from continual.identity import structure
from continual.tracking import run_status


def pack(replicas: Sequence[Replica], size_of: Callable[[Replica], int], workers: int) -> list[list[Replica]]:
    """Cut the replicas into populations of equal structure: evenly, and enough to keep all workers busy.

    `size_of` gives the largest population of a replica's structure. Replicas keep their order. Runs that
    go on from checkpoints train with those that go on from the same point.
    """
    groups: dict[tuple[object, ...], list[Replica]] = {}
    for replica in replicas:
        key = (structure(replica.config), run_status.resume_point(replica))
        groups.setdefault(key, []).append(replica)
    populations = []
    for group in groups.values():
        pieces = math.ceil(len(group) / size_of(group[0]))
        if len(groups) < workers:
            pieces = max(pieces, min(len(group), math.ceil(workers / len(groups))))
        populations += _evenly(group, pieces)
    return populations


def by_position(population: Sequence[Replica]) -> list[list[Replica]]:
    """A population cut into those that go on from the same point."""
    groups: dict[object, list[Replica]] = {}
    for replica in population:
        groups.setdefault(run_status.resume_point(replica), []).append(replica)
    return list(groups.values())


def _evenly(group: list[Replica], pieces: int) -> list[list[Replica]]:
    """Pieces whose sizes differ by one at most, so that few different sizes have to be compiled."""
    short, longer = divmod(len(group), pieces)
    cut, start = [], 0
    for piece in range(pieces):
        stop = start + short + (piece < longer)
        cut.append(group[start:stop])
        start = stop
    return cut
