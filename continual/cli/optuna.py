"""`hydra/sweeper=optuna`: a search for the best values, batch by batch, in the place of a grid.

The search is kept in `optuna.db` in the sweep's folder, which Optuna's own tools read. What a batch will be
depends on the trials before it alone: a search that was interrupted ends as one that was not.
"""

import functools
import logging
import math
import random
import sqlite3
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.override_parser.types import Sweep as Swept

from continual.cli import grammar
from continual.cli.composing import Composer
from continual.cli.grammar import in_words
from continual.cli.sweep import Result, Sweep, Sweeper
from continual.errors import ConfigError, UserError
from continual.identity import config_hash
from continual.schema import Count
from continual.sweep.jobs import Job
from continual.sweep.manifest import Manifest
from continual.tracking import frozen
from continual.tracking.storage import replace_file

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from continual.scoring import Score

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """What a sweep's arguments ask for: values that are fixed, values to choose, and seeds to average over.

    All but `space` are overrides. Nobody searches for a seed: each of `seeds` is a run of every trial.
    """

    fixed: list[str]
    space: "dict[str, BaseDistribution]"
    seeds: list[list[str]]

    @classmethod
    def of(cls, arguments: Sequence[str], composer: Composer) -> "Search":
        """Read the arguments, of which later ones replace earlier ones; ConfigError if they are no search."""
        overrides = {override.get_key_element(): override for override in composer.read(arguments)}
        seed = overrides.pop("seed", None)
        with composer.started():  # which knows the options that a glob(...) stands for
            space = {key: _distribution(key, o) for key, o in overrides.items() if _has_several_values(o)}
        if not space:
            raise ConfigError(
                "hydra/sweeper=optuna: there is nothing to choose; give a key several values or an interval, "
                "such as optimizer.lr='tag(log,interval(1e-4,1e-1))'."
            )
        rest = [override for key, override in overrides.items() if key not in space]
        (fixed,) = grammar.grid(rest)
        return cls(fixed, space, _seeds(seed))

    def runs(self, values: Mapping[str, Any]) -> list[list[str]]:
        """The overrides of a trial's runs, one for each seed."""
        return [[*self.fixed, *in_words(values.items()), *seed] for seed in self.seeds]

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
        """What must be as it was when a search is resumed, by key."""
        from optuna.distributions import distribution_to_json

        space = {key: distribution_to_json(among) for key, among in self.space.items()}
        return {**space, "seed": [text for seed in self.seeds for text in seed]}


class OptunaSweeper(Sweeper):
    """Trains `n_trials` trials, `n_jobs` at a time, on the launcher that is chosen.

    A trial's value is the environment's score, the mean over its seeds, as large as possible or as small. A
    diverged run counts as the worst there is: 0 or infinity.
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

    def foreseen(self, arguments: Sequence[str], composer: Composer) -> list[list[str]]:
        """See Sweeper: trials that have all bounds and all choices among their values."""
        _check_installed()
        search = self._search(arguments, composer)
        return [run for values in search.edges() for run in search.runs(values)]

    def sweep(self, arguments: Sequence[str], sweep: Sweep) -> None:
        """Search, or resume the search that the sweep's folder holds; UserError if that is another."""
        search = self._search(arguments, sweep.composer)
        score = _score(sweep.config)
        with _saying_what_is_wrong(sweep.folder / "optuna.db") as database:
            study = _study(database, "maximize" if score.higher_is_better else "minimize")
            self._check_that_it_is_the_same(study, search, sweep)
            while trials := self._next_batch(study, search):
                if not self._train(study, search, trials, sweep, score):
                    return
            self._say_the_best(study, search, sweep)

    def _search(self, arguments: Sequence[str], composer: Composer) -> Search:
        return Search.of([*in_words(self._params.items()), *arguments], composer)

    def _next_batch(self, study: "Study", search: Search) -> "list[FrozenTrial]":
        """The trials that are to be trained next: those of a process that was interrupted come first.

        The study holds a batch's values before it holds its trials: a process may end between two of these.
        """
        from optuna.trial import TrialState, create_trial

        def running() -> "list[FrozenTrial]":
            return [trial for trial in _asked(study, search) if trial.state == TrialState.RUNNING]

        asked = _asked(study, search)
        batch = study.user_attrs.get("batch", {"after": 0, "values": []})
        if not running() and len(asked) >= batch["after"] + len(batch["values"]):
            if len(asked) >= self._n_trials:
                return []
            batch = {"after": len(asked), "values": self._choose(asked, study, search)}
            study.set_user_attr("batch", batch)
        for values in batch["values"][len(asked) - batch["after"] :]:
            study.add_trial(create_trial(state=TrialState.RUNNING, params=values, distributions=search.space))
        return running()

    def _choose(self, asked: "list[FrozenTrial]", study: "Study", search: Search) -> list[dict[str, Any]]:
        """The values of a batch's trials, which depend on the trials before it alone."""
        import optuna

        # Each batch has a sampler of its own: how it draws must not depend on when the process was started.
        draws = random.Random(f"{self._seed} {len(asked)}")
        sampler = self._make_sampler(draws.getrandbits(32))
        in_memory = optuna.create_study(direction=study.direction, sampler=sampler)
        in_memory.add_trials(asked)
        size = min(self._n_trials - len(asked), self._n_jobs)
        return [in_memory.ask(search.space).params for _ in range(size)]

    def _make_sampler(self, seed: int) -> "BaseSampler":
        from optuna import samplers
        from optuna.exceptions import ExperimentalWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            if self._sampler == "tpe":  # which has to keep the trials of a batch apart
                return samplers.TPESampler(seed=seed, constant_liar=True)
            return samplers.RandomSampler(seed=seed)

    def _train(
        self,
        study: "Study",
        search: Search,
        trials: "Sequence[FrozenTrial]",
        sweep: Sweep,
        score: "Score",
    ) -> bool:
        """Train a batch and report its results to the study; False if one of its runs did not finish."""
        runs_of = [[tuple(run) for run in search.runs(trial.params)] for trial in trials]
        # Where there are few choices, some come up twice: they are trained once.
        distinct = list(dict.fromkeys(run for runs in runs_of for run in runs))
        first_number = trials[0].number * len(search.seeds)
        log.info("trials %d to %d of %d", trials[0].number, trials[-1].number, self._n_trials)
        results = dict(zip(distinct, sweep.train(distinct, first_number), strict=True))
        for trial, runs in zip(trials, runs_of, strict=True):
            if all(results[run].reason is None for run in runs):
                study.tell(trial.number, statistics.fmean(_number(results[run], score) for run in runs))
        return all(result.reason is None for result in results.values())

    def _check_that_it_is_the_same(self, study: "Study", search: Search, sweep: Sweep) -> None:
        """ConfigError if the folder holds a search over other values, or with other settings."""
        folder = sweep.folder
        wanted, before = search.described(), study.user_attrs.get("search")
        if before is None:
            study.set_user_attr("search", wanted)
            return
        differing = [key for key in sorted({*before, *wanted}) if before.get(key) != wanted.get(key)]
        if differing:
            raise ConfigError(
                f"{folder} holds a search whose values differ ({', '.join(differing)}); "
                "choose another hydra.sweep.dir, or the same values to resume it."
            )
        manifest = Manifest.read(folder)
        known = {entry.config_hash for entry in manifest.runs.values()} if manifest else set()
        for trial in _finished(study)[:1]:
            if any(config_hash(job.run.config) not in known for job in _jobs(search, trial, sweep)):
                raise ConfigError(
                    f"{folder} holds a search with other settings; choose another hydra.sweep.dir, "
                    f"or the settings of {folder / 'multirun.yaml'} to resume it."
                )

    def _say_the_best(self, study: "Study", search: Search, sweep: Sweep) -> None:
        best = study.best_trial
        log.info(
            "the best of %d trials: %.4f with %s; its runs: %s",
            len(_finished(study)),
            best.value,
            " ".join(in_words(best.params.items())),
            ", ".join(str(job.run.folder) for job in _jobs(search, best, sweep)),
        )
        found = {"name": "optuna", "best_params": best.params, "best_value": best.value}
        replace_file(sweep.folder / "optimization_results.yaml", frozen.as_yaml(found).encode())


def _jobs(search: Search, trial: "FrozenTrial", sweep: Sweep) -> list[Job]:
    """A finished trial's jobs, with the folders that they have."""
    return sweep.places(search.runs(trial.params), trial.number * len(search.seeds))


def _check_installed() -> None:
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
    tags = swept.tags if isinstance(swept, Swept) else set()
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
    return [[seed] for seed in dict.fromkeys(grammar.texts(override))]


def _score(config: Mapping[str, Any]) -> "Score":
    """What the trials are compared by; ConfigError if their environment has no score."""
    from continual.tracking.score import declared_score

    score = declared_score(config)
    if score is None:
        raise ConfigError("hydra/sweeper=optuna: this env has no score to search by; set env.score.")
    return score


def _number(result: Result, score: "Score") -> float:
    """A run's score; it has none if it diverged, and then counts as the worst."""
    if result.score is None or math.isnan(result.score):
        return 0.0 if score.higher_is_better else math.inf
    return result.score


def _study(database: Path, direction: Literal["maximize", "minimize"]) -> "Study":
    """The study in this file, which is made if there is none."""
    import optuna
    from sqlalchemy.pool import NullPool

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Not as a URL, in which a folder's name could mean something else.
    connect = functools.partial(sqlite3.connect, str(database), check_same_thread=False)
    storage = optuna.storages.RDBStorage(
        "sqlite://", engine_kwargs={"creator": connect, "poolclass": NullPool}
    )
    return optuna.create_study(storage=storage, study_name="search", direction=direction, load_if_exists=True)


def _asked(study: "Study", search: Search) -> "list[FrozenTrial]":
    """The trials that have their values: all but those that another program left unfinished."""
    return [t for t in study.get_trials(deepcopy=False) if t.params.keys() == search.space.keys()]


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
