"""The command line's other uses: help, configs, completion; and what becomes of a sweep's arguments."""

from pathlib import Path

import pytest
import yaml

import continual
from tests.command_line import TINY, CommandLine, everything_in


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("--help", "agent: base, "),
        ("--hydra-help", "--multirun,-m"),
        ("--version", f"continual {continual.__version__} (torch 2."),
        ("agent=l2 --version", "hydra-core 1."),
        ("--info plugins", "BasicLauncher"),
        ("--info searchpath", "conf"),
        ("--info defaults", "env/random_label_digits"),
        ("--cfg hydra -p hydra.launcher", "_target_: continual.sweep."),
        ("--cfg job --resolve -p agent agent=l2", "l2_weight: 0.01"),
    ],
)
def test_what_can_be_shown(cli: CommandLine, workplace: Path, typed: str, shown: str) -> None:
    finished = cli(*typed.split())
    assert (finished.code, finished.err) == (0, "")
    assert shown in finished.out
    assert everything_in(workplace) == set()


def test_the_config_that_is_shown_is_the_one_that_is_run(cli: CommandLine) -> None:
    shown = yaml.safe_load(cli("--cfg", "job", "agent=l2_init", "seed=3").out)
    assert (shown["seed"], shown["agent"]["l2_weight"]) == (3, 0.01)
    assert "hydra" not in shown


def test_a_mistake_is_a_mistake_there_too(cli: CommandLine) -> None:
    assert (
        cli("--cfg", "job", "agent=l2_int").error() == "agent=l2_int: no such option; did you mean l2_init?"
    )


@pytest.mark.parametrize(
    ("begun", "ends"), [("agent=l2_i", {"agent=l2_init"}), ("optimizer.we", {"optimizer.weight_decay="})]
)
def test_completion(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, begun: str, ends: set[str]) -> None:
    line = f"train.py {begun}"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    finished = cli("--shell-completion", "query=bash")
    assert finished.code == 0
    assert ends <= set(finished.out.split())


def test_the_end_shows_the_best_groups_and_the_next_command(
    train: CommandLine, npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = train("hydra.run.dir=alone")
    assert single.out.splitlines()[-1].endswith("report: python scripts/report.py alone")
    arguments = ("hydra.launcher.workers=1", "agent=l2,base", "seed=0,1")
    lines = train("-m", "hydra.sweep.dir=sweep", *arguments).out.splitlines()
    assert {line.split()[0] for line in lines if line.endswith(" 2 ")} == {"base", "l2"}
    assert lines[-2:] == ["4 of 4 runs finished", "report: python scripts/report.py sweep"]
    capsys.readouterr()
    continual.train(*TINY, f"env.dataset.path={npz}", "agent=l2,base", folder="api", workers=1)
    assert "report" not in capsys.readouterr().out
