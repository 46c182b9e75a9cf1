"""In what portions the steps are done changes nothing."""

import pytest

from tests import tiny
from tests.contracts.every import every_agent, of_agent


@every_agent
def test_chunks_of_any_length_give_the_same_run(tmp_path, compose, agent):
    config = compose(*of_agent(agent), "metrics.task_fractions=[0.25,0.6]")
    runs = []
    for chunk_steps in (1, 7, 500):
        config["engine"]["chunk_steps"] = chunk_steps
        configs = [config, tiny.vary(config, 1)]
        runs.append(tiny.train(configs, tmp_path / str(chunk_steps))[0])
    for other in runs[1:]:
        tiny.assert_equal(runs[0].state, other.state)
        assert runs[0].tasks == other.tasks


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_chunks_end_anywhere_in_an_epoch(tmp_path, compose, batch_size):
    config = compose(f"env.batch_size={batch_size}")
    runs = []
    for chunk_steps in (3, 500):
        config["engine"]["chunk_steps"] = chunk_steps
        runs += tiny.train([config], tmp_path / str(chunk_steps))
    assert runs[0].tasks == runs[1].tasks
