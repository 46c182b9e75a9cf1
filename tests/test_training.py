import itertools
import json
import logging
import math
import os
import platform
from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from torch.func import functional_call
from torch.nn import functional as F

import continual
from continual import building, pausing, random, training
from continual.agents.agent import Agent
from continual.config import num_steps
from continual.errors import ConfigError, UserError
from continual.identity import config_hash
from continual.metrics import TASK_MEASURES
from continual.networks import initialization
from continual.population import Population
from continual.tracking import run_status
from continual.tracking.run_folder import RunFolder
from continual.training import Outcome
from tests import tiny
from tests.datasets.writers import random_arrays, write_npz

SUMMARY = {
    "status",
    "score",
    "score_name",
    "higher_is_better",
    "total_average_online_accuracy",
    "num_tasks",
    "steps",
    "wall_seconds",
    "replicas",
    "config_hash",
    "data_fingerprint",
    "versions",
    "git_commit",
    "git_diff",
}


def test_the_summary_of_a_run(tmp_path, compose):
    configs = [tiny.vary(compose(), r) for r in range(2)]
    for run, config in zip(tiny.train(configs, tmp_path), configs, strict=True):
        summary = run.summary
        assert set(summary) == SUMMARY
        assert summary["status"] == "completed"
        assert summary["total_average_online_accuracy"] == pytest.approx(
            sum(row["online_accuracy"] for row in run.rows) / 2, rel=1e-8
        )
        assert (summary["num_tasks"], summary["steps"], summary["replicas"]) == (2, 40, 2)
        assert isinstance(summary["wall_seconds"], float)
        assert 0 < summary["wall_seconds"] < 600
        assert summary["config_hash"] == config_hash(config)
        assert summary["versions"] == {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "continual": continual.__version__,
        }
        assert summary["git_commit"] is None or len(summary["git_commit"]) == 40


def test_the_table_of_a_run(tmp_path, compose):
    (run,) = tiny.train([compose("env=permuted_mnist", "env.num_tasks=3")], tmp_path)
    table = pd.read_csv(run.folder / "tasks.csv", keep_default_na=False)
    layers, modules = ("hidden0", "hidden1"), ("hidden0", "hidden1", "output")
    assert list(table.columns) == [
        *("task", "task_type", "step", "online_accuracy", "online_loss", "test_accuracy"),
        *TASK_MEASURES,
        *(f"{measure}/{layer}" for measure in TASK_MEASURES[:4] for layer in layers),
        *(f"{measure}/{module}" for measure in TASK_MEASURES[4:] for module in modules),
    ]
    assert table["task"].tolist() == [0, 1, 2]
    assert table["task_type"].tolist() == ["", "", ""]
    assert table["step"].tolist() == [20, 40, 60]
    for name in ("online_accuracy", "test_accuracy", "dead_unit_fraction", "dormant_unit_fraction"):
        assert table[name].between(0, 1).all(), name
        assert table[name].nunique() > 1 or "unit" in name
    for name in ("srank", "effective_rank"):
        assert table[name].between(1, 9).all(), name
        means = table[[f"{name}/{layer}" for layer in layers]].mean(axis=1)
        assert table[name].tolist() == pytest.approx(means.tolist())
    # Every accuracy is a count of the 20 batches of 7, and of the 15 test images.
    assert (table["online_accuracy"] * 140).tolist() == pytest.approx(
        (table["online_accuracy"] * 140).round()
    )
    assert (table["test_accuracy"] * 15).tolist() == pytest.approx((table["test_accuracy"] * 15).round())


def test_what_else_can_be_measured(tmp_path, compose):
    config = compose(
        "env=permuted_mnist",
        "env.num_tasks=3",
        "metrics.task_fractions=[0.25,0.5]",
        "metrics.gradients=true",
        "metrics.forgetting=true",
        "metrics.sample_plasticity=true",
        "metrics.extra=[approximate_rank,rarely_active_unit_fraction]",
    )
    (run,) = tiny.train([config], tmp_path)
    table = pd.read_csv(run.folder / "tasks.csv")
    for name in ("online_accuracy", "test_accuracy"):
        assert table[f"{name}@0.25"].between(0, 1).all()
        assert not table[f"{name}@0.25"].equals(table[name])
    assert table["sample_plasticity"].between(0, 1, inclusive="neither").all()
    assert table["approximate_rank/hidden0"].between(1, 9).all()
    assert table["rarely_active_unit_fraction"].equals(table["dead_unit_fraction"])  # with 15 test images
    assert (table["gradient_norm"] > 0).all()
    assert (table["gradient_norm"] ** 2).tolist() == pytest.approx(
        (table[[f"gradient_norm/{m}" for m in ("hidden0", "hidden1", "output")]] ** 2).sum(axis=1).tolist()
    )
    accuracy = pd.read_csv(run.folder / "forgetting.csv", index_col="task").to_numpy()
    assert accuracy.shape == (3, 3)
    assert accuracy.diagonal().tolist() == table["test_accuracy"].tolist()
    assert [math.isnan(accuracy[k, m]) for k in range(3) for m in range(k + 1, 3)] == [True] * 3
    differences = [accuracy[2, m] - accuracy[m, m] for m in range(2)]
    assert run.summary["backward_transfer"] == pytest.approx(sum(differences) / 2)
    one_step = [accuracy[m + 1, m] - accuracy[m, m] for m in range(2)]
    assert run.summary["one_step_backward_transfer"] == pytest.approx(sum(one_step) / 2)


def test_fractions_that_fall_on_one_step_have_a_column_each(tmp_path, compose):
    (run,) = tiny.train([compose("metrics.task_fractions=[0.2,0.21,0.24,0.99]")], tmp_path)
    table = pd.read_csv(run.folder / "tasks.csv")
    assert table["online_accuracy@0.2"].equals(table["online_accuracy@0.21"])
    assert table["test_accuracy@0.2"].equals(table["test_accuracy@0.21"])
    assert "test_accuracy@0.24" in table
    assert table["test_accuracy@0.99"].equals(table["test_accuracy"])


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_a_run_that_its_last_step_destroyed_has_diverged(tmp_path, compose, num_tasks):
    """The loss before that step is finite, and the largest of logits that are NaN is no answer."""
    config = compose("optimizer=sgd", "optimizer.lr=1e38", "env.steps_per_task=1")
    config["env"]["num_tasks"] = num_tasks
    (run,) = tiny.train([config], tmp_path)
    assert (run.summary["status"], run.summary["diverged_at_step"]) == ("diverged", 1)
    assert run.tasks == ""


def test_only_scored_tasks_count_in_the_total(tmp_path, compose):
    (run,) = tiny.train([compose("env=easy_hard_cifar100", "env.num_tasks=3")], tmp_path)
    assert [row["task_type"] for row in run.rows] == ["hard", "easy", "hard"]
    hard = [row["online_accuracy"] for row in run.rows if row["task_type"] == "hard"]
    assert run.summary["total_average_online_accuracy"] == pytest.approx(sum(hard) / 2, rel=1e-8)


def test_train_returns_how_the_runs_ended(tmp_path, compose):
    config = compose("optimizer=sgd")
    configs = [config, tiny.vary(config, 1)]
    configs[1]["optimizer"]["lr"] = 1e6
    population = tiny.replicas(configs, tmp_path)
    completed, diverged = training.train(population)
    summary = json.loads((tmp_path / "0" / "summary.json").read_text())
    name = "total_average_online_accuracy"
    assert summary["score_name"] == name
    assert completed == Outcome("completed", summary[name], name)
    assert diverged == Outcome("diverged", None, name)
    assert [run_status.outcome_of(replica) for replica in population] == [completed, diverged]
    assert num_steps(population[0].config) == 40


def test_wall_seconds_go_on_over_a_resume(tmp_path, compose):
    config = compose("engine.chunk_steps=7")
    tiny.train_until(2, [config], tmp_path)
    file = tmp_path / "0" / "checkpoint.pt"
    saved = torch.load(file, weights_only=True)
    assert 0 < saved["recorded"]["wall_seconds"] < 600
    saved["recorded"]["wall_seconds"] += 1000
    RunFolder(file.parent).save_checkpoint(saved)
    (run,) = tiny.train([config], tmp_path)
    assert run.summary["wall_seconds"] > saved["recorded"]["wall_seconds"] > 1000


def test_reports_say_how_far_the_population_is(tmp_path, compose):
    heard = []
    training.train(tiny.replicas([compose(), compose("seed=1")], tmp_path), heard.append)
    first, last = heard[0], heard[-1]
    assert (first.steps_done, first.tasks_done, first.num_steps, first.num_tasks) == (0, 0, 40, 2)
    assert first.online is None
    assert (last.steps_done, last.tasks_done, last.replicas) == (40, 2, 2)
    assert 0 <= last.online <= 1


def test_the_first_report_after_a_resume_says_where_the_run_stands(tmp_path, compose):
    config = compose("engine.chunk_steps=7", "env.num_tasks=3")
    tiny.train_until(5, [config], tmp_path)
    heard = []
    training.train(tiny.replicas([config], tmp_path), heard.append)
    assert (heard[0].tasks_done, heard[0].steps_done) == (1, 34)


def test_the_last_report_of_runs_that_diverged_says_that_nothing_is_left(tmp_path, compose):
    heard = []
    config = compose("optimizer=sgd", "optimizer.lr=1e6", "env.num_tasks=3")
    training.train(tiny.replicas([config], tmp_path), heard.append)
    assert (heard[-1].tasks_done, heard[-1].steps_done) == (3, 60)


@pytest.mark.parametrize(
    "overrides",
    [
        ["env.batch_size=41", "env.samples_per_task=40"],
        ["env.samples_per_task=61"],
        ["optimizer=sgd", "optimizer.nesterov=true"],
        ["optimizer.lr=-1"],
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(tmp_path, compose, overrides):
    with pytest.raises(ConfigError):
        tiny.train([compose(*overrides)], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_populations_share_one_copy_of_the_data(compose):
    _, one = building.prepare(compose("agent=l2"))
    _, other = building.prepare(compose("optimizer=sgd", "seed=3"))
    assert one.dataset is other.dataset


def test_short_runs_are_not_compiled_and_a_missing_compiler_is_said(tmp_path, compose, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        (auto,) = tiny.train([compose("engine.compile=auto")], tmp_path / "auto")
        assert not caplog.records
        (asked,) = tiny.train([compose("engine.compile=true")], tmp_path / "asked")
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("there is no C++ compiler 'no-such-compiler': steps run uncompiled")
    assert asked.tasks == auto.tasks


@dataclass(frozen=True)
class Failing(Agent):
    """Fails in its second task, as long as the file `fails` is there."""

    fails: str

    def end_task(self, weights, state, squared_gradients):
        if os.path.exists(self.fails):
            raise RuntimeError("the agent has a fault")
        return state


def test_a_run_that_fails_says_why_and_can_be_tried_again(tmp_path, compose):
    config = compose("engine.chunk_steps=7")
    config["agent"] = {"_target_": f"{__name__}.Failing", "fails": str(tmp_path / "fails")}
    (tmp_path / "fails").touch()
    with pytest.raises(RuntimeError, match="the agent has a fault"):
        tiny.train([config], tmp_path)
    run = tiny.Finished(tmp_path / "0")
    assert set(run.summary) == SUMMARY | {"error"}
    assert run.summary["status"] == "failed"
    assert run.summary["error"].startswith("Traceback")
    assert "the agent has a fault" in run.summary["error"]
    assert run_status.outcome_of(tiny.replicas([config], tmp_path)[0]) is None

    (tmp_path / "fails").unlink()
    (run,) = tiny.train([config], tmp_path)
    assert set(run.summary) == SUMMARY
    assert run.summary["status"] == "completed"


def test_a_finished_run_keeps_its_last_checkpoint_only(tmp_path, compose):
    (run,) = tiny.train([compose("engine.checkpoint_minutes=0")], tmp_path)
    names = {path.name for path in run.folder.iterdir() if not path.name.startswith(".")}
    assert names == {"tasks.csv", "summary.json", "checkpoint.pt"}


def damage(file, how):
    match how:
        case "truncated":
            file.write_bytes(file.read_bytes()[:2000])
        case "overwritten":
            content = bytearray(file.read_bytes())
            content[: len(content) // 4 : 7] = b"x" * len(content[: len(content) // 4 : 7])
            file.write_bytes(content)
        case "garbage":
            file.write_bytes(b"not a checkpoint at all")
        case "empty":
            file.write_bytes(b"")


@pytest.mark.parametrize("how", ["truncated", "overwritten", "garbage", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, compose, caplog, how):
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(2, [config], tmp_path)
    damage(tmp_path / "0" / "checkpoint.pt", how)
    with caplog.at_level(logging.INFO):
        (run,) = tiny.train([config], tmp_path)
    assert run.tasks == whole.tasks
    tiny.assert_equal(run.state, whole.state)
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert str(tmp_path / "0" / "checkpoint.pt") in warning
    assert "damaged" in warning
    assert "resuming from task 0, step 7" in caplog.text


def test_with_no_checkpoint_left_a_run_starts_anew(tmp_path, compose, caplog):
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(2, [config], tmp_path)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        damage(tmp_path / "0" / name, "garbage")
    (run,) = tiny.train([config], tmp_path)
    assert run.tasks == whole.tasks
    assert len([record for record in caplog.records if "is damaged" in record.message]) == 2


def test_a_flipped_bit_in_a_checkpoint_costs_a_chunk_and_nothing_else(tmp_path, compose, caplog):
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(2, [config], tmp_path)
    file = tmp_path / "0" / "checkpoint.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)
    with caplog.at_level(logging.INFO):
        (run,) = tiny.train([config], tmp_path)
    assert "resuming from task 0, step 7" in caplog.text
    assert run.tasks == whole.tasks


@pytest.mark.parametrize("lr", ["1e-3", "1e6"], ids=["completed", "diverged"])
def test_resumed_from_its_very_end_a_run_ends_at_once_however_often(tmp_path, compose, monkeypatch, lr):
    config = compose("optimizer=sgd", f"optimizer.lr={lr}", "engine.checkpoint_minutes=0")
    (run,) = tiny.train([config], tmp_path)
    tasks, state, summary = run.tasks, run.state, run.summary
    monkeypatch.setattr(Population, "advance", None)  # nothing is trained
    for _ in range(3):
        (run.folder / "summary.json").unlink()
        tiny.train([config], tmp_path)
        assert run.tasks == tasks
        tiny.assert_equal(run.state, state)
        assert {**run.summary, "wall_seconds": 0} == {**summary, "wall_seconds": 0}


def test_a_checkpoint_of_another_network_is_passed_over(tmp_path, compose, caplog):
    """As another version of this program may leave one."""
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(1, [config], tmp_path)
    file = tmp_path / "0" / "checkpoint.pt"
    saved = torch.load(file, weights_only=True)
    del saved["state"]["online/loss"]
    for _ in range(2):  # its predecessor too
        RunFolder(file.parent).save_checkpoint(saved)
    with caplog.at_level(logging.WARNING):
        (run,) = tiny.train([config], tmp_path)
    assert "is of another network" in caplog.text
    assert "starting from the beginning" in caplog.text
    assert run.tasks == whole.tasks


@pytest.mark.parametrize("finished", [True, False])
def test_with_other_data_a_run_is_refused(tmp_path, finished):
    file = write_npz(tmp_path / "a.npz", *random_arrays(60, 20, tiny.IMAGE, tiny.CLASSES))
    config = tiny.small(file, "engine.chunk_steps=7")
    if finished:
        tiny.train([config], tmp_path)
    else:
        tiny.train_until(2, [config], tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "0").iterdir() if path.is_file()}
    for classes in (tiny.CLASSES, tiny.CLASSES + 3):
        write_npz(file, *random_arrays(60, 20, tiny.IMAGE, classes, seed=1))
        with pytest.raises(ConfigError, match=r"0 holds a run on other data .* put the data back"):
            tiny.train([config], tmp_path)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("env", ["permuted_mnist", "easy_hard_cifar100"])
def test_a_run_with_more_tasks_continues_the_one_with_fewer(tmp_path, compose, monkeypatch, env):
    more = ("engine.checkpoint_minutes=0", "metrics.forgetting=true", f"env={env}")
    (whole,) = tiny.train([compose("env.num_tasks=3", *more)], tmp_path / "whole")
    shorter = compose("env.num_tasks=2", *more)
    (run,) = tiny.train([shorter], tmp_path)
    (run.folder / ".hydra").mkdir()
    (run.folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(shorter))
    longer = compose("env.num_tasks=3", *more)
    (replica,) = tiny.replicas([longer], tmp_path)
    assert run_status.outcome_of(replica) is None
    assert not run_status.has_ended(replica)
    advance, steps = Population.advance, []

    def counted(population, n):
        steps.append(n)
        advance(population, n)

    monkeypatch.setattr(Population, "advance", counted)
    tiny.train([longer], tmp_path)
    assert sum(steps) == 20
    assert run.tasks == whole.tasks
    assert (run.folder / "forgetting.csv").read_text() == (whole.folder / "forgetting.csv").read_text()
    tiny.assert_equal(run.state, whole.state)
    assert run.summary["config_hash"] == whole.summary["config_hash"]
    assert run_status.has_ended(replica)


def test_a_finished_run_may_leave_no_checkpoint(tmp_path, compose):
    (run,) = tiny.train([compose("engine.checkpoint_minutes=0", "engine.keep_checkpoint=false")], tmp_path)
    assert not list(run.folder.glob("*.pt"))
    assert run.summary["status"] == "completed"


class Killed(BaseException):
    """The process ends here: nothing that a program could do about an error is done."""


def killed(configs, folder, wanted):
    """Train until the kill, before or after the change of the disk that `wanted` chooses; whether it came."""
    real = {name: getattr(os, name) for name in ("replace", "fsync")}

    def changing(name):
        def change(*arguments):
            if wanted((name, *arguments, "before")):
                raise Killed
            real[name](*arguments)
            if wanted((name, *arguments, "after")):
                raise Killed

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(os, name, changing(name))
        try:
            tiny.train(configs, folder)
        except Killed:
            return True
    return False


def test_a_run_that_is_killed_at_any_change_of_the_disk_goes_on(tmp_path, compose):
    config = compose("env.steps_per_task=2", "engine.chunk_steps=1", "engine.checkpoint_minutes=0")
    configs = [config, tiny.vary(config, 1)]
    whole = tiny.train(configs, tmp_path / "whole")
    moments = 0
    for moment in range(1000):
        folder = tmp_path / str(moment)
        changes = itertools.count()

        def wanted(change, moment=moment, changes=changes):
            return change[-1] == "before" and next(changes) == moment

        if not killed(configs, folder, wanted):
            break
        moments += 1
        for run, other in zip(tiny.train(configs, folder), whole, strict=True):
            assert run.tasks == other.tasks, moment
            tiny.assert_equal(run.state, other.state)
            assert run.summary["status"] == "completed"
    # Four checkpoints and a summary of two runs, each a file that is synced and moved into place.
    assert moments > 2 * (4 * 3 + 2)


def test_two_kills_between_the_checkpoints_of_two_replicas_lose_one_chunk_each(tmp_path, compose, caplog):
    """The replicas then are at different points; what one is ahead is lost, and nothing else."""
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    configs = [config, tiny.vary(config, 1)]
    whole = tiny.train(configs, tmp_path / "whole")
    newest = tmp_path / "0" / "checkpoint.pt"

    def after_checkpoint(number):
        left = [number]

        def wanted(change):
            if change[0] == "replace" and change[2] == newest and change[3] == "after":
                left[0] -= 1
                return left[0] == 0
            return False

        return wanted

    assert killed(configs, tmp_path, after_checkpoint(3))
    assert killed(configs, tmp_path, after_checkpoint(1))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        runs = tiny.train(configs, tmp_path)
    assert "resuming from task 0, step 14" in caplog.text
    for run, other in zip(runs, whole, strict=True):
        assert run.tasks == other.tasks
        tiny.assert_equal(run.state, other.state)


def test_a_kill_after_a_damaged_checkpoint_loses_no_more(tmp_path, compose, caplog):
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    (whole,) = tiny.train([config], tmp_path / "whole")
    tiny.train_until(2, [config], tmp_path)
    newest = tmp_path / "0" / "checkpoint.pt"
    damage(newest, "garbage")
    # Before the next checkpoint is in place.
    assert killed([config], tmp_path, lambda change: change[0] == "replace" and change[2] == newest)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        (run,) = tiny.train([config], tmp_path)
    assert "resuming from task 0, step 7" in caplog.text
    assert run.tasks == whole.tasks


@pytest.mark.parametrize("after", [0, 1, 5], ids=["first step", "second chunk", "with checkpoints"])
def test_a_population_that_does_not_fit_is_halved_and_nothing_is_lost(
    tmp_path, compose, monkeypatch, caplog, after
):
    config = compose("engine.chunk_steps=7", "engine.checkpoint_minutes=0")
    configs = [tiny.vary(config, r % 4) | {"seed": r} for r in range(5)]
    undisturbed = tiny.train(configs, tmp_path / "undisturbed")
    mode = "offline" if after == 5 else "disabled"
    configs = [c | {"wandb": c["wandb"] | {"mode": mode}} for c in configs]

    advance, chunks, reports = Population.advance, itertools.count(), []

    def until_memory_is_full(population, steps):
        if population.size > 2 and next(chunks) >= after:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 1.00 GiB\nand more")
        advance(population, steps)

    monkeypatch.setattr(Population, "advance", until_memory_is_full)
    clock = SimpleNamespace(monotonic=map(float, itertools.count()).__next__)
    monkeypatch.setattr(pausing, "time", clock)  # so that every pause reports
    halved = tiny.replicas(configs, tmp_path / "halved")
    with caplog.at_level(logging.WARNING):
        outcomes = training.train(halved, reports.append)

    messages = [record.message for record in caplog.records if record.name.startswith("continual")]
    assert [m.split(" do not fit")[0] for m in messages] == ["5 replicas", "3 replicas"]
    assert "training 3 and then 2; engine.max_replicas=3" in messages[0]
    for run, other, outcome in zip(undisturbed, halved, outcomes, strict=True):
        folder = tiny.Finished(other.folder)
        assert folder.tasks == run.tasks
        tiny.assert_equal(folder.state, run.state)
        assert outcome.score == folder.summary["total_average_online_accuracy"]
        assert len(list(other.folder.glob("wandb/offline-run-*/*.wandb"))) == (mode == "offline")
    assert {snapshot.replicas for snapshot in reports} == {5}
    last = reports[-1]
    assert (last.steps_done, last.tasks_done) == (last.num_steps, last.num_tasks)


def test_a_single_run_that_does_not_fit_is_a_clear_error(tmp_path, compose, monkeypatch):
    def full(population, steps):
        raise torch.OutOfMemoryError("out of memory. Tried to allocate 1.00 GiB")

    monkeypatch.setattr(Population, "advance", full)
    with pytest.raises(UserError, match=r"one run alone does not fit .*smaller network.*Tried to allocate"):
        tiny.train([compose()], tmp_path)


def test_bf16_runs_the_network_in_bfloat16_and_keeps_weights_in_float32(tmp_path, compose):
    config = compose("agent=l2_init", "env.steps_per_task=10", "env.num_tasks=1", "engine.precision=bf16")
    (run,) = tiny.train([config], tmp_path)
    learner, environment = building.prepare(config)
    assert {p.dtype for p in learner.network.parameters()} == {torch.bfloat16}
    assert {v.dtype for name, v in run.state.items() if name.startswith("params/")} == {torch.float32}

    # The same by hand: bfloat16 weights and images into the network, all else in float32.
    key = random.key(config["seed"])
    env_key = random.stream(key, "environment")
    task = environment.task(environment.draw_stream(env_key), env_key, 0)
    params = initialization.draw(learner.anatomy.distributions, random.stream(key, "weights"))
    initial = {name: param.clone() for name, param in params.items()}
    network, adam = learner.network, {name: param.clone().requires_grad_() for name, param in params.items()}
    optimizer = torch.optim.Adam(adam.values(), lr=config["optimizer"]["lr"])
    x_NCHW = environment.dataset.x_train.float() * environment.dataset.scale[0] + environment.dataset.shift[0]
    batches = [batch for epoch in range(2) for batch in environment.shuffle(env_key, 0, epoch)][:10]
    for batch in batches:
        x = x_NCHW[task["rows"][batch]].bfloat16()
        logits, _ = functional_call(network, {n: p.bfloat16() for n, p in adam.items()}, (x,))
        loss = F.cross_entropy(logits.float(), task["labels"][batch])
        penalty = sum(((p - initial[n]) ** 2).sum() for n, p in adam.items())
        optimizer.zero_grad()
        (loss + config["agent"]["l2_weight"] / 2 * penalty).backward()
        optimizer.step()
    by_hand = {f"params/{name}": param.detach() for name, param in adam.items()}
    tiny.assert_close({name: run.state[name] for name in by_hand}, by_hand, relative=2e-3)

    # And that is not what float32 gives.
    config["engine"]["precision"] = "float32"
    (exact,) = tiny.train([config], tmp_path / "float32")
    assert any((exact.state[n] - by_hand[n]).abs().max() > 1e-3 * by_hand[n].abs().max() for n in by_hand)
