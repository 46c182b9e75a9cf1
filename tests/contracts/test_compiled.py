"""Compiled steps: pack invariance bit for bit, and the same results as uncompiled but for rounding."""

import pytest

from tests import tiny
from tests.contracts.every import AGENTS, OPTIMIZERS, of_agent, of_optimizer

# Every agent with one optimizer, every optimizer with one agent: compiling takes seconds.
PAIRS = [
    *(pytest.param(of_agent(agent), id=agent) for agent in AGENTS),
    *(
        pytest.param(["agent=l2_init", *of_optimizer(optimizer, everything_on=True)], id=optimizer)
        for optimizer in OPTIMIZERS
    ),
    pytest.param(["agent=l2_init", "network=convnet", "network.kernel_sizes=[2]"], id="convnet"),
]
AMONG = 2


def with_engine(config, compiled):
    return {**config, "engine": {**config["engine"], "compile": compiled}}


@tiny.compiles
@pytest.mark.parametrize("overrides", PAIRS)
def test_a_compiled_replica(tmp_path, compose, caplog, overrides):
    config = compose(*overrides, "env.steps_per_task=30", "network.hidden_sizes=[9]")
    configs = [with_engine(tiny.vary(config, r), True) for r in range(3)]
    among = tiny.train(configs, tmp_path / "packed")[AMONG]
    (alone,) = tiny.train([configs[AMONG]], tmp_path / "alone")
    assert "uncompiled" not in caplog.text
    tiny.assert_equal(alone.state, among.state)
    assert alone.tasks == among.tasks

    (eager,) = tiny.train([with_engine(configs[AMONG], False)], tmp_path / "eager")
    assert [row["online_accuracy"] for row in eager.rows] == [row["online_accuracy"] for row in alone.rows]
    tiny.assert_close(alone.state, eager.state, relative=1e-5)
