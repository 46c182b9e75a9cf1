"""How many replicas fit on a GPU that is only pretended, and how many are fastest on a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from continual import fitting
from continual.config import Replica
from continual.fitting import population_size, size_in_memory, size_on_a_core
from continual.networks.mlp import MLP
from tests import tiny


def test_as_many_replicas_as_memory_holds() -> None:
    def peak(replicas: int) -> int:
        return 2**29 + replicas * 2**27

    assert size_in_memory(80 * 2**30, peak) == 488, "0.8 x 80 - 3 GiB, each 1/8 GiB"
    assert size_in_memory(2**30, peak) == 1
    assert size_in_memory(80 * 2**30, lambda replicas: 2**20) == 1024


def test_the_size_on_a_gpu_is_measured_there(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = tiny.replicas([{**compose(), "device": "cuda"}], tmp_path)
    asked = []

    def peak_memory(replicas: list[Replica], where: torch.device) -> int:
        asked.append((len(replicas), str(where)))
        return len(replicas) * 2**27

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (80 * 2**30, 80 * 2**30))
    monkeypatch.setattr(fitting, "peak_memory", peak_memory)
    assert population_size(run) == 488
    assert asked == [(1, "cuda"), (9, "cuda")]
    run.config["engine"] = {**run.config["engine"], "max_replicas": 5}
    assert population_size(run) == 5


def test_the_size_on_a_cpu_falls_with_the_size_of_the_network() -> None:
    networks = [MLP((1, 28, 28), 10, hidden_sizes=[width, width]) for width in (10, 100, 400, 4000)]
    sizes = [size_on_a_core(network) for network in networks]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] == 16, "of the MLP of the paper"
    assert sizes[-1] == 1
    assert size_on_a_core(nn.Sequential(nn.Conv2d(3, 4, 5))) == 1
