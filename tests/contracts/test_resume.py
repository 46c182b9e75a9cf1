"""A run that was stopped or killed and then resumed equals the run that was not."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from continual import cpu, training
from continual.population import Population
from tests import tiny
from tests.contracts.every import every_agent, every_env, of_agent, of_network
from tests.sweep.subprocesses import KILLS


def position(folder):
    """The task and the step in it of the newest checkpoint; None while there is none."""
    try:
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    except FileNotFoundError:
        return None
    return saved["task"], saved["step_in_task"]


def assert_same_run(one, other):
    tiny.assert_equal(one.state, other.state)
    assert one.tasks == other.tasks
    if (other.folder / "forgetting.csv").exists():
        assert (one.folder / "forgetting.csv").read_text() == (other.folder / "forgetting.csv").read_text()
    volatile = {"wall_seconds", "replicas"}
    summaries = [{k: v for k, v in run.summary.items() if k not in volatile} for run in (one, other)]
    assert summaries[0] == summaries[1]


@every_agent
def test_every_agent_goes_on_in_another_population(tmp_path, compose, agent):
    config = compose(*of_agent(agent), "engine.chunk_steps=7")
    configs = [tiny.vary(config, r) for r in range(3)]
    whole = tiny.train(configs, tmp_path / "whole")

    tiny.train_until(2, configs, tmp_path / "stopped")
    assert position(tmp_path / "stopped" / "1") == (0, 14)
    (tmp_path / "stopped" / "1").rename(tmp_path / "0")
    tiny.train_until(2, configs[1:2], tmp_path)
    assert position(tmp_path / "0") == (1, 7)
    (resumed,) = tiny.train(configs[1:2], tmp_path)
    assert_same_run(resumed, whole[1])


@every_env
def test_every_env_goes_on_in_the_middle_of_a_task(tmp_path, compose, env):
    config = compose(f"env={env}", "engine.chunk_steps=7", "metrics.forgetting=true")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(4, [config], tmp_path / "stopped")
    assert position(tmp_path / "stopped" / "0") == (1, 7)
    assert_same_run(tiny.train([config], tmp_path / "stopped")[0], whole)


@tiny.compiles
def test_a_stop_while_steps_are_compiled_leaves_all_as_it_was(tmp_path, compose, monkeypatch):
    """A signal that a whole group of processes gets ends the compiler as well."""

    def ended(*_):
        raise cpu.Unavailable("it cannot be recorded")

    config = compose("agent=l2_init", "engine.chunk_steps=7", "engine.compile=true")
    (whole,) = tiny.train([config], tmp_path / "whole")
    for before in (None, (0, 7)):
        with monkeypatch.context() as patched:
            patched.setattr(cpu, "Replay", ended)
            with pytest.raises(training.Interrupted):
                tiny.train([config], tmp_path / "stopped", should_stop=lambda: True)
        assert position(tmp_path / "stopped" / "0") == before
        if before is None:
            tiny.train_until(1, [config], tmp_path / "stopped")
    (resumed,) = tiny.train([config], tmp_path / "stopped")
    assert_same_run(resumed, whole)
    assert torch.load(resumed.folder / "checkpoint.pt", weights_only=True)["native"]


def test_a_stop_in_a_later_task_loses_nothing_where_there_is_no_native_code(tmp_path, compose, monkeypatch):
    monkeypatch.setattr(Population, "lacks_native", True)
    tiny.train_until(5, [compose("engine.chunk_steps=7")], tmp_path)  # the first time before the first step
    assert position(tmp_path / "0") == (1, 7)


def test_a_convolutional_network_goes_on(tmp_path, compose, images):
    config = compose(*of_network("convnet"), f"env.dataset.path={images}", "engine.chunk_steps=7")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(2, [config], tmp_path / "stopped")
    assert_same_run(tiny.train([config], tmp_path / "stopped")[0], whole)


@pytest.mark.parametrize("pause", range(1, 7))
def test_every_pause_is_a_point_to_go_on_from(tmp_path, compose, pause):
    """Also those at a fraction of a task and at its end; and stopping twice at the same one."""
    config = compose(
        "agent=ewc",
        "engine.chunk_steps=7",
        "metrics.task_fractions=[0.35,0.5]",
        "metrics.forgetting=true",
        "metrics.gradients=true",
    )
    (whole,) = tiny.train([config], tmp_path / "whole")
    assert "test_accuracy@0.35" in whole.tasks
    tiny.train_until(pause, [config], tmp_path / "stopped")
    tiny.train_until(1, [config], tmp_path / "stopped")
    assert_same_run(tiny.train([config], tmp_path / "stopped")[0], whole)


def test_runs_that_were_apart_go_on_together(tmp_path, compose):
    """From the latest point that all of them have been at."""
    config = compose("engine.chunk_steps=7")
    configs = [tiny.vary(config, r) for r in range(2)]
    whole = tiny.train(configs, tmp_path / "whole")
    for replica, pauses in ((0, 1), (1, 4)):
        tiny.train_until(pauses, [configs[replica]], tmp_path / f"alone{replica}")
        (tmp_path / f"alone{replica}" / "0").rename(tmp_path / str(replica))
    for resumed, other in zip(tiny.train(configs, tmp_path), whole, strict=True):
        assert_same_run(resumed, other)


def test_a_checkpoint_of_another_config_is_left_alone(tmp_path, compose):
    config = compose("engine.chunk_steps=7")
    tiny.train_until(2, [config], tmp_path / "resumed")
    config["seed"] += 1
    (fresh,) = tiny.train([config], tmp_path / "fresh")
    (resumed,) = tiny.train([config], tmp_path / "resumed")
    assert_same_run(resumed, fresh)


def test_a_run_that_has_diverged_stays_so(tmp_path, compose):
    configs = [
        compose("engine.chunk_steps=7", "optimizer=sgd", f"optimizer.lr={lr}") for lr in ("1e6", "0.1")
    ]
    whole = tiny.train(configs, tmp_path / "whole")
    assert whole[0].summary["status"] == "diverged"
    tiny.train_until(5, configs, tmp_path / "stopped")
    for resumed, other in zip(tiny.train(configs, tmp_path / "stopped"), whole, strict=True):
        assert_same_run(resumed, other)


def test_a_population_that_has_diverged_as_a_whole_stays_so(tmp_path, compose):
    """Its next task is not started: the agent would act on it."""
    config = compose("agent=full_reset", "engine.chunk_steps=7", "optimizer=sgd", "optimizer.lr=1e6")
    (whole,) = tiny.train([config], tmp_path / "whole")
    assert whole.summary["status"] == "diverged"
    tiny.train_until(3, [config], tmp_path / "stopped")
    assert position(tmp_path / "stopped" / "0") == (1, 0)
    assert_same_run(tiny.train([config], tmp_path / "stopped")[0], whole)


def test_a_process_that_is_killed_goes_on_with_the_same_command(tmp_path, npz):
    overrides = [
        *tiny.OVERRIDES,
        "agent=redo",
        "agent.recycle_period=9",
        "env.steps_per_task=150",
        f"env.dataset.path={npz}",
        "engine.checkpoint_minutes=0",
        "engine.chunk_steps=10",
    ]
    folder = tmp_path / "killed"
    script = Path(__file__).parents[2] / "scripts" / "train.py"
    command = [sys.executable, str(script), *overrides, f"hydra.run.dir={folder}"]

    config = tiny.compose(*overrides)
    config["engine"] |= {"chunk_steps": 500, "checkpoint_minutes": 5.0}
    (whole,) = tiny.train([config], tmp_path / "whole")

    def check(run):
        assert run.summary["status"] == "completed"
        assert run.tasks == whole.tasks
        tiny.assert_equal(run.state, whole.state)

    draw, kills = random.Random(0), 0
    while kills < KILLS:
        # First in the second task, then wherever it is.
        after = (position(folder) or (0, 0)) if kills else (1, 20)
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path
        ) as process:
            patience = time.monotonic() + 120
            while process.poll() is None and not (position(folder) or (0, 0)) > after:
                assert time.monotonic() < patience
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.2) if kills else 0)
            process.kill()
            said = process.communicate()[1].decode()
        if process.returncode == -signal.SIGKILL:
            kills += 1
            assert kills > 1 or not (folder / "summary.json").exists()
        else:
            assert process.returncode == 0, said
            assert kills, said
            check(tiny.Finished(folder))
            shutil.rmtree(folder)

    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    check(tiny.Finished(folder))
