"""The launcher behind `--multirun`: checks all jobs, then trains those of one structure as populations."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from continual import training
from continual.config import Replica, device, structure
from continual.errors import ConfigError, UserError
from continual.population import fastest_size
from continual.sweep import jobs, workers
from continual.sweep.messages import one_sentence
from continual.sweep.packing import pack
from continual.tracking.progress import Progress

log = logging.getLogger(__name__)


class PackedLauncher(Launcher):
    """Trains the jobs of a sweep on this machine.

    All jobs are composed and checked before the first is run. `workers` processes train one population
    each at a time ("auto": one for each CPU core or visible GPU); with one, they train in this process.
    """

    def __init__(self, workers: str | int = "auto") -> None:
        if workers != "auto" and not (isinstance(workers, int) and workers >= 1):
            raise ConfigError(f"hydra.launcher.workers: must be auto or at least 1, not {workers!r}.")
        self.workers = workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, numbered from `initial_job_idx`; each returns its total average online accuracy."""
        sweep = Path(self.config.hydra.sweep.dir)
        composed = [
            self._compose(list(overrides), initial_job_idx + i) for i, overrides in enumerate(job_overrides)
        ]
        replicas = self._check(composed, sweep)
        unfinished = [r for r in replicas if training.outcome_of(r) is None]
        for config, run in zip(composed, replicas, strict=True):
            _write_hydra_files(config, run)
        populations, how_many = self._populations(unfinished)
        log.info(
            "%d runs, %d of them finished before: training %d populations in %d process%s; results in %s",
            len(replicas),
            len(replicas) - len(unfinished),
            len(populations),
            how_many,
            "es" if how_many > 1 else "",
            sweep,
        )
        reasons = self._train(populations, how_many)
        return [
            self._job_return(config, run, reasons.get(run.folder))
            for config, run in zip(composed, replicas, strict=True)
        ]

    def _compose(self, overrides: list[str], number: int) -> DictConfig:
        try:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        except HydraException as error:
            raise ConfigError(f"job {number} ({' '.join(overrides)}): {one_sentence(error)}") from error
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def _check(self, composed: Sequence[DictConfig], sweep: Path) -> list[Replica]:
        """The jobs as replicas, after every check; ConfigError names the first job that fails one."""
        replicas, prepared = [], set()
        for config in composed:
            try:
                folder = sweep / _subfolder(config)
                run = jobs.replica(config, config.hydra.runtime.choices, folder, sweep.name)
                jobs.check_folder(run)
                if structure(run.config) not in prepared:
                    training.prepare(run.config)
                    prepared.add(structure(run.config))
            except UserError as error:
                overrides = " ".join(config.hydra.overrides.task)
                raise ConfigError(f"job {config.hydra.job.num} ({overrides}): {error}") from error
            replicas.append(run)
        return replicas

    def _populations(self, replicas: Sequence[Replica]) -> tuple[list[list[Replica]], int]:
        """The populations and how many worker processes to train them in."""
        if not replicas:
            return [], 0
        places = len(_gpus(replicas[0])) or len(os.sched_getaffinity(0))
        wanted = places if self.workers == "auto" else int(self.workers)
        populations = pack(replicas, _largest_population, wanted)
        return populations, min(wanted, len(populations))

    def _train(self, populations: list[list[Replica]], how_many: int) -> dict[Path, str]:
        """Train the populations; returns why a run failed, by its folder."""
        steps = sum(len(p) * training.steps(p[0]) for p in populations)
        reasons: dict[Path, str] = {}
        with Progress(steps) as progress:
            if how_many > 1:
                results = workers.run(
                    populations, how_many, progress.update, gpus=_gpus(populations[0][0])[:how_many]
                )
            else:
                results = [_train_here(p, i, progress) for i, p in enumerate(populations)]
        for population, result in zip(populations, results, strict=True):
            if isinstance(result, workers.Failure):
                for run in population:
                    reasons[run.folder] = result.reason
        return reasons

    def _job_return(self, config: DictConfig, run: Replica, reason: str | None) -> JobReturn:
        result = JobReturn()
        result.overrides = list(config.hydra.overrides.task)
        result.cfg = OmegaConf.create(run.config)
        result.hydra_cfg = OmegaConf.create({"hydra": config.hydra})
        result.working_dir = str(run.folder)
        result.task_name = config.hydra.job.name
        outcome = training.outcome_of(run)
        if reason is None and outcome is not None:
            result.status = JobStatus.COMPLETED
            total = outcome.total_average_online_accuracy
            result.return_value = float("nan") if total is None else total
        else:
            training.record_failure(run, reason or "it did not finish")
            result.status = JobStatus.FAILED
            result.return_value = UserError(f"{run.folder}: {reason}")
        return result


def _train_here(
    population: list[Replica], index: int, progress: Progress
) -> list[training.Outcome] | workers.Failure:
    try:
        return training.train(population, lambda snapshot: progress.update(index, snapshot))
    except UserError as error:
        return workers.Failure(str(error))


def _largest_population(run: Replica) -> int:
    asked = run.config["engine"]["max_replicas"]
    if asked != "auto":
        return int(asked)
    learner, _ = training.prepare(run.config)
    return fastest_size(learner.network, device(run.config["device"]))


def _gpus(run: Replica) -> list[str]:
    """The GPUs that this run may use, as values of CUDA_VISIBLE_DEVICES; none on a CPU."""
    where = device(run.config["device"])
    if where.type != "cuda":
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return names if where.index is None else [names[where.index]]


def _subfolder(config: DictConfig) -> str:
    return str(OmegaConf.to_container(config.hydra.sweep, resolve=True)["subdir"])  # type: ignore[index,call-overload]


def _write_hydra_files(config: DictConfig, run: Replica) -> None:
    """Freeze the run's config in its folder, as Hydra would: a run that waits never reads a YAML again."""
    folder = run.folder / ".hydra"
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(run.config), folder / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": config.hydra}), folder / "hydra.yaml")
    OmegaConf.save(config.hydra.overrides.task, folder / "overrides.yaml")
