"""`hydra/sweeper=optuna`: what it searches, how its batches are trained, and how it goes on."""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from continual import training
from continual.cli.composing import Composer
from continual.cli.optuna import Search
from continual.errors import ConfigError
from tests.command_line import CommandLine, everything_in, written
from tests.sweep import slow
from tests.sweep.faulty import mend
from tests.sweep.subprocesses import TINY, Script, kill_again_and_again, tables

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: bash scripts/setup.sh optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402

IN_SWEEP = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1")
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


@pytest.fixture
def search(npz: Path) -> Iterator[Any]:
    """`search(*arguments)` reads the arguments of a sweep."""
    composer = Composer()
    with composer.started():
        yield lambda *arguments: Search.of(arguments, composer)


def summaries(sweep: Path) -> list[dict[str, Any]]:
    """The summaries of a sweep's runs, by their numbers."""
    folders = sorted((int(path.parent.name), path) for path in sweep.glob("*/summary.json"))
    assert [number for number, _ in folders] == list(range(len(folders)))
    return [json.loads(path.read_text()) for _, path in folders]


def study_in(sweep: Path) -> Any:
    """The search in a sweep's folder, as Optuna's own tools read it."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///{sweep / 'optuna.db'}")


def trials(sweep: Path) -> list[tuple[int, dict[str, Any], float | None]]:
    """The number, the values and the result of each trial."""
    return [(trial.number, trial.params, trial.value) for trial in study_in(sweep).get_trials()]


# What is searched


@pytest.mark.parametrize(
    ("typed", "space"),
    [
        ("a=interval(1,2)", FloatDistribution(1.0, 2.0)),
        ("a=tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1.0, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=int(tag(log,interval(1,8)))", IntDistribution(1, 8, log=True)),
        ("a=range(1,8,3)", IntDistribution(1, 7, step=3)),
        ("a=range(7,0,-3)", IntDistribution(1, 7, step=3)),
        ("a=range(0.5,2,0.5)", CategoricalDistribution(["0.5", "1.0", "1.5"])),
        ("a=1e-3,x,true", CategoricalDistribution(["0.001", "x", "True"])),
        ("a=choice(adam,sgd)", CategoricalDistribution(["adam", "sgd"])),
        ("agent=glob(l2_init*)", CategoricalDistribution(["l2_init", "l2_init_plus_ewc"])),
    ],
)
def test_what_can_be_searched(search: Any, typed: str, space: Any) -> None:
    assert search(typed).space == {typed.partition("=")[0]: space}


def test_fixed_values_stay_and_seeds_are_averaged_over(search: Any) -> None:
    found = search(
        "env=x", "+n=1", "b=choice(3)", "a=interval(0,2)", "a=interval(0,1)", "c=x,y", "seed=4,0,1"
    )
    assert found.space == {"a": FloatDistribution(0.0, 1.0), "c": CategoricalDistribution(["x", "y"])}
    assert found.runs({"a": 0.25, "c": "y"}) == [
        ["env=x", "+n=1", "b=3", "a=0.25", "c=y", f"seed={seed}"] for seed in (4, 0, 1)
    ]
    assert found.edges() == [{"a": 0.0, "c": "x"}, {"a": 1.0, "c": "y"}]
    assert search("a=1,2").runs({"a": "2"}) == [["a=2"]]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("a=1", "hydra/sweeper=optuna: there is nothing to choose; .* such as optimizer.lr='tag"),
        ("seed=1,2", "hydra/sweeper=optuna: there is nothing to choose"),
        (
            "a=1,2 seed=interval(0,9)",
            "seed: a trial is the mean over its seeds; list them, as in seed=0,1,2.",
        ),
        ("a=tag(lgo,interval(1,2))", "a: tag\\(log,interval\\(...\\)\\) is the only tag"),
        ("a=tag(log,range(1,9))", "a: tag\\(log,interval\\(...\\)\\) is the only tag"),
        ("a=tag(log,interval(0,2))", "a: .*low.*"),
        ("a=interval(2,1)", "a: .*low.*high"),
    ],
)
def test_what_cannot_be_searched(search: Any, typed: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        search(*typed.split())


# How it is trained


def test_a_batch_of_trials_is_one_population(train: CommandLine, workplace: Path) -> None:
    """Also: a trial is the mean over its seeds, and the best one is said; a second start trains nothing."""
    settings = ("hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=3")
    space = ("hydra.sweeper.params={optimizer.lr: 'tag(log,interval(1e-4,1e-1))'}", "seed=0,1")
    finished = train(*IN_SWEEP, *settings, *space)
    assert finished.code == 0
    assert "arning" not in finished.out + finished.err
    sweep = workplace / "sweep"
    found = summaries(sweep)
    assert [one["replicas"] for one in found] == [6] * 6 + [4] * 4
    totals = [one["total_average_online_accuracy"] for one in found]
    asked = trials(sweep)
    assert [value for _, _, value in asked] == [statistics.fmean(totals[i : i + 2]) for i in range(0, 10, 2)]
    for number, values, _ in asked:
        for seed in (0, 1):
            config = OmegaConf.load(sweep / str(2 * number + seed) / ".hydra" / "config.yaml")
            assert (config.optimizer.lr, config.seed) == (values["optimizer.lr"], seed)

    number, values, value = max(asked, key=lambda trial: trial[2] or 0)
    assert OmegaConf.load(sweep / "optimization_results.yaml") == {
        "name": "optuna",
        "best_params": values,
        "best_value": value,
    }
    best = f"the best of 5 trials: {value:.4f} with optimizer.lr={values['optimizer.lr']}; its runs: "
    assert best + f"sweep/{2 * number}, sweep/{2 * number + 1}" in finished.out

    before = written(sweep)
    again = train(*IN_SWEEP, *settings, *space)
    assert again.code == 0
    assert best in again.out
    assert written(sweep) == before


def test_interrupted_and_longer_it_is_the_same_search(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more trials than the ten at random that the sampler begins with, so that results lead it."""
    how = (*IN_SWEEP, "hydra.sweeper.n_jobs=10", "env.steps_per_task=3", "env.num_tasks=1", LR)
    sweep = workplace / "sweep"
    assert train(*how, "hydra.sweeper.n_trials=14").code == 0
    left_alone = trials(sweep)
    assert len({values["optimizer.lr"] for _, values, _ in left_alone}) == 14
    sweep.rename(workplace / "left_alone")

    def stop(*_: Any) -> None:
        raise training.Interrupted

    assert train(*how, "hydra.sweeper.n_trials=10").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", stop)
        stopped = train(*how, "hydra.sweeper.n_trials=14")
    assert (stopped.code, stopped.err[:38]) == (1, "error: stopped, with checkpoints writt")
    assert [value for _, _, value in trials(sweep)].count(None) == 4
    study_in(sweep).ask()  # as another program that chooses values, and leaves them
    assert train(*how, "hydra.sweeper.n_trials=14").code == 0
    assert trials(sweep) == [*left_alone, (14, {}, None)]


@pytest.mark.parametrize("writes", [2, 3, 5, 8])
def test_interrupted_anywhere_in_a_batch_it_is_the_same_search(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Between the writes to the study that choose a batch of two and note its results."""
    how = (*IN_SWEEP, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4", "env.steps_per_task=3", LR)
    sweep = workplace / "sweep"
    assert train(*how).code == 0
    left_alone = trials(sweep), tables(sweep, 4)
    sweep.rename(workplace / "left_alone")
    written = 0

    def interrupted(write: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal written
            written += 1
            if written == writes + 1:
                raise training.Interrupted
            return write(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        for name in ("set_user_attr", "add_trial", "tell"):
            patch.setattr(optuna.Study, name, interrupted(getattr(optuna.Study, name)))
        assert train(*how).code == 1
    assert written == writes + 1
    assert train(*how).code == 0
    assert (trials(sweep), tables(sweep, 4)) == left_alone


@pytest.mark.slow
def test_killed_at_random_moments_it_is_the_same_search(npz: Path, tmp_path: Path) -> None:
    """Each time with all its workers: while it chooses, while it trains and while it writes results."""
    how = [
        "-m",
        *TINY,
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=14",
        "hydra.sweeper.n_jobs=4",
        "hydra.launcher.workers=1",
        f"env.dataset.path={npz}",
        f"agent._target_={slow.TARGET}",
        "env.steps_per_task=10",
        "engine.chunk_steps=5",
        "engine.checkpoint_minutes=0",
        LR,
    ]
    Script("train", *how, f"hydra.sweep.dir={tmp_path / 'left_alone'}", folder=tmp_path).succeed()
    sweep = tmp_path / "sweep"
    left_alone = (trials(tmp_path / "left_alone"), tables(tmp_path / "left_alone", 14))

    def start(step_seconds: float) -> Script:
        return Script("train", *how, f"hydra.sweep.dir={sweep}", folder=tmp_path, step_seconds=step_seconds)

    def check() -> None:
        assert (trials(sweep), tables(sweep, 14)) == left_alone

    kill_again_and_again(lambda kills: start(0.05), sweep, lambda: written(sweep), check, most_seconds=3)
    start(0).succeed()
    check()


def test_divergence_is_the_worst_of_results(train: CommandLine, workplace: Path) -> None:
    settings = ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=4")
    finished = train(*IN_SWEEP, *settings, "optimizer.lr=1e-3,1e30")
    assert finished.code == 0
    found = trials(workplace / "sweep")
    # What is asked for twice is trained once.
    assert [one["status"] for one in summaries(workplace / "sweep")].count("diverged") == 1
    assert len(summaries(workplace / "sweep")) == 2
    assert {values["optimizer.lr"] for _, values, value in found if value == 0} == {"1e+30"}
    assert "with optimizer.lr=0.001;" in finished.out


def test_a_run_that_fails_ends_it_and_is_tried_again(
    train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "agent").mkdir()
    (workplace / "agent" / "faulty.yaml").write_text(
        f"_target_: tests.sweep.faulty.Faulty\nfate: fine\ndiary: {workplace / 'diary'}\n"
    )
    how = (*IN_SWEEP, "--config-dir=.", "agent=faulty", "agent.fate=fine,raises", "hydra.sweeper.n_trials=4")
    finished = train(*how)
    assert finished.code == 1
    assert "RuntimeError: this agent raises on purpose" in finished.err
    values = {values["agent.fate"]: value for _, values, value in trials(workplace / "sweep")}
    assert values["raises"] is None
    assert values["fine"] is not None
    mend("raises", monkeypatch)
    assert train(*how).code == 0
    assert None not in [value for _, _, value in trials(workplace / "sweep")]


# What is refused


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "hydra/launcher=slurm hydra.launcher.detach=true",
            "hydra.launcher.detach: a search needs the results of its trials to choose the next ones; "
            "leave it false with hydra/sweeper=optuna.",
        ),
        ("hydra.sweeper.n_jobs=0", "hydra.sweeper.n_jobs: must be greater than or equal to 1, not 0."),
        ("hydra.sweeper.sampler=tpee", "hydra.sweeper.sampler: must be 'tpe' or 'random', not 'tpee'."),
        ("optimizer.lr=0.1", "hydra/sweeper=optuna: there is nothing to choose"),
        ("optimizer.l=interval(1,2)", "job 0 "),
        ("optimizer.lr=interval(-1,1)", "job 0 "),
        ("agent.l2_weight=interval(-1,1)", "job 0 "),
    ],
)
def test_what_is_refused_before_anything_is_written(
    train: CommandLine, workplace: Path, typed: str, said: str
) -> None:
    how = [argument for argument in IN_SWEEP if "slurm" not in typed or "workers" not in argument]
    assert train(*how, LR, *typed.split()).error().startswith(said)
    assert everything_in(workplace) == set()


def test_without_optuna(train: CommandLine, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert train(*IN_SWEEP, LR).error() == (
        "hydra/sweeper=optuna: Optuna is not installed here; `bash scripts/setup.sh optuna` in a clone or "
        "`pip install optuna` does so."
    )
    assert everything_in(workplace) == set()


def test_another_search_in_the_folder(train: CommandLine, workplace: Path) -> None:
    settings = ("hydra.sweeper.n_trials=1", "env.steps_per_task=2")
    assert train(*IN_SWEEP, *settings, LR).code == 0
    before = written(workplace / "sweep")
    for another, said in (
        (["optimizer.lr=interval(1e-4,1e-2)"], "whose values differ (optimizer.lr); choose another"),
        ([LR, "seed=0,1"], "whose values differ (seed); choose another hydra.sweep.dir"),
        ([LR, "env.num_tasks=3"], "with other settings; choose another hydra.sweep.dir"),
    ):
        refused = train(*IN_SWEEP, *settings, *another)
        assert refused.error().startswith(f"sweep holds a search {said}")
    assert written(workplace / "sweep") == before


def test_the_database_lies_in_the_folder_whatever_its_name(train: CommandLine, workplace: Path) -> None:
    folder = workplace / "what?x=1&y#z" / "%20"
    settings = ("hydra.sweeper.n_trials=1", "env.steps_per_task=2", f"hydra.sweep.dir='{folder}'")
    assert train(*IN_SWEEP, *settings, LR).code == 0
    assert {path.name for path in folder.glob("*.db")} == {"optuna.db"}
    assert [path.name for path in workplace.iterdir()] == ["what?x=1&y#z"]
    assert train(*IN_SWEEP, *settings, "hydra.sweeper.n_trials=2", LR).code == 0
    assert {path.name for path in folder.glob("[0-9]")} == {"0", "1"}
