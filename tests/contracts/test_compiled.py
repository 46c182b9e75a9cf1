"""Compiled steps: pack invariance bit for bit, and the same results as uncompiled but for rounding.

Compiling takes seconds, so two processes do it, beginning with the first test for all that were chosen.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from tests import tiny
from tests.contracts.every import AGENTS, OPTIMIZERS, of_agent, of_optimizer

# Every agent with one optimizer, every optimizer with one agent.
PAIRS = [
    *(pytest.param(of_agent(agent), id=agent) for agent in AGENTS),
    *(
        pytest.param(["agent=l2_init", *of_optimizer(optimizer, everything_on=True)], id=optimizer)
        for optimizer in OPTIMIZERS
    ),
]
AMONG = 2


def begin_worker():
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def with_engine(config, compiled):
    return {**config, "engine": {**config["engine"], "compile": compiled}}


@pytest.fixture(scope="module")
def trained(request, compose, tmp_path_factory):
    """For each pair of agent and optimizer: four replicas together, and one of them alone, both compiled."""
    folder = tmp_path_factory.mktemp("compiled")
    chosen = {
        item.callspec.id: item.callspec.params["overrides"]
        for item in request.session.items
        if item.path == request.path
    }
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), begin_worker) as pool:
        found = {}
        for name, overrides in chosen.items():
            config = compose(*overrides, "env.steps_per_task=30", "network.hidden_layers=1")
            configs = [with_engine(tiny.vary(config, r), True) for r in range(4)]
            packed = pool.submit(tiny.train, configs, folder / name / "packed")
            alone = pool.submit(tiny.train, [configs[AMONG]], folder / name / "alone")
            found[name] = configs, packed, alone
        yield found
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("overrides", PAIRS)
def test_a_compiled_replica(request, tmp_path, trained, overrides):
    configs, packed, alone = trained[request.node.callspec.id]
    (alone,), among = alone.result(), packed.result()[AMONG]
    tiny.assert_equal(alone.state, among.state)
    assert alone.tasks == among.tasks

    (eager,) = tiny.train([with_engine(configs[AMONG], False)], tmp_path)
    assert [row["online_accuracy"] for row in eager.rows] == [row["online_accuracy"] for row in alone.rows]
    tiny.assert_close(alone.state, eager.state, relative=1e-5)
