"""The training entry point: one run, or a sweep with --multirun."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version

import hydra

import continual
from continual.cli import command
from continual.cli.best import register_best
from continual.cli.command import Command
from continual.cli.composing import Composer, config_folder
from continual.cli.messages import one_sentence
from continual.cli.output import log_run, log_sweep
from continual.cli.releases import DEFAULTS_OF_1_3
from continual.cli.resolvers import register_resolvers
from continual.errors import Stopped, UserError
from continual.report.ending import show_ending
from continual.sweep.leaving import leave
from continual.tracking.wandb_environment import asked_by_an_agent


def program() -> None:
    """`main` in a process of its own, which it ends."""
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            leave(1)
        leave(end.code or 0)
    leave(0)


def main() -> None:
    """Read the command line, compose and check the config, and train; exits with 1 on a user's mistake."""
    with exiting_with_a_sentence():
        asked = command.read(sys.argv[1:])
        if asked.version:
            libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "hydra-core", "omegaconf"))
            print(f"continual {continual.__version__} ({libraries})")
        elif asked.shows:
            _show(asked.overrides)
        else:
            _train(asked)


@contextmanager
def exiting_with_a_sentence() -> Iterator[None]:
    """A user's mistake in here ends the process, with status 1 and one sentence."""
    try:
        yield
    except Stopped as stopped:
        if not asked_by_an_agent():
            sys.exit(f"error: {stopped}")
        print(stopped)  # a W&B sweep may stop a call early; its agent gives up after a few that failed
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        sys.exit(f"error: {sentence}")


def _train(asked: Command) -> None:
    composer = Composer(asked.config_folder or config_folder(), asked.config_name, asked.own_folder)
    if not asked.multirun:
        from continual.cli.single import train_run

        folder = train_run(composer, asked.overrides, log_run)
        show_ending(folder, [folder], trained=1)
        return
    from continual.cli.sweeping import train_sweep

    trained = train_sweep(composer, asked.overrides, log_sweep)
    failed = trained.failed
    if not trained.is_detached:
        folders = list(dict.fromkeys(result.job.run.folder for result in trained.results))
        show_ending(trained.folder, folders, len(folders) - len(failed))
    if failed:
        raise UserError(f"{failed[0].job.run.folder}: {failed[0].reason}")


def _show(arguments: Sequence[str]) -> None:
    """What Hydra shows without running anything: help, configs, completion."""
    before = os.environ.get("HYDRA_FULL_ERROR"), list(sys.argv)
    # Hydra then raises its errors instead of printing several lines and leaving.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = arguments
    if any("=" in argument for argument in arguments):
        # For what is composed. Hydra copies them for each group that it lists in its help: 3 s.
        register_best(config_folder() / "best.yaml")
    register_resolvers()
    show = hydra.main(config_path=str(config_folder()), config_name="train", **DEFAULTS_OF_1_3)
    try:
        show(_refuse)()
    finally:
        sys.argv[:] = before[1]
        if before[0] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[0]


def _refuse(_: object) -> None:
    raise UserError("this shows something and trains nothing; leave out --help, --cfg, --info.")
