"""`hydra/sweeper=optuna`: a search for the best values, batch by batch, in the place of a grid.

The search is kept in `optuna.db` in the sweep's folder, which Optuna's own tools read. What a batch will be
depends on the trials before it alone: a search that was interrupted ends as one that was not.
"""

import logging
import math
import random
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep
from omegaconf import OmegaConf

from continual.cli import jobs
from continual.cli.sweeper import OwnSweeper, in_words
from continual.errors import ConfigError, UserError
from continual.identity import config_hash
from continual.schema import Count
from continual.sweep.manifest import Manifest

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

_WORST = 0.0  # an accuracy; what a diverged run counts as, so that the search keeps away from there


@dataclass(frozen=True)
class Search:
    """What a sweep's arguments ask for: values that are fixed, values to choose, and seeds to average over.

    All but `space` are overrides. Nobody searches for a seed: each of `seeds` is a run of every trial.
    """

    fixed: list[str]
    space: "dict[str, BaseDistribution]"
    seeds: list[list[str]]

    @classmethod
    def of(cls, arguments: Sequence[str], loader: ConfigLoader) -> "Search":
        """Read the arguments, of which later ones replace earlier ones; ConfigError if they are no search."""
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
        overrides = {override.get_key_element(): override for override in parsed}
        seed = overrides.pop("seed", None)
        space = {key: _distribution(key, o) for key, o in overrides.items() if _has_several_values(o)}
        if not space:
            raise ConfigError(
                "hydra/sweeper=optuna: there is nothing to choose; give a key several values or an interval, "
                "such as optimizer.lr='tag(log,interval(1e-4,1e-1))'."
            )
        rest = [override for key, override in overrides.items() if key not in space]
        [[fixed]] = BasicSweeper.split_arguments(rest, max_batch_size=None)
        return cls(fixed, space, _seeds(seed))

    def runs(self, values: Mapping[str, Any]) -> list[list[str]]:
        """The overrides of a trial's runs, one for each seed."""
        return [[*self.fixed, *in_words(values), *seed] for seed in self.seeds]

    def edges(self) -> list[dict[str, Any]]:
        """Trials that have all bounds and all choices among their values."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        values: dict[str, Sequence[Any]] = {}
        for key, among in self.space.items():
            if isinstance(among, CategoricalDistribution):
                values[key] = among.choices
            else:
                assert isinstance(among, IntDistribution | FloatDistribution)
                values[key] = (among.low, among.high)
        most = max(map(len, values.values()))
        return [{key: of[i % len(of)] for key, of in values.items()} for i in range(most)]

    def described(self) -> dict[str, Any]:
        """What must be as it was when a search goes on, by key."""
        from optuna.distributions import distribution_to_json

        space = {key: distribution_to_json(among) for key, among in self.space.items()}
        return {**space, "seed": [text for seed in self.seeds for text in seed]}


class OptunaSweeper(OwnSweeper):
    """Trains `n_trials` trials, `n_jobs` at a time, on the launcher that is chosen.

    A trial's value is the total average online accuracy, the mean over its seeds; a diverged run counts as 0.
    A run that fails ends the sweep with its error; the same command tries it again and goes on.
    """

    def __init__(
        self,
        n_trials: Count = 50,
        n_jobs: Count = 10,
        sampler: Literal["tpe", "random"] = "tpe",
        seed: int = 0,
        params: dict[str, Any] | None = None,
    ) -> None:
        self._n_trials, self._n_jobs = n_trials, n_jobs
        self._sampler, self._seed = sampler, seed
        self._params = dict(params or {})

    def sweep(self, arguments: list[str]) -> None:
        """Search, or go on with the search that the sweep's folder holds; UserError if that is another."""
        assert self.config is not None
        assert self.hydra_context is not None
        search = Search.of([*in_words(self._params), *arguments], self.hydra_context.config_loader)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with _saying_what_is_wrong(folder / "optuna.db") as database:
            study = _study(database)
            self._check_that_it_is_the_same(study, search, folder)
            self.save_config()
            while trials := self._interrupted(study, search) or self._next_batch(study, search):
                self._train(study, search, trials)
            self._say_the_best(study, search, folder)

    def _interrupted(self, study: "Study", search: Search) -> "list[FrozenTrial]":
        """The trials that were asked for by a process that has not got their results."""
        from optuna.trial import TrialState

        interrupted = []
        for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if trial.params.keys() == search.space.keys():
                interrupted.append(trial)
            else:  # the process ended while the values were chosen
                study.tell(trial.number, state=TrialState.FAIL)
        return interrupted

    def _next_batch(self, study: "Study", search: Search) -> "list[Trial]":
        left = self._n_trials - len(_finished(study))
        # Each batch has a sampler of its own: how it draws must not depend on when the process was started.
        draws = random.Random(f"{self._seed} {len(study.get_trials(deepcopy=False))}")
        study.sampler = self._make_sampler(draws.getrandbits(32))
        return [study.ask(search.space) for _ in range(min(left, self._n_jobs))]

    def _make_sampler(self, seed: int) -> "BaseSampler":
        from optuna import samplers
        from optuna.exceptions import ExperimentalWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if self._sampler == "tpe":  # which has to keep the trials of a batch apart
                return samplers.TPESampler(seed=seed, constant_liar=True)
            return samplers.RandomSampler(seed=seed)

    def _train(self, study: "Study", search: Search, trials: "Sequence[Trial | FrozenTrial]") -> None:
        """Train a batch and tell its results; the first error of its runs is raised afterwards."""
        assert self.launcher is not None
        runs_of = [[tuple(run) for run in search.runs(trial.params)] for trial in trials]
        # Where there are few choices, some come up twice: they are trained once.
        distinct = list(dict.fromkeys(run for runs in runs_of for run in runs))
        first_number = trials[0].number * len(search.seeds)
        log.info("trials %d to %d of %d", trials[0].number, trials[-1].number, self._n_trials)
        returned = self.launcher.launch(distinct, initial_job_idx=first_number)
        results = dict(zip(distinct, returned, strict=True))
        failure: Exception | None = None
        for trial, runs in zip(trials, runs_of, strict=True):
            try:
                accuracies = [_accuracy(results[run].return_value) for run in runs]
            except Exception as error:  # whatever the run was ended by
                failure = failure or error
            else:
                study.tell(trial.number, statistics.fmean(accuracies))
        if failure is not None:
            raise failure

    def _check_that_it_is_the_same(self, study: "Study", search: Search, folder: Path) -> None:
        """ConfigError if the folder holds a search over other values, or with other settings."""
        wanted, before = search.described(), study.user_attrs.get("search")
        if before is None:
            study.set_user_attr("search", wanted)
            return
        differing = [key for key in sorted({*before, *wanted}) if before.get(key) != wanted.get(key)]
        if differing:
            raise ConfigError(
                f"{folder} holds a search whose values differ ({', '.join(differing)}); "
                "choose another hydra.sweep.dir, or the same values to go on with it."
            )
        manifest = Manifest.read(folder)
        known = {entry.config_hash for entry in manifest.runs.values()} if manifest else set()
        for trial in _finished(study)[:1]:
            if any(config_hash(job.run.config) not in known for job in self._jobs(search, trial)):
                raise ConfigError(
                    f"{folder} holds a search with other settings; choose another hydra.sweep.dir, "
                    f"or the settings of {folder / 'multirun.yaml'} to go on with it."
                )

    def _say_the_best(self, study: "Study", search: Search, folder: Path) -> None:
        best = study.best_trial
        log.info(
            "the best of %d trials: %.4f with %s; its runs: %s",
            len(_finished(study)),
            best.value,
            " ".join(in_words(best.params)),
            ", ".join(str(job.run.folder) for job in self._jobs(search, best)),
        )
        found = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        OmegaConf.save(OmegaConf.create(found), folder / "optimization_results.yaml")

    def _jobs(self, search: Search, trial: "FrozenTrial") -> list[jobs.Job]:
        """A finished trial's jobs, with the folders that they have."""
        assert self.config is not None
        assert self.hydra_context is not None
        of_sweep = jobs.of_sweep(self.hydra_context.config_loader, self.config)
        # They are trained: nothing is asked of this machine for them.
        return of_sweep.check(
            search.runs(trial.params), trial.number * len(search.seeds), trainable=lambda config: None
        )


def check_installed() -> None:
    """ConfigError if there is no Optuna here."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "hydra/sweeper=optuna: Optuna is not installed here; "
            "`bash scripts/setup.sh optuna` in a clone or `pip install optuna` does so."
        ) from error


def _has_several_values(override: Override) -> bool:
    return override.is_sweep_override() and (
        not override.is_discrete_sweep() or len(list(override.sweep_iterator())) > 1
    )


def _distribution(key: str, override: Override) -> "BaseDistribution":
    """What Optuna is to choose this key's value from: an interval, a range, or a few texts."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept = cast(object, override.value())
    tags = swept.tags if isinstance(swept, Sweep) else set()
    if tags - {"log"} or (tags and not isinstance(swept, IntervalSweep)):
        raise ConfigError(f"{key}: tag(log,interval(...)) is the only tag that is known here.")
    try:
        if isinstance(swept, IntervalSweep):
            low, high = swept.start, swept.end
            assert low is not None
            assert high is not None
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log="log" in tags)
            return FloatDistribution(low, high, log="log" in tags)
        if isinstance(swept, RangeSweep):
            numbers = sorted(swept.range())
            if all(isinstance(number, int) for number in numbers):
                return IntDistribution(numbers[0], numbers[-1], step=numbers[1] - numbers[0])
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def _seeds(override: Override | None) -> list[list[str]]:
    """Each seed that was given as an override; one that is none if the config's own is to be taken."""
    if override is None:
        return [[]]
    if override.is_sweep_override() and not override.is_discrete_sweep():
        raise ConfigError("seed: a trial is the mean over its seeds; list them, as in seed=0,1,2.")
    [seeds] = BasicSweeper.split_arguments([override], max_batch_size=None)
    return [list(seed) for seed in dict.fromkeys(map(tuple, seeds))]


def _accuracy(returned: float | None) -> float:
    """A run's total average online accuracy; it has none if it diverged."""
    return _WORST if returned is None or math.isnan(returned) else float(returned)


def _study(database: Path) -> "Study":
    """The study in this file, which is made if there is none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{database}", study_name="search", direction="maximize", load_if_exists=True
    )


def _finished(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])


@contextmanager
def _saying_what_is_wrong(database: Path) -> Iterator[Path]:
    """A full disk or a damaged file is the user's to mend."""
    from optuna.exceptions import StorageInternalError

    try:
        yield database
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(
            f"{database} cannot be used ({reason}); mend that and start the command again."
        ) from error
