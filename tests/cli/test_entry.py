"""The command line's other uses: help, configs, completion; and what becomes of a sweep's arguments."""

from pathlib import Path

import pytest
import yaml
from hydra.core.plugins import Plugins

from continual.cli.entry import _left_to_the_jobs
from tests.command_line import CommandLine, everything_in


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("--help", "agent: base, "),
        ("--hydra-help", "--multirun,-m"),
        ("--version", "Hydra 1."),
        ("--info plugins", "PackedLauncher"),
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


SWEPT = "agent=l2,l2_init"

# Of the arguments of a sweep over agents and data, those that are passed on in other words.
ARGUMENTS = [
    ("agent.l2_weight=1e-2", "agent.l2_weight=choice(0.01)"),
    ("agent.sample_init_values=true", "agent.sample_init_values=choice(True)"),
    ("env.dataset.path='a b.npz'", "env.dataset.path=choice('a b.npz')"),
    ("agent.l2_weight=1,2", None),
    ("agent.l2_weight=range(1,4)", None),
    ("+agent.l2_weight=1", None),
    ("++agent.l2_weight=1", None),
    ("~agent.l2_weight", None),
    ("agent.l2_weight={", None),
    ("agents.l2_weight=1", None),
    ("optimizer.lr=1e-2", None),
    ("optimizer=sgd", None),
    ("env.num_tasks=3", None),
    ("hydra.sweep.dir=x", None),
    ("-m", None),
    ("--config-dir=agent.x", None),
]


@pytest.mark.parametrize(("argument", "passed_on"), ARGUMENTS)
def test_fixed_values_of_swept_options_are_left_to_the_jobs(argument: str, passed_on: str | None) -> None:
    swept = [SWEPT, "env/dataset=npz,digits"]
    assert _left_to_the_jobs([argument, *swept]) == [passed_on or argument, *swept]
    assert _left_to_the_jobs([argument]) == [argument]


def test_hydra_has_its_own_launchers_still() -> None:
    known = getattr(Plugins, "is_in_toplevel_plugins_module", None)
    if known is None:
        pytest.skip("this Hydra does not ask where a plugin lives")
    assert known("hydra_plugins.some_launcher")
    assert known("continual.sweep.packed")
    assert not known("continual.training")
