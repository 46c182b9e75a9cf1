"""Reference runs: the table of what released versions gave, and how one of its runs is made again."""

from pathlib import Path
from typing import Any

import yaml

from tests import tiny

TABLE = Path(__file__).with_name("runs.yaml")
# As short as a run can be in which every method acts.
SETTINGS = (
    "seed=0",
    "device=cpu",
    "wandb.mode=disabled",
    "engine.compile=false",
    "env.num_tasks=3",
    "env.steps_per_task=60",
)


def table() -> list[dict[str, Any]]:
    """The rows of the table: `overrides` (a line), `score` and `loss`."""
    rows: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text())
    return rows


def train(overrides: str, folder: Path) -> tiny.Finished:
    """Train the reference run with these overrides, each separated by a space."""
    [finished] = tiny.train([tiny.compose(*SETTINGS, *overrides.split())], folder)
    return finished


def of(finished: tiny.Finished) -> tuple[float, float]:
    """What the table says of a run: its score, and the loss over its last task, which shows more."""
    return round(finished.summary["total_average_online_accuracy"], 6), round(
        finished.rows[-1]["online_loss"], 4
    )
