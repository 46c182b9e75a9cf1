"""From Hydra's overrides to `Replica`s, with every check that can be made before anything is written."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from continual import building
from continual.cli.composing import Composer, naming
from continual.cli.messages import one_sentence
from continual.cli.plain import plain
from continual.config import Config, Replica, check_config, check_here
from continual.errors import ConfigError
from continual.identity import config_hash, differing_keys, results_part, structure
from continual.sweep import frozen
from continual.sweep.manifest import Folders, Manifest
from continual.tracking.run_folder import read_summary

_of_loader: WeakKeyDictionary[ConfigLoader, "SweepJobs"] = WeakKeyDictionary()


@dataclass(frozen=True)
class Job:
    """A job of a sweep: its number, what was typed for it, the run that it is, and Hydra's own node."""

    number: int
    overrides: list[str]
    run: Replica
    hydra: dict[str, Any]


class SweepJobs:
    """The jobs of a sweep, each composed and checked once; what was found is kept for later calls."""

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        self._composer = Composer(loader, sweep)
        self._folder = Path(sweep.hydra.sweep.dir)
        self._known: dict[tuple[str, ...], Job] = {}
        self._prepared: set[str] = set()

    def check(
        self,
        job_overrides: Iterable[Sequence[str]],
        first_number: int,
        trainable: Callable[[Config], None],
    ) -> list[Job]:
        """The jobs with these overrides, after every check; ConfigError names the first that fails one.

        `trainable` is the launcher's own check, as `SweepLauncher.check`. Runs that the sweep's manifest
        knows get the folders that they have. Data are read last, once all configs and folders have turned
        out well.
        """
        found = [self._job(of, first_number + i) for i, of in enumerate(job_overrides)]
        for job in found:
            with naming(job.number, job.overrides):
                trainable(job.run.config)
        found = self._placed(found)
        for job in found:
            if structure(job.run.config) not in self._prepared:
                with naming(job.number, job.overrides):
                    building.prepare(job.run.config)
                self._prepared.add(structure(job.run.config))
        return found

    def _job(self, overrides: Sequence[str], number: int) -> Job:
        """A job whose folder is the one with its number."""
        key = (str(number), *overrides)
        if key not in self._known:
            composed = self._composer.compose(overrides, number)
            with naming(number, overrides):
                run = unplaced(composed.config, composed.folder, self._folder.name)
            self._known[key] = Job(number, overrides_of(composed.config), run, composed.hydra_node())
        return self._known[key]

    def _placed(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs with their final folders, which will do."""
        manifest = Manifest.read(self._folder)
        hashes = [config_hash(job.run.config) for job in jobs]
        folders = Folders(self._folder, manifest).assign(
            [job.run.folder for job in jobs], hashes, [job.overrides for job in jobs]
        )
        placed: dict[Path, Job] = {}
        for job, folder, config in zip(jobs, folders, hashes, strict=True):
            run = replace(job.run, folder=folder)
            with naming(job.number, job.overrides):
                if not (manifest and manifest.holds(folder, config)):
                    check_folder(run)
                if folder in placed:
                    raise ConfigError(
                        f"the output folder {folder} is an earlier job's as well; "
                        "let hydra.sweep.subdir differ, as ${hydra.job.num} does."
                    )
            runtime = {**job.hydra["runtime"], "output_dir": str(folder.absolute())}
            placed[folder] = replace(job, run=run, hydra={**job.hydra, "runtime": runtime})
        return list(placed.values())


def of_sweep(loader: ConfigLoader, sweep: DictConfig) -> SweepJobs:
    """The jobs of the sweep that this loader composes: the same for a sweep's check and its launcher."""
    return _of_loader.setdefault(loader, SweepJobs(loader, sweep))


def checked(composed: DictConfig, folder: Path, group: str) -> Replica:
    """The run that a composed config with its `hydra` node describes, if its folder will do as well."""
    run = unplaced(composed, folder, group)
    check_here(run.config)
    check_folder(run)
    return run


def unplaced(composed: DictConfig, folder: Path, group: str) -> Replica:
    """The run that a composed config with its `hydra` node describes; its folder is not looked at."""
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    # What ${hydra:...} stands for; set_config would make a copy.
    hydra_config.cfg = composed  # type: ignore[assignment]
    try:
        return replica(composed, composed.hydra.runtime.choices, folder, group)
    finally:
        hydra_config.cfg = before


def replica(composed: DictConfig, choices: Mapping[str, object], folder: Path, group: str) -> Replica:
    """The run that a composed config describes, whether or not its `hydra` node is still there.

    `choices` are Hydra's (hydra.runtime.choices). ConfigError if the config cannot be run.
    """
    try:
        config = {str(name): _resolved(composed[name]) for name in composed if name != "hydra"}
    except OmegaConfBaseException as error:
        raise ConfigError(one_sentence(error)) from error
    check_config(config)
    return Replica(config, folder, frozen.chosen(choices), group)


def _resolved(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def check_folder(run: Replica) -> None:
    """ConfigError if the run's folder cannot be written, or holds a run with other results to come."""
    check_writable(run.folder)
    saved = run.folder / ".hydra" / "config.yaml"
    if saved.exists():
        differing = differing_keys(_results_part_of(saved), results_part(run.config))
        which = f" ({', '.join(differing)})"
    else:
        summary = read_summary(run.folder)
        differing = ["unknown"] if summary and summary["config_hash"] != config_hash(run.config) else []
        which = ""
    if differing:
        raise ConfigError(
            f"the output folder {run.folder} holds a run whose config differs{which}; "
            "choose another folder, or ask for the same config to go on with it."
        )


def check_writable(folder: Path) -> None:
    """ConfigError if this folder, which need not be there yet, cannot be made or written to."""
    existing = folder
    try:
        while not _exists(existing):
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):  # has no name, so that nothing is seen of it
            pass
        longest = os.pathconf(existing, "PC_NAME_MAX")
        if any(len(os.fsencode(name)) > longest for name in folder.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    except OSError as error:
        raise ConfigError(
            f"the output folder {folder} cannot be written ({error.strerror}: {existing}); "
            "choose another with hydra.run.dir or, for a sweep, hydra.sweep.dir."
        ) from error


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder; OSError if we may not know."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _results_part_of(saved: Path) -> dict[str, object]:
    """The part that decides results of the config in this file."""
    try:
        return results_part(plain(OmegaConf.load(saved)))
    except Exception as error:  # a file that is another's or damaged can raise anything
        raise ConfigError(
            f"{saved} is not the config of a run of this program; choose another output folder."
        ) from error


def overrides_of(config: DictConfig) -> list[str]:
    """What was typed for a run or a sweep, but for Hydra's own keys; ${...} stays as it is."""
    overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return overrides
