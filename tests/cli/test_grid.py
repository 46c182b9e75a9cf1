"""`hydra/sweeper=grid`: which jobs it makes of what is typed."""

import shlex
from pathlib import Path

import pytest

from continual.cli.composing import Composer
from continual.cli.grid import GridSweeper
from continual.errors import ConfigError
from tests.command_line import CommandLine


@pytest.mark.parametrize(
    ("typed", "jobs"),
    [
        ("seed=0,1 optimizer.lr=1e-3", [["seed=0", "optimizer.lr=0.001"], ["seed=1", "optimizer.lr=0.001"]]),
        ("seed=range(2) seed=5", [["seed=5"]]),
        ("seed=choice(3)", [["seed=3"]]),
        ("~wandb.tags +wandb.x=1", [["~wandb.tags", "+wandb.x=1"]]),
        ("agent=glob(l2_i*t)", [["agent=l2_init"]]),
        ("", [[]]),
    ],
)
def test_all_combinations(typed: str, jobs: list[list[str]]) -> None:
    assert GridSweeper().foreseen(typed.split(), Composer()) == jobs


def test_values_of_keys_that_only_some_options_have() -> None:
    optional = {"agent.l2_weight": "1e-2,1e-3", "agent": {"sample_init_values": [True, False]}}
    sweeper = GridSweeper(params={"agent": "base,l2,l2_init"}, optional=optional)
    assert sweeper.foreseen(["seed=3"], Composer()) == [
        ["agent=base", "seed=3"],
        *(["agent=l2", "seed=3", f"agent.l2_weight={weight}"] for weight in (0.01, 0.001)),
        *(
            ["agent=l2_init", "seed=3", f"agent.l2_weight={weight}", f"agent.sample_init_values={sampled}"]
            for weight in (0.01, 0.001)
            for sampled in (True, False)
        ),
    ]
    with pytest.raises(ConfigError, match=r"optional: none of the sweep's configs has agent\.x\."):
        GridSweeper(optional={"agent.x": "1"}).foreseen(["seed=3"], Composer())


def test_what_the_message_offers_works(train: CommandLine, workplace: Path) -> None:
    sweep = ("-m", "hydra.sweep.dir=sweep", "hydra.launcher.workers=1", "agent=base,l2_init")
    said = train(*sweep, "agent.l2_weight=1e-3,0.5").error()
    offered = said.split("write ")[1].split(" in its place")[0]
    assert offered == "'hydra.sweeper.optional={agent.l2_weight:[0.001,0.5]}'"
    assert train(*sweep, *shlex.split(offered)).code == 0
    assert len(list(workplace.glob("sweep/*/summary.json"))) == 3
