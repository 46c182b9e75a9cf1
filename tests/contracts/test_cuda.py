"""On a real GPU: the results of the CPU, of a population of one and of uncaptured steps; nothing waits.

Skipped where there is no GPU. `pytest -m cuda` runs these alone.
"""

import warnings

import pytest
import torch

from continual import building, fitting, training
from tests import tiny
from tests.contracts.every import AGENTS, every_env, every_network, of_agent, of_network

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

# Products of float32 on a GPU are summed in another order, which also depends on the population's size.
TOLERANCE = 1e-3
STEPS = 200
CAPTURED = [agent for agent in AGENTS if agent != "l2_er"]  # which waits for singular values


def with_engine(config, **engine):
    return {**config, "device": "cuda", "engine": {**config["engine"], **engine}}


def on_cpu(config):
    return {**config, "device": "cpu"}


def long(config):
    """A config with a task of 200 steps."""
    return {**config, "env": {**config["env"], "steps_per_task": STEPS, "num_tasks": 2}}


def assert_parameters_close(one, other, relative=TOLERANCE):
    params = [name for name in one.state if name.startswith("params/")]
    tiny.assert_close({n: one.state[n] for n in params}, {n: other.state[n] for n in params}, relative)


@pytest.mark.parametrize("agent", ["base", "l2_init", "layer_norm", "crelu", "ewc"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_as_on_the_cpu(tmp_path, compose, agent, optimizer):
    """Of agents that replace no units: there the smallest difference may choose another unit."""
    config = long(compose(*of_agent(agent), f"optimizer={optimizer}"))
    (cpu,) = tiny.train([on_cpu(config)], tmp_path / "cpu")
    (gpu,) = tiny.train([with_engine(config, compile=True)], tmp_path / "gpu")
    assert_parameters_close(gpu, cpu)


@pytest.mark.parametrize("compiled", [False, True], ids=["uncompiled", "compiled"])
@pytest.mark.parametrize("agent", CAPTURED)
def test_captured_steps_are_those_without_a_graph(tmp_path, compose, agent, compiled):
    config = long(compose(*of_agent(agent)))
    configs = [tiny.vary(config, r) for r in range(3)]
    captured, plain = (
        tiny.train(
            [with_engine(c, compile=compiled, cuda_graph=graph) for c in configs], tmp_path / str(graph)
        )
        for graph in (True, False)
    )
    for one, other in zip(captured, plain, strict=True):
        tiny.assert_equal(one.state, other.state)
        assert one.tasks == other.tasks


@pytest.mark.parametrize("agent", AGENTS)
def test_compiled_steps_are_the_uncompiled_ones(tmp_path, compose, agent):
    """Of all agents, since in a few steps no other unit is chosen for the difference in rounding."""
    config = compose(*of_agent(agent), "env.steps_per_task=30")
    (compiled,) = tiny.train([with_engine(config, compile=True)], tmp_path / "compiled")
    (plain,) = tiny.train([with_engine(config, compile=False)], tmp_path / "plain")
    assert_parameters_close(compiled, plain)


@pytest.mark.parametrize("agent", ["base", "l2_init", "layer_norm", "crelu", "shrink_and_perturb"])
def test_pack_invariance(tmp_path, compose, agent):
    configs = [with_engine(tiny.vary(long(compose(*of_agent(agent))), r), compile=True) for r in range(4)]
    packed = tiny.train(configs, tmp_path / "packed")
    for r in (0, 3):
        (alone,) = tiny.train([configs[r]], tmp_path / f"alone{r}")
        assert_parameters_close(packed[r], alone)


@every_network
def test_networks(tmp_path, images, network):
    config = long(tiny.small(images, *of_network(network), "agent=l2_init", "optimizer=sgd"))
    (cpu,) = tiny.train([on_cpu(config)], tmp_path / "cpu")
    gpu = tiny.train([with_engine(tiny.vary(config, r), compile=True) for r in range(2)], tmp_path / "gpu")[0]
    assert_parameters_close(gpu, cpu, relative=1e-2)


@every_env
def test_environments(tmp_path, images, env):
    config = tiny.small(images, f"env={env}", "agent=l2_init", "optimizer=sgd")
    (cpu,) = tiny.train([on_cpu(config)], tmp_path / "cpu")
    (gpu,) = tiny.train([with_engine(config)], tmp_path / "gpu")
    assert_parameters_close(gpu, cpu)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precisions(tmp_path, compose, precision):
    config = long(compose("agent=l2_init"))
    (exact,) = tiny.train([with_engine(config)], tmp_path / "float32")
    (rounded,) = tiny.train([with_engine(config, precision=precision)], tmp_path / precision)
    assert rounded.summary["status"] == "completed"
    # Products this small may not be given to the units that round; bfloat16 is visible in any case.
    if precision == "bf16":
        with pytest.raises(AssertionError):
            assert_parameters_close(rounded, exact, relative=1e-5)
    assert_parameters_close(rounded, exact, relative=0.2)


@pytest.mark.parametrize("agent", CAPTURED)
def test_nothing_waits_for_the_gpu_inside_a_task(tmp_path, compose, agent):
    config = with_engine(long(compose(*of_agent(agent), "engine.chunk_steps=50")), compile=True)
    runs = tiny.replicas([tiny.vary(config, r) for r in range(2)], tmp_path)
    learner, environment = building.prepare(config)
    population = building.population(runs, learner, environment)
    population.start_task(0)
    population.advance(50)  # compiles and captures
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Synchronization debug mode")
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                population.advance(50)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_resumed_run_goes_on_as_if_nothing_had_been(tmp_path, compose):
    configs = [with_engine(tiny.vary(compose("engine.chunk_steps=7"), r), compile=True) for r in range(2)]
    whole = tiny.train(configs, tmp_path / "whole")
    tiny.train_until(2, configs, tmp_path / "parts")
    parts = tiny.train(configs, tmp_path / "parts")
    for one, other in zip(whole, parts, strict=True):
        tiny.assert_equal(one.state, other.state)


def test_memory_that_is_too_small_halves_the_population(tmp_path, compose, caplog):
    configs = [with_engine(tiny.vary(compose("network.hidden_sizes=[2000,2000]"), r)) for r in range(4)]
    runs = tiny.replicas(configs, tmp_path)
    one = fitting.peak_memory(runs[:1], torch.device("cuda"))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 3 * one) / total)
    try:
        training.train(runs)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "do not fit into the GPU's memory" in caplog.text
    assert all(tiny.Finished(run.folder).summary["status"] == "completed" for run in runs)


def test_a_finished_population_leaves_no_memory_behind(tmp_path, compose):
    config = with_engine(compose("network.hidden_sizes=[1000,1000]"), compile=True)
    tiny.train([config], tmp_path / "first")
    before = torch.cuda.memory_allocated()
    tiny.train([{**config, "seed": 1}], tmp_path / "second")
    assert torch.cuda.memory_allocated() <= before + 2**20
