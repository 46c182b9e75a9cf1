"""Run folders as a training run leaves them, made by hand."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

Write = Callable[..., Path]

CONFIG = {
    "device": "auto",
    "data_dir": "${oc.env:CONTINUAL_DATA_DIR,data}",
    "agent": {"_target_": "continual.agents.base.Base"},
    "network": {"_target_": "continual.networks.mlp.MLP", "hidden_sizes": [100, 100]},
    "env": {
        "_target_": "continual.envs.RandomLabel",
        "num_tasks": 3,
        "dataset": {"_target_": "continual.datasets.digits", "folder": "${data_dir}"},
    },
    "optimizer": {"_target_": "continual.optimizers.Adam", "lr": 1e-3},
    "engine": {"compile": "auto"},
    "wandb": {"mode": "offline"},
}
OPTIONS = {
    "env": "random_label_digits",
    "env/dataset": "digits",
    "agent": "base",
    "network": "mlp",
    "optimizer": "adam",
    "experiment": "quickstart",
    "hydra/launcher": "packed",
}
L2_INIT = {"_target_": "continual.agents.l2_init.L2Init", "l2_weight": 0.01}


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """`run_writer` below tmp_path."""
    return run_writer(tmp_path)


def run_writer(root: Path) -> Write:
    """A function that writes a run folder below `root` and returns it.

    `nodes` replaces top-level nodes of CONFIG, `options` entries of OPTIONS; `accuracies` are the
    online accuracies by task, `measures` further columns of tasks.csv, `forgetting` the rows of
    forgetting.csv, each with an accuracy for each task so far. `status=None` leaves summary.json
    out; `age` is in seconds.
    """

    def write(
        name: str,
        seed: int = 0,
        accuracies: Sequence[float] = (0.5, 0.6, 0.7),
        *,
        nodes: Mapping[str, Any] | None = None,
        options: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        status: str | None = "completed",
        task_types: Sequence[str] | None = None,
        test_accuracies: Sequence[float] | None = None,
        measures: Mapping[str, Sequence[float]] | None = None,
        forgetting: Sequence[Sequence[float]] | None = None,
        age: float = 0,
        **summary: Any,
    ) -> Path:
        folder = root / name
        (folder / ".hydra").mkdir(parents=True)
        for file, content in {
            "config": {"seed": seed, **CONFIG, **(nodes or {})},
            "hydra": {"hydra": {"runtime": {"choices": {**OPTIONS, **(options or {})}}}},
            "overrides": list(overrides),
        }.items():
            (folder / ".hydra" / f"{file}.yaml").write_text(yaml.safe_dump(content))
        task_types = task_types or [""] * len(accuracies)
        scored = [value for value, kind in zip(accuracies, task_types, strict=True) if kind != "easy"]
        pd.DataFrame(
            {
                "task": range(len(accuracies)),
                "task_type": task_types,
                "step": [100 * (task + 1) for task in range(len(accuracies))],
                "online_accuracy": accuracies,
                "test_accuracy": test_accuracies or [None] * len(accuracies),
                **(measures or {}),
            }
        ).to_csv(folder / "tasks.csv", index=False)
        if forgetting is not None:
            rows = [
                {"task": k, **{str(m): value for m, value in enumerate(row)}}
                for k, row in enumerate(forgetting)
            ]
            columns = ["task", *map(str, range(len(accuracies)))]
            pd.DataFrame(rows, columns=columns).to_csv(folder / "forgetting.csv", index=False)
        written = [folder / "tasks.csv"]
        if status is not None:
            content = {
                "status": status,
                "total_average_online_accuracy": sum(scored) / len(scored) if status == "completed" else None,
                "num_tasks": len(accuracies),
                **summary,
            }
            written.append(folder / "summary.json")
            written[-1].write_text(json.dumps(content))
        for path in written:
            os.utime(path, (1e9 - age, 1e9 - age))
        return folder

    return write
