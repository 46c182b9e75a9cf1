"""An experiment, from top to bottom: tasks, chunks of steps, measures, and what is written when.

`train` is the one entry point for every way of running: a single run is a population of one.
"""

import functools
import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hydra.utils import instantiate

from continual.config import MetricsConfig, Precision, Replica, check_config, check_here, device
from continual.datasets.dataset import Dataset
from continual.envs.environment import Environment
from continual.errors import ConfigError, UserError
from continual.learner import Learner
from continual.networks.network import check_forward
from continual.population import Population
from continual.schema import locate, number_fields
from continual.stepping import CudaGraphs, compiler_problem
from continual.tracking.lock import lock_all
from continual.tracking.progress import Snapshot
from continual.tracking.recorder import Recorder
from continual.tracking.run_folder import Row, RunFolder, read_summary

log = logging.getLogger(__name__)

# With fewer steps to go, compiling (about 10 s) takes longer than it saves (about 2 ms a step).
_STEPS_WORTH_COMPILING = 5000

# How long a run's folder may be another process's: a worker whose sweep was killed leaves after its chunk.
_SECONDS_FOR_ANOTHER = 10


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
    A population that does not fit into the device's memory is trained as two halves, one after the other.
    Raises UserError before anything is written if the config or its data will not do, or if another
    process trains one of the runs.
    """
    check_here(replicas[0].config)
    learner, environment = prepare(replicas[0].config)
    try:
        with lock_all((replica.folder for replica in replicas), _SECONDS_FOR_ANOTHER):
            return _train(replicas, learner, environment, report, should_stop)
    except torch.OutOfMemoryError as error:
        if len(replicas) == 1:
            raise UserError(
                "one run alone does not fit into the GPU's memory; use a smaller network or batch, "
                f"or device=cpu ({str(error).splitlines()[0]})"
            ) from error
    # Past the handler: the error held on to all that lay on the device.
    return _train_halves(replicas, report, should_stop)


def _train_halves(
    replicas: Sequence[Replica], report: Callable[[Snapshot], None], should_stop: Callable[[], bool]
) -> list[Outcome]:
    """Train the first half of a population and then the second; reported as one."""
    torch.cuda.empty_cache()
    middle = (len(replicas) + 1) // 2
    log.warning(
        "%d replicas do not fit into the GPU's memory: training %d and then %d; engine.max_replicas=%d "
        "starts like that.",
        len(replicas),
        middle,
        len(replicas) - middle,
        middle,
    )
    outcomes: list[Outcome] = []
    for half in (replicas[:middle], replicas[middle:]):
        done = len(outcomes) / len(replicas)
        share = len(half) / len(replicas)

        def report_part(snapshot: Snapshot, done: float = done, share: float = share) -> None:
            report(
                replace(
                    snapshot,
                    replicas=len(replicas),
                    tasks_done=int(done * snapshot.num_tasks + share * snapshot.tasks_done),
                    steps_done=round(done * snapshot.num_steps + share * snapshot.steps_done),
                )
            )

        outcomes += train(half, report_part, should_stop)
    return outcomes


def _train(
    replicas: Sequence[Replica],
    learner: Learner,
    environment: Environment,
    report: Callable[[Snapshot], None],
    should_stop: Callable[[], bool],
) -> list[Outcome]:
    config = replicas[0].config
    population = _population(replicas, learner, environment)
    recorders = [Recorder(replica, len(replicas)) for replica in replicas]
    pause = _Pause(population, recorders, config["engine"]["checkpoint_minutes"], report, should_stop)
    try:
        _run_tasks(population, recorders, MetricsConfig(**config["metrics"]), pause)
    except Interrupted:
        raise
    except torch.OutOfMemoryError:
        for recorder in recorders:
            recorder.leave()
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else traceback.format_exc()
        for recorder in recorders:
            recorder.fail(reason)
        raise
    finally:
        population.release()
    return [Outcome(r.status, r.total_average_online_accuracy) for r in recorders]


def _run_tasks(
    population: Population, recorders: Sequence[Recorder], wanted: MetricsConfig, pause: "_Pause"
) -> None:
    environment = population.environment
    steps = environment.steps_per_task
    fractions = {max(1, round(fraction * steps)): fraction for fraction in wanted.task_fractions}
    stops = sorted({*fractions, steps})

    first_task, first_step = _resume(population, recorders)
    pause.begin()
    for task in range(first_task, environment.num_tasks):
        if task == first_task and first_step > 0:
            population.enter_task(task, first_step)
        else:
            population.start_task(task)

        while population.step_in_task < steps:
            stop = next(stop for stop in stops if stop > population.step_in_task)
            population.advance(min(population.chunk_steps, stop - population.step_in_task))
            if population.step_in_task in fractions:
                _record_fraction(population, recorders, fractions[population.step_in_task])
            if population.step_in_task < steps:
                pause(task, population.step_in_task)

        _record_task(population, recorders, wanted)
        population.end_task()
        if all(recorder.status == "diverged" for recorder in recorders):
            break
        pause(task + 1, 0)
    pause.end()
    for recorder in recorders:
        recorder.finish()


def _record_fraction(population: Population, recorders: Sequence[Recorder], fraction: float) -> None:
    """Columns of the task's row that are known before its end: accuracies after a fraction of it."""
    online = population.online_accuracy()
    test = population.test_accuracy(population.task).tolist()
    for recorder, online_accuracy, test_accuracy in zip(recorders, online, test, strict=True):
        recorder.add_columns(
            {f"online_accuracy@{fraction:g}": online_accuracy, f"test_accuracy@{fraction:g}": test_accuracy}
        )


def _record_task(population: Population, recorders: Sequence[Recorder], wanted: MetricsConfig) -> None:
    """Read the task's results from the device, once, and hand each replica its row."""
    environment, task = population.environment, population.task
    accuracy, loss = population.online_accuracy(), population.online_loss()
    diverged_at = population.diverged_at()
    measures = {name: values.tolist() for name, values in population.measure().items()}
    if wanted.gradients:
        measures |= {name: values.tolist() for name, values in population.measure_gradients().items()}
    past = [population.test_accuracy(m).tolist() for m in range(task)] if wanted.forgetting else []

    for r, recorder in enumerate(recorders):
        if diverged_at[r]:
            recorder.mark_diverged(diverged_at[r])
            continue
        row: Row = {
            "task": task,
            "task_type": environment.task_type(task),
            "step": (task + 1) * environment.steps_per_task,
            "online_accuracy": accuracy[r],
            "online_loss": loss[r],
            **{name: values[r] for name, values in measures.items()},
        }
        recorder.add_task(row, environment.is_scored(task))
        if wanted.forgetting:
            recorder.add_accuracies([*(values[r] for values in past), measures["test_accuracy"][r]])


class _Pause:
    """What is done between two chunks of steps: report, write checkpoints, stop if asked to."""

    def __init__(
        self,
        population: Population,
        recorders: Sequence[Recorder],
        checkpoint_minutes: float,
        report: Callable[[Snapshot], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._population, self._recorders = population, recorders
        self._between_checkpoints = 60 * checkpoint_minutes
        self._report, self._should_stop = report, should_stop
        self._last_report = self._last_checkpoint = time.monotonic()

    def begin(self) -> None:
        """Before the first step."""
        self._report(_snapshot(self._population))
        self._last_report = self._last_checkpoint = time.monotonic()

    def __call__(self, task: int, step: int) -> None:
        """At a point to go on from: a task and a step in it."""
        now = time.monotonic()
        if now - self._last_report >= 1:
            self._report(_snapshot(self._population))
            self._last_report = now
        stopping = self._should_stop()
        if stopping or now - self._last_checkpoint >= self._between_checkpoints:
            self._checkpoint(task, step)
            self._last_checkpoint = time.monotonic()
        if stopping:
            raise Interrupted

    def end(self) -> None:
        """After the last task."""
        self._report(_snapshot(self._population))
        self._checkpoint(self._population.task + 1, 0)

    def _checkpoint(self, task: int, step: int) -> None:
        for r, recorder in enumerate(self._recorders):
            recorder.save_checkpoint((task, step), self._population.replica_state(r))


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
    return position


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


def position(replica: Replica) -> tuple[int, int] | None:
    """The task and the step in it that the run would go on from, or None if it has no checkpoint."""
    return RunFolder(replica.folder).checkpoint_position() if replica.folder.exists() else None


def forget_failure(replica: Replica) -> None:
    """A run that had failed is to be tried again: its folder says so no more."""
    if outcome_of(replica) is None and replica.folder.exists():
        RunFolder(replica.folder).remove_summary()


def has_ended(replica: Replica) -> bool:
    """Whether this run is over, well or not."""
    return (replica.folder / "summary.json").exists()


def record_failure(replica: Replica, reason: str) -> None:
    """Say in the run's folder that it failed, where the run itself could not."""
    if read_summary(replica.folder) is None:
        Recorder(replica, replicas=1).fail(reason)


def prepare(config: Mapping[str, Any]) -> tuple[Learner, Environment]:
    """The learner and the environment that a config describes, its data read and checked against it.

    Raises UserError: a config that cannot be run, data that is missing or damaged or too small.
    """
    check_config(config)
    agent, optimizer = _make(config["agent"], "agent"), _make(config["optimizer"], "optimizer")
    dataset = _dataset(json.dumps(config["env"]["dataset"], sort_keys=True))
    environment = _make(config["env"], "env", dataset=dataset)
    network = _make(
        config["network"],
        "network",
        input_shape=dataset.input_shape,
        num_classes=environment.num_classes,
    )
    dtype = torch.bfloat16 if config["engine"]["precision"] == "bf16" else torch.float32
    learner = Learner.of(network, agent, optimizer, dtype)
    check_forward(learner.network, dataset.input_shape, environment.num_classes)
    return learner, environment


def _population(
    replicas: Sequence[Replica],
    learner: Learner,
    environment: Environment,
    compiled: bool | None = None,
) -> Population:
    """The population of these replicas, compiled or not, or as the config says."""
    config = replicas[0].config
    engine = config["engine"]
    torch.set_num_threads(engine["threads"])
    # Weights that decay towards zero pass through denormal numbers, on which a CPU is 100x slower.
    torch.set_flush_denormal(True)
    where = device(config["device"])
    _round_products(engine["precision"])
    steps = environment.num_tasks * environment.steps_per_task
    captures = engine["cuda_graph"] is True or (engine["cuda_graph"] == "auto" and where.type == "cuda")
    return Population(
        learner,
        environment,
        [replica.config["seed"] for replica in replicas],
        {part: _numbers(replicas, part) for part in ("agent", "optimizer")},
        device=where,
        compiled=_compiles(engine["compile"], steps, where) if compiled is None else compiled,
        chunk_steps=engine["chunk_steps"],
        capture=CudaGraphs() if captures else None,
    )


def _round_products(precision: Precision) -> None:
    """Let a GPU's products of float32 matrices and convolutions have 10 bits after the point, or all 23."""
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def peak_memory(replicas: Sequence[Replica], where: torch.device) -> int:
    """The bytes on a GPU that these replicas need for a step, uncompiled, as one population."""
    learner, environment = prepare(replicas[0].config)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(where)
    torch.cuda.reset_peak_memory_stats(where)
    population = _population(replicas, learner, environment, compiled=False)
    population.start_task(0)
    population.advance(1)
    peak = torch.cuda.max_memory_allocated(where) - before
    population.release()
    del population  # and with it its data: workers that train beside this process need the memory
    torch.cuda.empty_cache()
    return peak


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
    done = max(0, population.task) * environment.steps_per_task + population.step_in_task
    accuracies = population.online_accuracy() if population.step_in_task else []
    return Snapshot(
        tasks_done=done // environment.steps_per_task,
        num_tasks=environment.num_tasks,
        steps_done=done,
        num_steps=environment.num_tasks * environment.steps_per_task,
        replicas=population.size,
        online_accuracy=sum(accuracies) / len(accuracies) if accuracies else None,
    )
