"""A run of its own, outside of any sweep: composed, checked, frozen in its folder, trained here."""

import logging
from collections.abc import Sequence
from pathlib import Path

from continual.cli.checks import check_hydra, check_mode
from continual.cli.composing import Composed, Composer
from continual.cli.jobs import check_folder, run_of
from continual.cli.output import StartLog, locked, output_folder, surroundings
from continual.config import Config, Replica, check_here, num_steps
from continual.errors import Stopped
from continual.sweep.stopping import StopSignals
from continual.tracking import frozen
from continual.tracking.progress import Progress
from continual.tracking.run_status import Outcome, outcome_of
from continual.tracking.wandb_agent import agents_run

log = logging.getLogger(__name__)

_FOLDER = "hydra.run.dir"


def train_run(composer: Composer, overrides: Sequence[str], start_log: StartLog) -> Path:
    """Train the run that these overrides name, or resume it, in `hydra.run.dir`.

    Returns its folder. All is checked before anything is written. UserError for a mistake, Stopped after a
    signal.
    """
    check_mode(composer.read(overrides), multirun=False)
    while True:
        composer.fixed.pop(_FOLDER, None)
        composed = composer.run(overrides)
        folder, is_new = output_folder(str(composed.hydra["run"]["dir"]), composed.folder)
        if folder != composed.folder:
            composer.fixed[_FOLDER] = str(folder)
            composed = composer.run(overrides)
        if _answered(composed, start_log):
            return folder
        run = run_of(composed, folder.name)
        check_here(run.config)
        check_folder(run)
        if outcome_of(run) is None:
            _prepare(run.config)
        with surroundings(composed.hydra):
            with locked(folder, is_new) as is_ours:
                if not is_ours:
                    continue
                check_folder(run)  # another process may have filled it
                start_log(composed.hydra)
                outcome = outcome_of(run)
                if outcome is not None:
                    _say_finished(folder)
                    return folder
                frozen.write(run, composed.hydra)
            outcome = _train(run)
        log.info(
            "%s; %s %s; results in %s",
            outcome.status,
            (outcome.score_name or "score").replace("_", " "),
            "none" if outcome.score is None else f"{outcome.score:.4f}",
            folder,
        )
        return folder


def _answered(composed: Composed, start_log: StartLog) -> bool:
    """Whether the folder holds this run, finished and with this very config, which is then said.

    Without loading PyTorch, whose classes it takes to check a config, or to compare it in other words.
    """
    run = Replica(composed.config, composed.folder, {}, composed.folder.name)
    if not frozen.holds(run) or outcome_of(run) is None:
        return False
    check_hydra(composed.hydra)
    with surroundings(composed.hydra), locked(composed.folder, is_new=False):
        start_log(composed.hydra)
        _say_finished(composed.folder)
    return True


def _say_finished(folder: Path) -> None:
    log.info("%s holds this run, finished.", folder)


def _prepare(config: Config) -> None:
    from continual.building import prepare

    prepare(config)


def _train(run: Replica) -> Outcome:
    from continual import training

    try:
        with agents_run([run]), Progress(num_steps(run.config)) as progress, StopSignals() as stop:
            (outcome,) = training.train([run], lambda snapshot: progress.update(0, snapshot), stop)
    except training.Interrupted:
        raise Stopped(
            f"stopped, with a checkpoint written; to resume: the same command with hydra.run.dir={run.folder}"
        ) from None
    return outcome
