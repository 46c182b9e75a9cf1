"""An experiment, from top to bottom: tasks, chunks of steps, measures, and what is written when.

`train` is the one entry point for every way of running: a single run is a population of one.
"""

import functools
import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate

from continual.config import Replica, check_config, device
from continual.datasets.dataset import Dataset
from continual.envs.environment import Environment
from continual.errors import ConfigError
from continual.learner import Learner
from continual.population import Population, compiler_problem
from continual.schema import locate, number_fields
from continual.tracking.progress import Snapshot
from continual.tracking.recorder import Recorder
from continual.tracking.run_folder import read_summary

log = logging.getLogger(__name__)

# With fewer steps to go, compiling (about 10 s) takes longer than it saves (about 2 ms a step).
_STEPS_WORTH_COMPILING = 5000


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` as in summary.json, and its total average online accuracy."""

    status: str
    total_average_online_accuracy: float | None


class Interrupted(Exception):
    """Training was asked to stop; every replica's checkpoint is written."""


def train(
    replicas: Sequence[Replica],
    report: Callable[[Snapshot], None] = lambda snapshot: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train replicas of one structure as one population, and write each one's results to its folder.

    Goes on from the replicas' checkpoints where there are any. `report` hears about once a second how far
    the population is; when `should_stop` says so, checkpoints are written and `Interrupted` is raised.
    Raises UserError before anything is written if the config or its data will not do.
    """
    config = replicas[0].config
    learner, environment = prepare(config)
    population = _population(replicas, learner, environment)
    recorders = [Recorder(replica, len(replicas)) for replica in replicas]
    try:
        _run_tasks(population, recorders, config["engine"], report, should_stop)
    except Interrupted:
        raise
    except Exception:
        for recorder in recorders:
            recorder.fail(traceback.format_exc())
        raise
    return [Outcome(r.status, r.total_average_online_accuracy) for r in recorders]


def _run_tasks(
    population: Population,
    recorders: Sequence[Recorder],
    engine: Mapping[str, Any],
    report: Callable[[Snapshot], None],
    should_stop: Callable[[], bool],
) -> None:
    environment = population.environment
    clock = _Clock(engine["checkpoint_minutes"])
    first_task, first_step = _resume(population, recorders)
    for task in range(first_task, environment.num_tasks):
        if task == first_task and first_step > 0:
            population.enter_task(task, first_step)
        else:
            population.start_task(task)

        while population.step_in_task < environment.steps_per_task:
            left = environment.steps_per_task - population.step_in_task
            population.advance(min(population.chunk_steps, left))
            if clock.report_is_due():
                report(_snapshot(population))
            if should_stop():
                _checkpoint(population, recorders)
                raise Interrupted
            if clock.checkpoint_is_due():
                _checkpoint(population, recorders)

        _record_task(population, recorders)
        if all(recorder.status == "diverged" for recorder in recorders):
            break
    report(_snapshot(population))
    _checkpoint(population, recorders)
    for recorder in recorders:
        recorder.finish()


def _record_task(population: Population, recorders: Sequence[Recorder]) -> None:
    """Read the task's results from the device, once, and hand each replica its row."""
    environment, task = population.environment, population.task
    online, measures = population.online(), population.measure()
    for r, recorder in enumerate(recorders):
        if online["diverged_at"][r]:
            recorder.mark_diverged(int(online["diverged_at"][r]))
            continue
        steps = environment.steps_per_task
        row = {
            "task": task,
            "task_type": environment.task_type(task),
            "step": (task + 1) * steps,
            "online_accuracy": online["correct"][r] / (steps * environment.batch_size),
            "online_loss": online["loss"][r] / steps,
            **{name: values[r].item() for name, values in measures.items()},
        }
        recorder.add_task(row, environment.is_scored(task))


def _checkpoint(population: Population, recorders: Sequence[Recorder]) -> None:
    for r, recorder in enumerate(recorders):
        recorder.save_checkpoint(population.task, population.step_in_task, population.replica_state(r))


def _resume(population: Population, recorders: Sequence[Recorder]) -> tuple[int, int]:
    """Put the replicas back to the latest point that all of them have a checkpoint of.

    Returns the task and the step in it to go on with; (0, 0) is a start from scratch.
    """
    checkpoints = [recorder.checkpoints() for recorder in recorders]
    common = set.intersection(*({c.position for c in of} for of in checkpoints))
    if not common:
        for recorder in recorders:
            recorder.start(None)
        return 0, 0
    position = max(common)
    for r, (recorder, of) in enumerate(zip(recorders, checkpoints, strict=True)):
        chosen = next(c for c in of if c.position == position)
        population.restore(r, chosen.state)
        recorder.start(chosen)
    log.info("going on from task %d, step %d", *position)
    task, step = position
    return (task + 1, 0) if step == population.environment.steps_per_task else position


def steps(replica: Replica) -> int:
    """How many steps a whole run takes."""
    env = replica.config["env"]
    return int(env["num_tasks"] * env["steps_per_task"])


def outcome_of(replica: Replica) -> Outcome | None:
    """How the run in this folder ended, or None if it has not ended or had failed."""
    summary = read_summary(replica.folder)
    if summary is None or summary["status"] == "failed":
        return None
    return Outcome(summary["status"], summary["total_average_online_accuracy"])


def record_failure(replica: Replica, reason: str) -> None:
    """Say in the run's folder that it failed, where the run itself could not."""
    if outcome_of(replica) is None:
        Recorder(replica, replicas=1).fail(reason)


def prepare(config: Mapping[str, Any]) -> tuple[Learner, Environment]:
    """The learner and the environment that a config describes, its data read and checked against it.

    Raises UserError: a config that cannot be run, data that is missing or damaged or too small.
    """
    check_config(config)
    dataset = _dataset(json.dumps(config["env"]["dataset"], sort_keys=True))
    environment = _make(config["env"], "env", dataset=dataset)
    network = _make(
        config["network"],
        "network",
        input_shape=dataset.input_shape,
        num_classes=environment.num_classes,
    )
    agent, optimizer = _make(config["agent"], "agent"), _make(config["optimizer"], "optimizer")
    return Learner.of(network, agent, optimizer), environment


def _population(replicas: Sequence[Replica], learner: Learner, environment: Environment) -> Population:
    config = replicas[0].config
    engine = config["engine"]
    torch.set_num_threads(engine["threads"])
    # Weights that decay towards zero pass through denormal numbers, on which a CPU is 100x slower.
    torch.set_flush_denormal(True)
    where = device(config["device"])
    steps = environment.num_tasks * environment.steps_per_task
    return Population(
        learner,
        environment,
        [replica.config["seed"] for replica in replicas],
        {part: _numbers(replicas, part) for part in ("agent", "optimizer")},
        device=where,
        compiled=_compiles(engine["compile"], steps, where),
        chunk_steps=engine["chunk_steps"],
    )


def _numbers(replicas: Sequence[Replica], part: str) -> dict[str, list[float]]:
    """The values in which the replicas may differ, but for those that are switched off in all."""
    node = replicas[0].config[part]
    numbers = {}
    for name, field in number_fields(locate(node["_target_"])).items():
        if name in node and not (field.zero_is_off and node[name] == 0):
            numbers[name] = [field.kind(replica.config[part][name]) for replica in replicas]
    return numbers


def _compiles(setting: str | bool, steps: int, where: torch.device) -> bool:
    wanted = steps >= _STEPS_WORTH_COMPILING if setting == "auto" else bool(setting)
    problem = compiler_problem(where) if wanted else None
    if problem is not None:
        log.warning("%s: steps run uncompiled, several times slower.", problem)
    return wanted and problem is None


@functools.lru_cache(maxsize=2)
def _dataset(node: str) -> Dataset:
    """The dataset that this part of a config (as JSON) describes; populations share it."""
    dataset: Dataset = _make(json.loads(node), "env.dataset")
    return dataset


def _make(node: Mapping[str, Any], path: str, **provided: Any) -> Any:
    """Instantiate a node of the config; what its class has to say against it becomes a ConfigError."""
    arguments = {name: value for name, value in node.items() if name not in provided}
    try:
        # Hydra would take the provided dataclasses apart as if they were configs: it makes the rest.
        return instantiate({**arguments, "_partial_": True}, _convert_="all")(**provided)
    except ValueError as error:
        raise ConfigError(f"{path}.{error}") from error


def _snapshot(population: Population) -> Snapshot:
    environment = population.environment
    done = population.task * environment.steps_per_task + population.step_in_task
    correct = population.online()["correct"]
    images = max(1, population.step_in_task) * environment.batch_size
    return Snapshot(
        tasks_done=done // environment.steps_per_task,
        num_tasks=environment.num_tasks,
        steps_done=done,
        num_steps=environment.num_tasks * environment.steps_per_task,
        replicas=population.size,
        online_accuracy=sum(correct) / len(correct) / images,
    )


class _Clock:
    """Says when a report (every second) and a checkpoint are due."""

    def __init__(self, checkpoint_minutes: float) -> None:
        self._between_checkpoints = 60 * checkpoint_minutes
        self._last_report = float("-inf")
        self._last_checkpoint = time.monotonic()

    def report_is_due(self) -> bool:
        if time.monotonic() - self._last_report < 1:
            return False
        self._last_report = time.monotonic()
        return True

    def checkpoint_is_due(self) -> bool:
        if time.monotonic() - self._last_checkpoint < self._between_checkpoints:
            return False
        self._last_checkpoint = time.monotonic()
        return True
