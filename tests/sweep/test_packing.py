"""Which runs train together."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from continual.config import Replica
from continual.sweep.packed import names_main
from continual.sweep.packing import pack

Compose = Callable[..., dict[str, Any]]


def runs(configs: Sequence[dict[str, Any]], folder: Path) -> list[Replica]:
    return [Replica(config, folder / str(i), {}, "sweep") for i, config in enumerate(configs)]


def packed(
    replicas: Sequence[Replica], largest: int | Callable[[Replica], int], workers: int = 1
) -> list[list[int]]:
    """The numbers of the runs in each population."""
    size_of = largest if callable(largest) else lambda _: largest
    return [[int(run.folder.name) for run in population] for population in pack(replicas, size_of, workers)]


# Runs of one structure, the largest population, workers: the sizes of the populations.
SIZES = [
    (1, 8, 1, [1]),
    (8, 8, 1, [8]),
    (9, 8, 1, [5, 4]),
    (16, 8, 1, [8, 8]),
    (17, 8, 1, [6, 6, 5]),
    (10, 3, 1, [3, 3, 2, 2]),
    (3, 1, 1, [1, 1, 1]),
    # enough for all workers, as far as there are runs
    (8, 8, 2, [4, 4]),
    (7, 100, 3, [3, 2, 2]),
    (2, 8, 4, [1, 1]),
    (17, 8, 2, [6, 6, 5]),
]


@pytest.mark.parametrize(("number", "largest", "workers", "sizes"), SIZES)
def test_one_structure_is_cut_evenly(
    compose: Compose, tmp_path: Path, number: int, largest: int, workers: int, sizes: list[int]
) -> None:
    config = compose()
    replicas = runs([{**config, "seed": seed} for seed in range(number)], tmp_path)
    populations = packed(replicas, largest, workers)
    assert [len(population) for population in populations] == sizes
    assert list(itertools.chain(*populations)) == list(range(number))


def test_structures_are_kept_apart_and_runs_in_order(compose: Compose, tmp_path: Path) -> None:
    agents = ["agent=base", "agent=l2", "agent=l2_init"]
    configs = [compose(agents[i % 3], f"seed={i}") for i in range(9)]
    assert packed(runs(configs, tmp_path), 8) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    # Three populations are enough for three workers, and not for four.
    assert packed(runs(configs, tmp_path), 8, workers=3) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert packed(runs(configs, tmp_path), 8, workers=4) == [[0, 3], [6], [1, 4], [7], [2, 5], [8]]


def test_numbers_do_not_part_runs_but_switching_off_does(compose: Compose, tmp_path: Path) -> None:
    momenta = ["0.9", "0", "0.5", "0.0", "0.1"]
    configs = [
        compose("optimizer=sgd", f"optimizer.momentum={m}", f"optimizer.lr=0.{m[-1]}1") for m in momenta
    ]
    assert packed(runs(configs, tmp_path), 8) == [[0, 2, 4], [1, 3]]


def test_each_structure_has_a_size_of_its_own(compose: Compose, tmp_path: Path) -> None:
    configs = [compose(f"network.hidden_sizes=[{5 if i < 4 else 7}]", f"seed={i}") for i in range(8)]
    populations = packed(runs(configs, tmp_path), lambda run: run.config["network"]["hidden_sizes"][0] - 4)
    assert populations == [[0], [1], [2], [3], [4, 5], [6, 7]]


def test_nothing_to_pack() -> None:
    assert pack([], lambda _: 8, workers=2) == []


@pytest.mark.parametrize("place", ["agent", "agent.plus", "env.dataset", "optimizer.schedule"])
def test_what_only_this_process_can_import_is_noticed_wherever_it_is_named(
    compose: Compose, tmp_path: Path, place: str
) -> None:
    config = compose()
    (run,) = runs([config], tmp_path)
    assert not names_main(run)
    node = config
    for name in place.split("."):
        node[name] = node.get(name) or {}
        node = node[name]
    node["_target_"] = "__main__.Mine"
    assert names_main(run)
