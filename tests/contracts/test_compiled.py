"""Compiled steps: pack invariance bit for bit, and the same results as uncompiled but for rounding."""

from itertools import cycle

import pytest
import torch

from continual.errors import ConfigError
from tests import tiny
from tests.contracts.every import AGENTS, OPTIMIZERS, of_agent, of_optimizer

# Every agent with one optimizer, every optimizer with several agents: compiling takes seconds.
_CONVNET = ("network=convnet", "network.kernel_sizes=[2]", "network.channels=[3]")
PAIRS = [
    *(
        pytest.param(
            [*of_agent(agent), *of_optimizer(optimizer, everything_on=True)], id=f"{agent} {optimizer}"
        )
        for agent, optimizer in zip(AGENTS, cycle(OPTIMIZERS), strict=False)
    ),
    pytest.param(["agent=l2_init", *_CONVNET], id="convnet"),
    pytest.param(
        ["agent=l2", "optimizer/schedule=cosine", "optimizer.schedule.steps=20"], id="a schedule within tasks"
    ),
    pytest.param([*of_agent("continual_backprop"), *_CONVNET], id="channels of a convnet that are replaced"),
]
AMONG = 2
# The change of outputs in one step is a difference of nearly equal numbers.
_CANCELS = "agent=c_chain"
# Convolutions, singular values and sorting are the library's; everything else is replayed, or a test fails.
NOT_NATIVE = {"network=convnet", "agent=l2_er", "agent=wasserstein"}


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
    is_native = torch.load(alone.folder / "checkpoint.pt", weights_only=True)["native"]
    assert is_native == NOT_NATIVE.isdisjoint(overrides), caplog.text
    tiny.assert_equal(alone.state, among.state)
    assert alone.tasks == among.tasks

    (eager,) = tiny.train([with_engine(configs[AMONG], False)], tmp_path / "eager")
    assert [row["online_accuracy"] for row in eager.rows] == [row["online_accuracy"] for row in alone.rows]
    tiny.assert_close(alone.state, eager.state, relative=1e-3 if _CANCELS in overrides else 1e-5)


@tiny.compiles
def test_a_native_run_resumes_natively_or_not_at_all(tmp_path, compose):
    """In another population, in other chunks; without the native code it is refused and loses nothing."""
    config = with_engine(compose("agent=l2_init", "engine.chunk_steps=7", "network.hidden_sizes=[9]"), True)
    configs = [tiny.vary(config, r) for r in range(2)]
    whole = tiny.train([with_chunks(c, 500) for c in configs], tmp_path / "whole")
    tiny.train_until(2, configs[1:], tmp_path / "stopped")
    with pytest.raises(ConfigError, match="replayed from native code, which is not possible here"):
        tiny.train([with_engine(configs[1], False)], tmp_path / "stopped")
    (resumed,) = tiny.train(configs[1:], tmp_path / "stopped")
    tiny.assert_equal(resumed.state, whole[1].state)
    assert resumed.tasks == whole[1].tasks


@tiny.compiles
def test_a_run_that_was_not_native_does_not_become_so(tmp_path, compose):
    """However it is resumed: compiled by the library, which rounds as before but for the last bit."""
    config = compose("agent=base", "engine.chunk_steps=7", "network.hidden_sizes=[9]")
    tiny.train_until(2, [config], tmp_path)
    (resumed,) = tiny.train([with_engine(config, True)], tmp_path)
    assert torch.load(resumed.folder / "checkpoint.pt", weights_only=True)["native"] is False


def with_chunks(config, steps):
    return {**config, "engine": {**config["engine"], "chunk_steps": steps}}
